"""Signing in to the pages: the admin key once, then a cookie that says until when.

Nothing is kept of a session: the cookie is signed with a secret that the process was started with, and with the digest of the
admin key, so that another key ends all of them. It is HttpOnly and SameSite=Strict; beside it each request needs a token in a
header, which only a page that could read an answer knows. So a page of another port of the same host, which the browser sends
the cookie for, can do nothing with it.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable

import msgspec

from sluice.errors import RateLimited, Unauthorized

IDLE = 3_600
"""Seconds that a cookie lives; one that is used is renewed."""
LONGEST = 12 * 3_600
"""Seconds from signing in to signing in again."""
TOKEN_HEADER = "x-sluice-csrf"  # noqa: S105  a name


class Session(msgspec.Struct, frozen=True):
    """`cookie` is the cookie's value, `token` what goes into the header. Times in seconds since the epoch."""

    cookie: str
    token: str
    begun: int
    expires: int


class Sessions:
    """`seed` is secret, and the same in all processes of a gateway; `digest` is the admin key's; `wall` gives the time."""

    def __init__(self, seed: bytes, digest: str, wall: Callable[[], float]) -> None:
        self._secret = hmac.digest(seed, b"sluice session " + digest.encode(), "sha256")
        self._wall = wall
        self.cookie_name = f"sluice_ui_{hashlib.sha256(seed).hexdigest()[:8]}"

    def begin(self) -> Session:
        return self._made(int(self._wall()), secrets.token_urlsafe(12))

    def renewed(self, session: Session) -> Session:
        """The same one, for longer: LONGEST after its beginning it ends."""
        return self._made(session.begun, session.cookie.split(".")[2])

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Session:
        """The session of these raw header pairs. Raises Unauthorized."""
        wanted = self.cookie_name
        for name, value in headers:
            if name.lower() == b"cookie":
                for pair in value.decode("latin-1")[:8192].split(";"):
                    key, _, given = pair.strip().partition("=")
                    if key == wanted:
                        return self._checked(given)
        raise Unauthorized("missing")

    def check_token(self, session: Session, token: str) -> None:
        """Raises Unauthorized."""
        if not hmac.compare_digest(session.token.encode(), token.encode("utf-8", "replace")):
            raise Unauthorized("missing")

    def set_cookie(self, session: Session | None, *, secure: bool) -> tuple[str, str]:
        """The header that gives a browser the session, or takes it away."""
        value, age = (session.cookie, session.expires - int(self._wall())) if session is not None else ("", 0)
        more = "; Secure" if secure else ""
        return "Set-Cookie", f"{self.cookie_name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{more}"

    def _made(self, begun: int, nonce: str) -> Session:
        expires = min(int(self._wall()) + IDLE, begun + LONGEST)
        return self._signed(begun, expires, nonce)

    def _signed(self, begun: int, expires: int, nonce: str) -> Session:
        text = f"{begun}.{expires}.{nonce}"
        return Session(f"{text}.{self._mark('cookie', text)}", self._mark("token", f"{begun}.{nonce}"), begun, expires)

    def _checked(self, cookie: str) -> Session:
        begun, _, rest = cookie.partition(".")
        expires, _, rest = rest.partition(".")
        nonce = rest.partition(".")[0]
        if not all(number.isascii() and number.isdigit() and len(number) < 13 for number in (begun, expires)):
            raise Unauthorized("missing")
        session = self._signed(int(begun), int(expires), nonce)
        if not hmac.compare_digest(session.cookie.encode(), cookie.encode("utf-8", "replace")):
            raise Unauthorized("bad_signature")
        if self._wall() >= session.expires:
            raise Unauthorized("expired")
        return session

    def _mark(self, purpose: str, text: str) -> str:
        return hmac.new(self._secret, f"{purpose} {text}".encode(), "sha256").hexdigest()


class Attempts:
    """Wrong keys, by address: MOST within WINDOW seconds, then nobody there may try until they are forgotten.

    An address that has not guessed is not held up by those that do, unless they are very many. `clock` is monotonic.
    """

    MOST = 10
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
        for (number, since), most in ((self._failed.get(address, (0, now)), self.MOST), (self._all, self.OVERALL)):
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
