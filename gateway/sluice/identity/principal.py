"""The authenticated caller."""

from typing import Literal

import msgspec

from sluice.config.types import Content, KeyLimits, covering

EVERY = "*"
NOT_OF_THE_PREFIX = "This token's sessions begin with its session prefix"


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller.

    `key_id` comes from the configuration (for a JWT "jwt:" and the issuer), so it may be a label of metrics.
    `tenant` owns history and usage. `bucket`: the name that per-key limits are counted under: the key, or one
    subject of an issuer. `user`: the subject of a JWT. Sessions of a caller with a `session_prefix` must
    begin with it; if the caller has `own_sessions`, the prefix is put before them.
    """

    key_id: str
    tenant: str
    bucket: str
    aliases: frozenset[str]
    default_alias: str | None = None
    limits: KeyLimits = KeyLimits()
    origins: tuple[str, ...] = ()
    kind: Literal["key", "jwt", "browser"] = "key"
    session_prefix: str = ""
    own_sessions: bool = False
    log_content: Content | None = None
    user: str = ""

    def session(self, requested: str) -> str | None:
        """Returns the session for the id that a caller sent: unchanged if it begins with the caller's prefix,
        else with the prefix before it if the caller has `own_sessions`; None if the caller may not use it."""
        if not self.session_prefix or requested.startswith(self.session_prefix):
            return requested
        return f"{self.session_prefix}:{requested}" if self.own_sessions else None

    def may(self, alias: str) -> bool:
        """Returns whether it may use this alias, or a name that one of its wildcards covers."""
        return EVERY in self.aliases or alias in self.aliases or bool(covering(self.aliases, alias))


def default_of(aliases: frozenset[str], configured: str | None) -> str | None:
    """Returns the alias for requests that name none: the configured one if it is allowed, else the only one."""
    if configured is not None:
        return configured if EVERY in aliases or configured in aliases else None
    return next(iter(aliases)) if len(aliases) == 1 and EVERY not in aliases else None
