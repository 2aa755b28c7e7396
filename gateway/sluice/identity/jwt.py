"""JSON Web Tokens (RFC 7519) as credentials, following RFC 8725. PyJWT verifies signatures; the rest is done
here.

The token names its issuer; the issuer's configuration alone determines which algorithms and keys may verify
it. Only then are the claims read: exp, iss and aud are required, nbf is respected. A verified token is cached
by the SHA-256 of the whole token for as long as its key is its issuer's, so that a stream of calls pays for
one signature. Failures are not cached. Nothing here waits: if a key may have been published since the set was
last fetched, KeysWanted says whom to ask.

This module imports neither PyJWT nor cryptography; `Verifier` does, so only a gateway with issuers pays for
them.
"""

import base64
import binascii
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from sluice.config.types import Issuer, KeyLimits, covering
from sluice.errors import ConfigError, Unauthorized
from sluice.identity.jwks import ConfiguredKeys, Jwk, KeySource, issuer_keys, unusable
from sluice.identity.principal import EVERY, Principal, default_of

CACHE_SIZE = 4096
MAX_TENANT = 256

_T = TypeVar("_T")
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]*)").fullmatch


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str | None = None
    crit: msgspec.Raw | None = None
    b64: bool = True


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    aud: str | list[str]
    exp: float
    nbf: float = float("-inf")


class KeysWanted(Unauthorized):
    """The token's key is not known yet: await `keys.renew()`, then try once more. A caller that does not wait
    refuses the token."""

    def __init__(self, keys: KeySource) -> None:
        super().__init__("unknown_key")
        self.keys = keys


class _Verified(msgspec.Struct, frozen=True):
    """A verified token: until when it is valid, its principal, and which of its issuer's keys verified it."""

    end: float
    principal: Principal
    key: Jwk
    source: KeySource


def looks_like_jwt(secret: str) -> bool:
    return secret.count(".") == 2


def verify(token: str, key: Jwk, algorithms: Collection[str]) -> bytes:
    """Returns the payload of a compact JWS (RFC 7515) whose signature `key` verifies with one of
    `algorithms`.

    Raises Unauthorized("bad_signature") otherwise: not compact, not base64url, an algorithm that is not
    allowed or not this key's, any critical extension, a key that may not verify, a wrong signature.
    """
    from jwt.api_jwk import PyJWK
    from jwt.api_jws import PyJWS
    from jwt.exceptions import PyJWTError

    header = _header(token)
    if header.alg not in algorithms or not key.verifies(header.alg):
        raise Unauthorized("bad_signature")
    try:
        members = {name: value for name, value in msgspec.to_builtins(key).items() if value is not None}
        prepared = PyJWK(members, header.alg)
        payload: bytes = PyJWS([header.alg]).decode(
            token, prepared, [header.alg], {"enforce_minimum_key_length": True}
        )
    except (PyJWTError, ValueError, TypeError):
        raise Unauthorized("bad_signature") from None
    return payload


def key_of(token: str, keys: Sequence[Jwk]) -> Jwk:
    """Returns the key that the header of a compact JWS refers to, among those that may verify its algorithm.
    Raises Unauthorized."""
    return _choose(keys, _header(token))


class Verifier:
    """Verifies tokens, and returns their principals. `clock` gives seconds since the epoch. `fetched`: the
    key sets of issuers whose keys are fetched. Raises ConfigError for keys or algorithms that cannot be
    used."""

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        clock: Callable[[], float] = time.time,
        cache_size: int = CACHE_SIZE,
        fetched: Mapping[str, KeySource] | None = None,
    ) -> None:
        fetched = fetched or {}
        self._issuers = {
            issuer.issuer: (issuer, fetched.get(issuer.issuer) or keys_of(issuer)) for issuer in issuers
        }
        self._clock = clock
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()
        self._cache_size = cache_size

    def principal(self, token: str) -> Principal:
        """Returns the principal of this token. Raises Unauthorized with the reason; KeysWanted if waiting may
        help."""
        digest = hashlib.sha256(token.encode()).digest()
        if (known := self._cache.get(digest)) is not None:
            if known.end > self._clock() and known.key in known.source.keys:
                self._cache.move_to_end(digest)
                return known.principal
            del self._cache[digest]
        verified = self._cache[digest] = self._verified(token)
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return verified.principal

    def _verified(self, token: str) -> _Verified:
        found = self._issuers.get(_claimed_issuer(token))
        if found is None:
            raise Unauthorized("unknown_key")
        issuer, source = found
        key = _key(issuer, source, _header(token))
        payload = verify(token, key, issuer.algorithms)
        claims = _decoded(payload, _Claims, "bad_signature")
        custom = _decoded(payload, dict[str, Any], "bad_signature")
        end = self._within_time(claims, issuer.leeway)
        if issuer.audience != claims.aud and issuer.audience not in _listed(claims.aud):
            raise Unauthorized("wrong_audience")
        return _Verified(end, _principal(issuer, custom), key, source)

    def _within_time(self, claims: _Claims, leeway: float) -> float:
        now = self._clock()
        if claims.exp + leeway <= now or claims.nbf - leeway > now:
            raise Unauthorized("expired")
        return claims.exp + leeway


