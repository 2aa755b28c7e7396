"""Sessions of the pages: somebody signs in once, by an admin key or an OpenID provider, and gets a cookie
with the owner and the expiry.

Sessions are not stored: the cookie is signed with a secret (`admin.session_key`, or a random one made when
the gateway starts), and with what admitted its owner: the digest of the admin key, or the configuration of
the provider. So another key, or other roles, end these sessions; signing out deletes the cookie in one
browser and ends no copy of it. The cookie is HttpOnly and SameSite=Strict. Each request also needs a token in
a header, which only a page that can read the gateway's responses knows; so a page on another port of the same
host, for which the browser sends the cookie, cannot use it.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import msgspec

from sluice.config.types import Oidc, Role
from sluice.errors import RateLimited, Unauthorized
from sluice.identity.operators import Operator, Operators

IDLE = 3_600
"""Seconds for which a cookie is valid; a cookie in use is renewed."""
MAX_SESSION_SECONDS = 12 * 3_600
"""Maximum seconds from signing in to signing in again."""
TOKEN_HEADER = "x-sluice-csrf"  # noqa: S105  a name
MAX_COOKIE_LENGTH = 1_024

_json = msgspec.json.Encoder().encode


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """The owner of a session, as in its cookie: the way of signing in, and the name.

    `role` is only used for people whom a provider has signed in: a key's role is in the configuration.
    `secure`: the browser uses TLS, to a proxy in front; only the Origin of its POST requests shows that.
    """

    by: Literal["key", "oidc"]
    name: str
    role: Role = "viewer"
    secure: bool = False


_owner = msgspec.json.Decoder(Owner).decode


class Session(msgspec.Struct, frozen=True):
    """A session. `cookie`: the cookie's value; `token`: the header's value. Times are in seconds since the
    epoch."""

    cookie: str
    token: str
    begun: int
    expires: int
    owner: Owner
    operator: Operator


class Sessions:
    """Makes and verifies sessions. `seed` is secret, and the same in all processes (and replicas) of a
    gateway; `wall` gives seconds since the epoch."""

    def __init__(
        self, seed: bytes, operators: Operators, oidc: Oidc | None, wall: Callable[[], float]
    ) -> None:
        self._seed = seed
        self._operators = operators
        self._oidc = None if oidc is None else hashlib.sha256(repr(_terms(oidc)).encode()).hexdigest()
        self._wall = wall
        self.cookie_name = f"sluice_ui_{hashlib.sha256(seed).hexdigest()[:8]}"

    def begin(self, owner: Owner) -> Session:
        """Raises Unauthorized if the owner is not in the configuration."""
        return self._made(int(self._wall()), secrets.token_urlsafe(12), owner)

    def renewed(self, session: Session) -> Session:
        """Returns the session with a later expiry, at most MAX_SESSION_SECONDS after its beginning."""
        return self._made(session.begun, session.cookie.split(".")[2], session.owner)

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Session:
        """Returns the session of these raw header pairs. Raises Unauthorized."""
        given = next(cookies(headers, self.cookie_name), None)
        if given is None:
            raise Unauthorized("missing")
        return self._checked(given)

    def check_token(self, session: Session, token: str) -> None:
        """Raises Unauthorized."""
        if not hmac.compare_digest(session.token.encode(), token.encode("utf-8", "replace")):
            raise Unauthorized("missing")

    def set_cookie(self, session: Session) -> tuple[str, str]:
        """Returns the header that sets the session's cookie."""
        age = session.expires - int(self._wall())
        return self._cookie(session.cookie, age, secure=session.owner.secure)

    def end_cookie(self, *, secure: bool) -> tuple[str, str]:
        """Returns the header that deletes the session's cookie."""
        return self._cookie("", 0, secure=secure)

    def _cookie(self, value: str, age: int, *, secure: bool) -> tuple[str, str]:
        more = "; Secure" if secure else ""
        return (
            "Set-Cookie",
            f"{self.cookie_name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{more}",
        )

    def _made(self, begun: int, nonce: str, owner: Owner) -> Session:
        expires = min(int(self._wall()) + IDLE, begun + MAX_SESSION_SECONDS)
        return self._signed(begun, expires, nonce, owner)

    def _signed(self, begun: int, expires: int, nonce: str, owner: Owner) -> Session:
        secret, operator = self._known(owner)
        who = base64.urlsafe_b64encode(_json(owner)).decode().rstrip("=")
        text = f"{begun}.{expires}.{nonce}.{who}"
        token = _mark(secret, "token", f"{begun}.{nonce}.{who}")
        return Session(f"{text}.{_mark(secret, 'cookie', text)}", token, begun, expires, owner, operator)

    def _known(self, owner: Owner) -> tuple[bytes, Operator]:
        """Returns the key that signs this owner's sessions, and the owner's current identity. Raises
        Unauthorized."""
        if owner.by == "oidc":
            found = (self._oidc, Operator(owner.name, owner.role)) if self._oidc is not None else None
        else:
            found = self._operators.named(owner.name)
        if found is None:
            raise Unauthorized("unknown_key")
        binding, operator = found
        return hmac.digest(self._seed, f"sluice session {owner.by} {binding}".encode(), "sha256"), operator

    def _checked(self, cookie: str) -> Session:
        begun, expires, nonce, who, _ = [*cookie[:MAX_COOKIE_LENGTH].split("."), *("",) * 5][:5]
        if not all(number.isascii() and number.isdigit() and len(number) < 13 for number in (begun, expires)):
            raise Unauthorized("missing")
        try:
            owner = _owner(base64.b64decode(who + "=" * (-len(who) % 4), altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, msgspec.DecodeError):
            raise Unauthorized("missing") from None
        session = self._signed(int(begun), int(expires), nonce, owner)
        if not hmac.compare_digest(session.cookie.encode(), cookie.encode("utf-8", "replace")):
            raise Unauthorized("bad_signature")
        # a session that begins in the future was made while the clock was ahead, and would last too long
        if not session.begun - IDLE <= self._wall() < session.expires:
            raise Unauthorized("expired")
        return session


def cookies(headers: Iterable[tuple[bytes, bytes]], name: str) -> Iterator[str]:
    """Returns the values of the cookies with this name among raw header pairs (RFC 6265 section 4.2)."""
    for header, value in headers:
        if header.lower() == b"cookie":
            for pair in value.decode("latin-1")[:8192].split(";"):
                key, _, given = pair.strip().partition("=")
                if key == name:
                    yield given


def _terms(oidc: Oidc) -> tuple[object, ...]:
    """Returns the provider's options that decide who may sign in, and in which role."""
    return (oidc.issuer, oidc.client_id, oidc.roles.claim, oidc.roles.viewer, oidc.roles.operator)


def _mark(secret: bytes, purpose: str, text: str) -> str:
    return hmac.new(secret, f"{purpose} {text}".encode(), "sha256").hexdigest()


class Attempts:
    """Counts wrong keys by address: after MAX_FAILURES within WINDOW seconds further attempts from that
    address are refused until these expire.

    Addresses without wrong keys are not affected, unless there are very many wrong keys in all (OVERALL).
    `clock` is monotonic.
    """

    MAX_FAILURES = 10
    WINDOW = 300.0
    ADDRESSES = 1_000
    OVERALL = 500

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._all = (0, 0.0)

    def check(self, address: str) -> None:
        """Raises RateLimited."""
        now = self._clock()
        for (number, since), most in (
            (self._failed.get(address, (0, now)), self.MAX_FAILURES),
            (self._all, self.OVERALL),
        ):
            if number >= most and now - since < self.WINDOW:
                raise RateLimited(self.WINDOW - (now - since), scope="address", resource="requests")

    def failed(self, address: str) -> None:
        now = self._clock()
        self._failed[address] = self._more(self._failed.pop(address, (0, now)), now)
        self._all = self._more(self._all, now)
        if len(self._failed) > self.ADDRESSES:
            self._failed.popitem(last=False)

    def succeeded(self, address: str) -> None:
        self._failed.pop(address, None)

    def _more(self, count: tuple[int, float], now: float) -> tuple[int, float]:
        number, since = count
        return (number + 1, since) if number and now - since < self.WINDOW else (1, now)
