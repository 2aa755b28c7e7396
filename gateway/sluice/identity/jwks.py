"""Keys that verify signatures: a JSON Web Key Set (RFC 7517), or one shared secret as a key.

`sluice.identity.remote` fetches and caches sets; what a key may be used for is decided here for all of them.
Reading and checking a set needs no cryptography, so `sluice check` can do it; PyJWT only gets keys that have
passed. A key is used for an algorithm only if its type, curve, `alg`, `use` and `key_ops` allow that (RFC
7517 sections 4.2-4.4) and it is long enough (RFC 7518 sections 3.2-3.5). Messages never quote a key.
"""

import base64
import binascii
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from sluice.config.types import Issuer

MAX_FILE = 1 << 20

_HMAC = {"HS256": 32, "HS384": 48, "HS512": 64}  # octets at least
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA_OCTETS = 256

ALGORITHMS: dict[str, tuple[str, ...]] = {
    "oct": tuple(_HMAC),
    "RSA": _RSA,
    "EC": tuple(_CURVES),
    "OKP": ("EdDSA",),
}
"""The algorithms that are verified, by type of key. `none` is deliberately missing."""

_KNOWN = frozenset(name for names in ALGORITHMS.values() for name in names)
_MISSPELT = {
    "ES521": "ES512"
}  # not registered, but used for P-521 by RFC 7520's own vectors and by older libraries


class Jwk(msgspec.Struct, frozen=True):
    """One JSON Web Key, reduced to what verification needs; private members are not read at all."""

    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: str | None = None
    k: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None

    def __repr__(self) -> str:
        return f"Jwk(kty={self.kty!r}, kid={self.kid!r}, alg={self.alg!r})"

    def verifies(self, algorithm: str) -> bool:
        """Returns whether this key may check signatures made with `algorithm`."""
        return (
            self.use in (None, "sig")
            and (self.key_ops is None or "verify" in self.key_ops)
            and (self.alg is None or _MISSPELT.get(self.alg, self.alg) == algorithm)
            and algorithm in ALGORITHMS.get(self.kty, ())
            and self._strong_enough(algorithm)
        )

    def _strong_enough(self, algorithm: str) -> bool:
        match self.kty:
            case "oct":
                return len(_octets(self.k)) >= _HMAC[algorithm]
            case "RSA":
                return len(_octets(self.n).lstrip(b"\0")) >= _RSA_OCTETS and bool(self.e)
            case "EC":
                return self.crv == _CURVES[algorithm] and bool(self.x and self.y)
        return self.crv in ("Ed25519", "Ed448") and bool(self.x)


class KeySource(Protocol):
    """Provides an issuer's keys without waiting: configured ones, or a set that is fetched."""

    @property
    def keys(self) -> tuple[Jwk, ...]: ...

    def worth_asking(self) -> bool:
        """Returns whether `renew` might bring a key that is not among `keys`."""
        ...

    async def renew(self) -> None:
        """Waits, for a few seconds at most, for keys that are newer. Raises Unavailable if there are none at
        all even then."""
        ...


class ConfiguredKeys(msgspec.Struct, frozen=True):
    """Keys that never change."""

    keys: tuple[Jwk, ...]

    def worth_asking(self) -> bool:
        return False

    async def renew(self) -> None:
        return None


class _Set(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


class _Kind(msgspec.Struct, frozen=True):
    kty: str


def read_jwks(path: str) -> tuple[Jwk, ...]:
    """Returns the keys in a JWKS file; keys of an unknown type are left out (RFC 7517 section 5). Raises
    ValueError."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {(error.strerror or 'failed').lower()}") from None
    if len(data) > MAX_FILE:
        raise ValueError(f"{path} is larger than {MAX_FILE >> 20} MiB")
    return parse_jwks(data, path)


def parse_jwks(data: bytes, name: str = "the key set") -> tuple[Jwk, ...]:
    """Returns the keys of a JWK Set.

    A key of an unknown type or without one, or with a member of a wrong type, is left out (RFC 7517 section
    5), so that it does not keep a rotation of the others from being followed. Raises ValueError, with `name`,
    if the data is not a set.
    """
    try:
        raw = msgspec.json.decode(data, type=_Set).keys
        kinds = [_kind_of(key) for key in raw]
        if raw and not any(kinds):
            raise msgspec.DecodeError
        known = [key for key, kind in zip(raw, kinds, strict=True) if kind in ALGORITHMS]
        return tuple(key for key in map(_readable, known) if key is not None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError(f'{name} is not a JSON Web Key Set: {{"keys": [...]}}') from None


def _kind_of(raw: msgspec.Raw) -> str:
    """Returns a key's type; "" where it has none."""
    try:
        return msgspec.json.decode(raw, type=_Kind).kty
    except msgspec.DecodeError:
        return ""


def _readable(raw: msgspec.Raw) -> Jwk | None:
    try:
        return msgspec.json.decode(raw, type=Jwk)
    except msgspec.ValidationError:
        return None


def shared_secret(secret: str) -> Jwk:
    """Returns a shared secret as a key for HS256, HS384 and HS512, as far as it is long enough."""
    return Jwk("oct", k=base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode())


def issuer_keys(issuer: Issuer) -> tuple[Jwk, ...]:
    """Returns the keys that the configuration gives an issuer; none for a set that is fetched. Raises
    ValueError."""
    if issuer.jwks_file is not None:
        return read_jwks(issuer.jwks_file)
    return (shared_secret(issuer.secret.reveal()),) if issuer.secret is not None else ()


def is_remote(issuer: Issuer) -> bool:
    """Returns whether its keys are fetched."""
    return issuer.jwks_url is not None or issuer.discovery


def check_url(text: str) -> None:
    """Raises ValueError unless keys may be fetched from this address: https, or http to this machine."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if (
        not host
        or not text.isascii()
        or not text.isprintable()
        or " " in text
        or parts.scheme not in ("https", "http")
    ):
        raise ValueError("expected a URL such as https://login.example.com/jwks.json")
    if parts.username is not None or parts.fragment:
        raise ValueError("must have neither a user nor a fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError("must be https: whoever can change the answer could sign tokens")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def unfit(algorithms: Sequence[str]) -> str:
    """Returns why these algorithms cannot be used with any set that is fetched; empty if they can. A
    published key is no secret, so HMAC is refused (RFC 8725 section 2.1)."""
    for algorithm in algorithms:
        if algorithm not in _KNOWN:
            return _unknown(algorithm)
        if algorithm in _HMAC:
            return f"{algorithm} needs a secret: the keys of a set that is fetched are public"
    return ""


def unusable(algorithms: Sequence[str], keys: Sequence[Jwk], *, by_secret: bool) -> str:
    """Returns why these algorithms cannot be used with these keys; empty if each has a key."""
    for algorithm in algorithms:
        if algorithm not in _KNOWN:
            return _unknown(algorithm)
        if any(key.verifies(algorithm) for key in keys):
            continue
        if not by_secret:
            return f"no key of jwks_file may verify {algorithm} (type, alg, use, key_ops, length)"
        if algorithm not in _HMAC:
            return f"{algorithm} needs a public key (jwks_file), not a secret"
        return f"the secret is too short for {algorithm}: at least {_HMAC[algorithm]} bytes"
    return ""


def _unknown(algorithm: str) -> str:
    return f"unknown algorithm {algorithm[:32]!r}; known: {', '.join(sorted(_KNOWN))}"


def _octets(text: str | None) -> bytes:
    """Decodes base64url without padding; anything else gives no octets, so that no key is strong enough with
    it."""
    try:
        return base64.b64decode((text or "") + "=" * (-len(text or "") % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
