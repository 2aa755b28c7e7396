"""Short-lived tokens for web pages, minted by a key for one origin, alias and session prefix.

A compact JWS (RFC 7515) by HMAC-SHA-256, typed explicitly (RFC 8725 section 3.11). All of ours begin with the
same header, letter for letter, so there is no algorithm to choose and nothing to parse before the signature
is verified.

A token is valid only while its key is: the key is looked up for every request, and if it was disabled, has
expired, was deleted or lost the permission, its tokens are refused. Limits are counted in the key's own
buckets, so a hundred pages share the limits of one key.

A page may name sessions by ids of its own making (`own_sessions`): they are put behind the token's prefix, so
that each token has a namespace of its own, and no id that a page sends can reach another visitor's
conversation. A page that stays open renews its token; what it was bound to stays, and so does the time until
which it can be renewed.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, Literal

import msgspec

from sluice.config.types import BrowserTokens as Settings
from sluice.errors import BadRequest, Forbidden, ModelNotFound, Unauthorized
from sluice.identity.principal import Principal

SECONDS = 300
GRACE = 600
"""Seconds after its end that a token can still be renewed."""
MIN_SECRET_BYTES = 32
"""Minimum octets (RFC 7518 section 3.2)."""

_HEAD = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"sluice-browser+jwt"}').rstrip(b"=").decode() + "."
_COMPACT = re.compile(re.escape(_HEAD) + r"([A-Za-z0-9_-]{1,4096})\.([A-Za-z0-9_-]{43})").fullmatch
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{0,95}[._:-]").fullmatch

PrincipalOfKey = Callable[[str], Principal | None]


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A request for a token. None stands for: the key's default alias; a random prefix; SECONDS (or the
    configured maximum, if that is less); `own_sessions` if the prefix is random."""

    origin: str
    alias: str | None = None
    session_prefix: str | None = None
    seconds: int | None = None
    own_sessions: bool | None = None


class Minted(msgspec.Struct, frozen=True):
    """A token and its properties. `expires` and `renewable_until`: seconds since the epoch; the latter is
    None if it cannot be renewed."""

    token: str
    expires: int
    origin: str
    alias: str
    session_prefix: str
    renewable_until: int | None = None


class _Claims(msgspec.Struct, frozen=True):
    iss: Literal["sluice"]
    aud: Literal["sluice-browser"]
    exp: int
    iat: int
    key: str
    tenant: str
    origin: str
    alias: str
    session: str
    own: bool = False  # sessions that the page names itself are put behind `session`
    born: int = 0  # when the first of these tokens, which renew each other, was made


def is_browser_token(secret: str) -> bool:
    return secret.startswith(_HEAD)


def token_request(wire: dict[str, Any]) -> TokenRequest:
    """Parses the body of a request for a token. Raises BadRequest, also for unknown fields, which would have
    no effect."""
    try:
        return msgspec.convert(wire, TokenRequest)
    except msgspec.ValidationError:
        pass
    fields = {"origin": str, "alias": str, "sessionPrefix": str, "seconds": int, "ownSessions": bool}
    wrong = [name for name, kind in fields.items() if name in wire and type(wire[name]) is not kind]
    missing = [] if "origin" in wire else ["origin"]
    if wrong or missing:
        field = (missing or wrong)[0]
        raise _refused(field, "is required" if missing else f"must be {_KINDS[fields[field]]}")
    raise _refused(
        "body",
        "has a field that is not known; there are origin, alias, sessionPrefix, seconds and ownSessions",
    )


_KINDS = {str: "text", int: "a whole number", bool: "true or false"}


