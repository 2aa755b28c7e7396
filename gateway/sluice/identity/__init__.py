"""Headers -> Principal, before anything else can be built. Its result is an input of everything after it."""

import asyncio
import hmac
import time
from collections.abc import Callable, Iterable, Mapping

from sluice.config.types import Config
from sluice.errors import NotFound, Unauthorized
from sluice.identity.browser import BrowserTokens, Minted, TokenRequest, is_browser_token
from sluice.identity.jwks import is_remote
from sluice.identity.jwt import KeysWanted, Verifier, looks_like_jwt
from sluice.identity.keys import HEADERS, Keyring, credentials_of, only_secret
from sluice.identity.principal import Principal


class Authenticator:
    """Who calls: by key, by JWT, or by a browser token of a key. `clock` gives seconds since the epoch.

    `keys_fetched` hears of every fetch of an issuer's key set: issuer, outcome, how many keys there are now.
    `dynamic`: keys that come and go. `names`: of headers that may hold a credential, lower case, beside HEADERS.
    Raises ConfigError where an issuer's configured keys cannot be used (they are read here, once).
    """

    def __init__(
        self,
        config: Config,
        clock: Callable[[], float] = time.time,
        keys_fetched: Callable[[str, str, int], None] = lambda issuer, outcome, keys: None,
        dynamic: Keyring | None = None,
        names: Iterable[str] = (),
    ) -> None:
        self._others = frozenset(names)
        self._names = HEADERS.union(name.encode() for name in names)
        self._keyring = Keyring(config.keys, clock)
        self._dynamic = dynamic if dynamic is not None else Keyring((), clock)
        self._remote = {}
        if fetched := [issuer for issuer in config.jwt if is_remote(issuer)]:
            from sluice.identity.remote import RemoteKeys

            self._remote = {issuer.issuer: RemoteKeys(issuer, keys_fetched) for issuer in fetched}
        self._verifier = Verifier(config.jwt, clock=clock, fetched=self._remote) if config.jwt else None
        self._browser = BrowserTokens(config.tokens, self.key, config.aliases, clock) if config.tokens else None

    def identify_now(self, headers: Iterable[tuple[bytes, bytes]], fields: Mapping[str, str] | None = None) -> Principal:
        """The caller behind raw header pairs; `fields`: the same ones by name, where they are at hand.

        Raises Unauthorized(reason), reasons as `auth_failures_total` names them. KeysWanted is where it would have to wait, for
        the key of a JWT that may have been published meanwhile: await its `keys.renew()`, and call this once more.
        """
        secret = only_secret(fields, self._others) if fields is not None else ""
        principal = self._keyring.find(secret) or self._dynamic.find(secret) if secret else None
        if principal is not None:
            return principal
        credential = credentials_of(headers, self._names)
        if credential is None:
            raise Unauthorized("missing")
        if not hmac.compare_digest(credential.secret.encode(), secret.encode()):  # else it has been looked for
            principal = self._keyring.find(credential.secret) or self._dynamic.find(credential.secret)
            if principal is not None:
                return principal
        if self._browser is not None and is_browser_token(credential.secret):
            return self._browser.principal(credential.secret)
        if self._verifier is not None and credential.bearer and looks_like_jwt(credential.secret):
            return self._verifier.principal(credential.secret)
        raise Unauthorized("unknown_key")

    def key(self, key_id: str) -> Principal | None:
        """The key of this id, as long as it may be used."""
        return self._keyring.named(key_id) or self._dynamic.named(key_id)

    def mint(self, owner: Principal, asked: TokenRequest) -> Minted:
        """A browser token. Raises NotFound where there are none, Forbidden, BadRequest or ModelNotFound where not this one."""
        if self._browser is None:
            raise NotFound("This gateway mints no tokens: `tokens` is not configured")
        return self._browser.mint(owner, asked)

    def renew(self, headers: Iterable[tuple[bytes, bytes]], origin: str) -> Minted:
        """A browser token that goes on from the one that a page presents. Raises NotFound, Unauthorized or Forbidden."""
        if self._browser is None:
            raise NotFound("This gateway mints no tokens: `tokens` is not configured")
        credential = credentials_of(headers, self._names)
        if credential is None:
            raise Unauthorized("missing")
        if not is_browser_token(credential.secret):
            raise Unauthorized("unknown_key")
        return self._browser.renew(credential.secret, origin)

    def start(self) -> None:
        """Begin to fetch the key sets that the configuration names by their addresses; nothing waits for them."""
        for keys in self._remote.values():
            keys.start()

    async def close(self) -> None:
        await asyncio.gather(*(keys.close() for keys in self._remote.values()))


__all__ = ["Authenticator", "KeysWanted", "Principal"]
