"""Authentication: request headers -> Principal."""

import time
from collections.abc import Callable, Iterable, Mapping

from sluice.config.types import Config, Issuer
from sluice.errors import NotFound, Unauthorized
from sluice.identity.browser import BrowserTokens, Minted, TokenRequest, is_browser_token
from sluice.identity.jwks import KeySource, is_remote
from sluice.identity.jwt import KeysWanted, Verifier, looks_like_jwt
from sluice.identity.keys import HEADERS, Keyring, credentials_of, only_secret
from sluice.identity.principal import Principal


class Authenticator:
    """Authenticates callers by key, JWT or browser token.

    `clock` gives seconds since the epoch. `dynamic`: the keys that are made at run time. `names`: further
    headers that may carry a credential, lower case, beside HEADERS. `key_set` returns the key set of an
    issuer that publishes it; it is fetched elsewhere. Raises ConfigError if an issuer's configured keys
    cannot be used (they are read here, once).
    """

    def __init__(
        self,
        config: Config,
        clock: Callable[[], float] = time.time,
        dynamic: Keyring | None = None,
        names: Iterable[str] = (),
        key_set: Callable[[Issuer], KeySource] | None = None,
    ) -> None:
        self._others = frozenset(names)
        self._names = HEADERS.union(name.encode() for name in names)
        self._keyring = Keyring(config.keys, clock)
        self._dynamic = dynamic if dynamic is not None else Keyring((), clock)
        fetched = {
            issuer.issuer: (key_set or _unfetched)(issuer) for issuer in config.jwt if is_remote(issuer)
        }
        self._verifier = Verifier(config.jwt, clock=clock, fetched=fetched) if config.jwt else None
        self._browser = (
            BrowserTokens(config.tokens, self.key, config.aliases, clock) if config.tokens else None
        )

    def known_now(self, fields: Mapping[str, str]) -> Principal | None:
        """Returns the caller if these fields (by lower-case name) have exactly one credential, and that is a
        known key, as for most callers.

        None means nothing: then `identify_now` has to decide. Raises Unauthorized for a key that may not be
        used any more.
        """
        secret = only_secret(fields, self._others)
        return self._keyring.find(secret) or self._dynamic.find(secret) if secret else None

    def identify_now(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Returns the caller behind raw header pairs.

        Raises Unauthorized with a reason of `auth_failures_total`. Raises KeysWanted if it would have to wait
        for the key of a JWT that may have been published meanwhile: await its `keys.renew()`, then call this
        once more.
        """
        credential = credentials_of(headers, self._names)
        if credential is None:
            raise Unauthorized("missing")
        principal = self._keyring.find(credential.secret) or self._dynamic.find(credential.secret)
        if principal is not None:
            return principal
        if self._browser is not None and is_browser_token(credential.secret):
            return self._browser.principal(credential.secret)
        if self._verifier is not None and credential.bearer and looks_like_jwt(credential.secret):
            return self._verifier.principal(credential.secret)
        raise Unauthorized("unknown_key")

    def key(self, key_id: str) -> Principal | None:
        """Returns the key with this id, as long as it may be used."""
        return self._keyring.named(key_id) or self._dynamic.named(key_id)

    def mint(self, owner: Principal, request: TokenRequest) -> Minted:
        """Makes a browser token. Raises NotFound if these are off, Forbidden, BadRequest or ModelNotFound."""
        if self._browser is None:
            raise NotFound("This gateway mints no tokens: `tokens` is not configured")
        return self._browser.mint(owner, request)

    def renew(self, headers: Iterable[tuple[bytes, bytes]], origin: str) -> Minted:
        """Renews the browser token that a page presents. Raises NotFound, Unauthorized or Forbidden."""
        if self._browser is None:
            raise NotFound("This gateway mints no tokens: `tokens` is not configured")
        credential = credentials_of(headers, self._names)
        if credential is None:
            raise Unauthorized("missing")
        if not is_browser_token(credential.secret):
            raise Unauthorized("unknown_key")
        return self._browser.renew(credential.secret, origin)


def _unfetched(issuer: Issuer) -> KeySource:
    from sluice.identity.remote import RemoteKeys

    return RemoteKeys(issuer)


__all__ = ["Authenticator", "KeysWanted", "Principal"]
