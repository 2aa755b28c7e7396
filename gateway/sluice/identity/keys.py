"""Keys: which one a request presents, and whose it is. Pure; it runs for every request.

A key has 256 random bits, so its SHA-256 digest cannot be searched for. Looking a digest up in a dict tells
an attacker nothing useful; the deciding comparison is constant-time all the same.
"""

import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from sluice.config.types import Key, NamedGrant
from sluice.errors import Unauthorized
from sluice.identity.principal import Principal, default_of

PREFIX = "sk-sluice-"
MAX_LENGTH = 16 << 10

HEADERS = frozenset((b"x-api-key", b"authorization"))
"""Headers that may carry a credential for all dialects. Client dialects have further ones."""
_READABLE = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_LENGTH).fullmatch
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]{1,%d})" % MAX_LENGTH).fullmatch


class PresentedCredential(msgspec.Struct, frozen=True, gc=False):
    """The credential of a request. `bearer`: it came (also) in Authorization, so it may be a JWT."""

    secret: str
    bearer: bool = False

    def __repr__(self) -> str:
        return "PresentedCredential(***)"


def credentials_of(
    headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes] = HEADERS
) -> PresentedCredential | None:
    """Returns the one credential among raw header pairs (names in any case), or None. An empty header counts
    as absent.

    Raises Unauthorized: "ambiguous" for a repeated header or two different credentials; "unknown_key" for a
    value that cannot be a credential (another scheme than Bearer, spaces, control characters, not ASCII).
    """
    found: bytes | None = None
    bearer = False
    seen: list[bytes] = []
    for name, value in headers:
        if (name := name.lower()) not in names:
            continue
        if name in seen:
            raise Unauthorized("ambiguous")
        seen.append(name)
        if not (value := value.strip(b" \t")):
            continue
        match = _BEARER(value) if name == b"authorization" else _READABLE(value)
        if match is None:
            raise Unauthorized("unknown_key")
        secret = match[match.re.groups]
        if found is not None and not hmac.compare_digest(found, secret):
            raise Unauthorized("ambiguous")
        found = secret
        bearer = bearer or name == b"authorization"
    return None if found is None else PresentedCredential(found.decode("ascii"), bearer)


def only_secret(fields: Mapping[str, str], others: frozenset[str] = frozenset()) -> str:
    """Returns the credential of a request that has exactly one such header, in the common form.

    `fields`: by lower-case name, repeated ones joined by ", ". `others`: further names that may carry a
    credential. "" means nothing: then `credentials_of` has to decide.
    """
    key = fields.get("x-api-key")
    bearer = fields.get("authorization")
    if not fields.keys().isdisjoint(
        others
    ):  # looks for each of the others, which are few, instead of checking each field
        return ""
    if bearer is not None:
        if key is not None:
            return ""
        key = bearer[7:] if bearer.startswith("Bearer ") else ""
    elif key is None:
        return ""
    return key if key.isascii() and key.isprintable() and " " not in key else ""


class _Entry(msgspec.Struct, frozen=True):
    digest: bytes
    principal: Principal
    expires: float
    enabled: bool


def _sha256(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


class Keyring:
    """Keys by the digest that `digest` makes of them. `clock` gives seconds since the epoch."""

    def __init__(
        self,
        keys: Sequence[Key],
        clock: Callable[[], float] = time.time,
        digest: Callable[[bytes], bytes] = _sha256,
    ) -> None:
        self._entries: dict[bytes, _Entry] = {}
        self._by_id: dict[str, list[_Entry]] = {}
        self._clock = clock
        self._digest = digest
        for key in keys:
            self.put(key, {bytes.fromhex(key.digest.removeprefix("sha256:")): math.inf})

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: NamedGrant, digests: Mapping[bytes, float]) -> None:
        """Adds a key, which is accepted under each of `digests` until the time beside it. The first digest is
        the current one."""
        self.drop(key.id)
        self._by_id[key.id] = [_entry(key, digest, until) for digest, until in digests.items()]
        self._entries |= {entry.digest: entry for entry in self._by_id[key.id]}

    def drop(self, key_id: str) -> None:
        for entry in self._by_id.pop(key_id, ()):
            self._entries.pop(entry.digest, None)

    def find(self, secret: str) -> Principal | None:
        """Returns the principal of this key; None for an unknown one. Raises Unauthorized("revoked") or
        ("expired")."""
        if not self._entries:
            return None
        digest = self._digest(secret.encode())
        entry = self._entries.get(digest)
        if entry is None or not hmac.compare_digest(entry.digest, digest):
            return None
        if not entry.enabled:
            raise Unauthorized("revoked")
        if entry.expires <= self._clock():
            raise Unauthorized("expired")
        return entry.principal

    def named(self, key_id: str) -> Principal | None:
        """Returns the key with this id, for tokens that were made by it; None if it could not be used itself."""
        entry = next(iter(self._by_id.get(key_id, ())), None)
        return (
            entry.principal if entry is not None and entry.enabled and entry.expires > self._clock() else None
        )


def _entry(key: NamedGrant, digest: bytes, until: float) -> _Entry:
    aliases = frozenset(key.aliases)
    principal = Principal(
        key_id=key.id,
        tenant=key.owner,
        bucket=key.id,
        aliases=aliases,
        default_alias=default_of(aliases, key.default_alias),
        limits=key.limits,
        origins=key.origins,
        log_content=key.log_content,
    )
    expires = math.inf if key.expires is None else timestamp(key.expires)
    return _Entry(digest, principal, min(expires, until), key.enabled)


def new_key() -> str:
    """Returns a new key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """Returns the digest of `key` for the configuration."""
    return "sha256:" + _sha256(key.encode()).hex()


def timestamp(text: str) -> float:
    """Converts an RFC 3339 date and time with offset to seconds since the epoch. Raises ValueError."""
    try:
        moment: datetime = msgspec.convert(text, type=Annotated[datetime, msgspec.Meta(tz=True)])
        return moment.timestamp()
    except (msgspec.ValidationError, OverflowError):
        raise ValueError("expected a date and time by RFC 3339, such as 2027-01-31T00:00:00Z") from None