def keys_of(issuer: Issuer) -> ConfiguredKeys:
    """Returns the issuer's configured keys. Raises ConfigError if one of its algorithms has none."""
    try:
        keys = issuer_keys(issuer)
    except ValueError as error:
        raise ConfigError([f"jwt issuer {issuer.issuer}: {error}"]) from None
    if problem := unusable(issuer.algorithms, keys, by_secret=issuer.jwks_file is None):
        raise ConfigError([f"jwt issuer {issuer.issuer}: {problem}"])
    return ConfiguredKeys(keys)


def _key(issuer: Issuer, source: KeySource, header: _Header) -> Jwk:
    try:
        return _choose(source.keys, header)
    except Unauthorized:
        if header.alg in issuer.algorithms and source.worth_asking():
            raise KeysWanted(source) from None
        raise


def _choose(keys: Sequence[Jwk], header: _Header) -> Jwk:
    """Chooses by `kid` if the token has one and the keys have names; otherwise the only key that may verify
    its algorithm."""
    fitting = [key for key in keys if key.verifies(header.alg)]
    if header.kid is not None:
        fitting = [key for key in fitting if key.kid in (header.kid, None)]
    if not fitting:
        raise Unauthorized("unknown_key" if header.kid is not None else "bad_signature")
    named = [key for key in fitting if key.kid == header.kid]
    return (named or fitting)[0]


def _decoded(data: bytes, kind: type[_T], reason: str) -> _T:
    """Decodes JSON as `kind`. Anything else, however deeply nested, is refused for `reason`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unauthorized(reason) from None


def _segment(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise Unauthorized("bad_signature") from None


def _header(token: str) -> _Header:
    if (parts := _COMPACT(token)) is None:
        raise Unauthorized("bad_signature")
    header = _decoded(_segment(parts[1]), _Header, "bad_signature")
    if (
        header.crit is not None or not header.b64
    ):  # no critical extension is supported (RFC 7515 section 4.1.11)
        raise Unauthorized("bad_signature")
    return header


class _Unverified(msgspec.Struct, frozen=True):
    iss: str


def _claimed_issuer(token: str) -> str:
    """Returns the issuer that the token claims, only to choose the keys: nothing else of an unverified token
    is used."""
    if (parts := _COMPACT(token)) is None:
        raise Unauthorized("unknown_key")
    return _decoded(_segment(parts[2]), _Unverified, "unknown_key").iss


def _listed(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _principal(issuer: Issuer, claims: dict[str, Any]) -> Principal:
    tenant = claims.get(issuer.claims.tenant)
    if not isinstance(tenant, str) or not 0 < len(tenant) <= MAX_TENANT or not tenant.isprintable():
        raise Unauthorized("unknown_key")
    aliases = _aliases(issuer, claims.get(issuer.claims.aliases))
    return Principal(
        key_id=f"jwt:{issuer.issuer}",
        tenant=_prefix(issuer) + tenant,
        bucket=f"jwt:{issuer.issuer}|{tenant}",
        aliases=aliases,
        default_alias=default_of(aliases, issuer.default_alias),
        limits=_limits(issuer, claims.get(issuer.claims.plan)),
        origins=issuer.origins,
        kind="jwt",
        user=_text(claims.get(issuer.claims.user)),
    )


def _text(claim: object) -> str:
    return claim if isinstance(claim, str) else ""


def _aliases(issuer: Issuer, claimed: object) -> frozenset[str]:
    """Returns the aliases that the token permits, among those that its issuer may grant."""
    granted = frozenset(issuer.aliases)
    if claimed is None:
        return granted
    wanted = frozenset(claimed.split() if isinstance(claimed, str) else _listed(claimed))
    if EVERY in wanted:
        return granted
    if EVERY in granted:
        return wanted
    return frozenset(name for name in wanted if name in granted or covering(granted, name))


def _limits(issuer: Issuer, plan: object) -> KeyLimits:
    """Returns the limits of the plan that the token names; an unknown plan has none."""
    return issuer.plans.get(plan, issuer.limits) if isinstance(plan, str) else issuer.limits


def _prefix(issuer: Issuer) -> str:
    return f"{issuer.issuer}|" if issuer.tenant_prefix is None else issuer.tenant_prefix
