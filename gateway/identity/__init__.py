"""Headers -> Principal, before anything else can be built. Its result is an input of everything after it."""

import time
from collections.abc import Callable, Iterable

from gateway.config import Config
from gateway.errors import Unauthorized
from gateway.identity.jwt import Verifier, looks_like_jwt
from gateway.identity.keys import Keyring, credentials_of
from gateway.identity.principal import Principal


class Authenticator:
    """Who calls, by key or by JWT. `clock` gives seconds since the epoch. `dynamic`: keys that come and go.

    Raises ConfigError where an issuer's keys cannot be used (they are read here, once).
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.time, dynamic: Keyring | None = None) -> None:
        self._keyring = Keyring(config.keys, clock)
        self._dynamic = dynamic if dynamic is not None else Keyring((), clock)
        self._verifier = Verifier(config.jwt, clock=clock) if config.jwt else None

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """The caller behind raw header pairs. Raises Unauthorized(reason), reasons as `auth_failures_total` names them."""
        credential = credentials_of(headers)
        if credential is None:
            raise Unauthorized("missing")
        principal = self._keyring.find(credential.secret) or self._dynamic.find(credential.secret)
        if principal is not None:
            return principal
        if self._verifier is not None and credential.bearer and looks_like_jwt(credential.secret):
            return self._verifier.principal(credential.secret)
        raise Unauthorized("unknown_key")

    def key(self, key_id: str) -> Principal | None:
        """The key of this id, as long as it may be used."""
        return self._keyring.named(key_id) or self._dynamic.named(key_id)


__all__ = ["Authenticator", "Principal"]