class BrowserTokens:
    """Makes and verifies browser tokens. `aliases`: all configured ones. `clock` gives seconds since the
    epoch."""

    def __init__(
        self,
        settings: Settings,
        principal_of_key: PrincipalOfKey,
        aliases: Collection[str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._secret = settings.secret.reveal().encode()
        self._longest = int(settings.longest)
        self._renewable = int(settings.renewable) if settings.renewable is not None else None
        self._principal_of_key = principal_of_key
        self._aliases = aliases
        self._clock = clock

    def mint(self, owner: Principal, request: TokenRequest) -> Minted:
        """Makes a token of `owner`, which must be a key. Raises Forbidden, BadRequest or ModelNotFound."""
        if owner.kind != "key":
            raise Forbidden("Only a key may mint tokens")
        if request.origin not in owner.origins:
            raise Forbidden("The origin must be one of the key's own `origins`", param="origin")
        alias = request.alias if request.alias is not None else owner.default_alias
        if alias is None:
            raise _refused("alias", "is required: the key has no default")
        if alias not in self._aliases or not owner.may(alias):
            raise ModelNotFound("There is no such model, or this key may not use it", param="alias")
        seconds = min(SECONDS, self._longest) if request.seconds is None else request.seconds
        if not 1 <= seconds <= self._longest:
            raise _refused("seconds", f"must be 1 to {self._longest}")
        prefix = request.session_prefix if request.session_prefix is not None else secrets.token_hex(16)
        if request.session_prefix is not None and not _PREFIX(prefix):
            raise _refused(
                "sessionPrefix",
                "must be 1 to 96 letters, digits and . _ : - and end in one of . _ : - (so none begins another)",
            )
        now = int(self._clock())
        own = request.own_sessions if request.own_sessions is not None else request.session_prefix is None
        claims = _Claims(
            iss="sluice", aud="sluice-browser", exp=now + seconds, iat=now, key=owner.key_id, tenant=owner.tenant,
            origin=request.origin, alias=alias, session=prefix, own=own, born=now,
        )  # fmt: skip
        return self._signed(claims)

    def renew(self, token: str, origin: str) -> Minted:
        """Renews a token for the same lifetime, for a page that stays open.

        An expired token can be renewed for GRACE seconds (a suspended page), and none after the time that was
        set with the first one. Raises Unauthorized as `principal` does, Forbidden for another origin than the
        token's.
        """
        claims = self._claims(token)
        if origin != claims.origin:
            raise Forbidden("This token may not be used from this origin")
        now = int(self._clock())
        if self._renewable is None or claims.exp + GRACE <= now:
            raise Unauthorized("expired")
        born = claims.born or claims.iat
        expires = min(now + claims.exp - claims.iat, born + self._renewable)
        if expires <= now:
            raise Unauthorized("expired")
        self._owner(claims)
        return self._signed(msgspec.structs.replace(claims, exp=expires, iat=now, born=born))

    def _signed(self, claims: _Claims) -> Minted:
        signed = _HEAD + _base64url(msgspec.json.encode(claims))
        token = f"{signed}.{_base64url(self._sign(signed))}"
        until = claims.born + self._renewable if self._renewable is not None else None
        return Minted(token, claims.exp, claims.origin, claims.alias, claims.session, until)

    def principal(self, token: str) -> Principal:
        """Returns the page's principal. Raises Unauthorized: "bad_signature", "expired", or "revoked" (its
        key has lost the permission)."""
        claims = self._claims(token)
        if claims.exp <= self._clock():
            raise Unauthorized("expired")
        return msgspec.structs.replace(
            self._owner(claims),
            aliases=frozenset((claims.alias,)),
            default_alias=claims.alias,
            origins=(claims.origin,),
            kind="browser",
            session_prefix=claims.session,
            own_sessions=claims.own,
        )

    def _claims(self, token: str) -> _Claims:
        """Returns the claims of a token with a valid signature, expired or not. Raises Unauthorized."""
        if (parts := _COMPACT(token)) is None:
            raise Unauthorized("bad_signature")
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(_base64url(self._sign(signed)), signature):
            raise Unauthorized("bad_signature")
        try:
            return msgspec.json.decode(
                base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=_Claims
            )
        except (
            msgspec.DecodeError,
            UnicodeDecodeError,
            RecursionError,
            binascii.Error,
        ):  # another program's token, signed with the same secret
            raise Unauthorized("bad_signature") from None

    def _owner(self, claims: _Claims) -> Principal:
        """Returns the key that made the token. Raises Unauthorized("revoked") if the key lacks the token's
        permissions now."""
        owner = self._principal_of_key(claims.key)
        if (
            owner is None
            or owner.tenant != claims.tenant
            or claims.origin not in owner.origins
            or claims.alias not in self._aliases
            or not owner.may(claims.alias)
        ):
            raise Unauthorized("revoked")
        return owner

    def _sign(self, signed: str) -> bytes:
        return hmac.digest(self._secret, signed.encode(), hashlib.sha256)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _refused(field: str, reason: str) -> BadRequest:
    return BadRequest(f"{field}: {reason}", param=field, details=[{"field": field, "reason": reason}])
