"""Lists the options that a running process cannot change, because its state and its listeners are built from
them once.

A configuration that changes one of them is refused as a whole, so that nobody has to find out which half of a
file is in effect.
"""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from sluice.config.types import Config
from sluice.errors import ConfigError

FIXED: Mapping[str, tuple[str, ...]] = {
    "server": (
        "listen", "admin_listen", "socket_mode", "tls", "http2", "body_limit", "body_timeout", "body_memory", "header_timeout",
        "keepalive_timeout", "write_idle", "send_buffer", "max_connections", "workers",
    ),
    "limits": ("store", "when_down", "replicas", "prefix"),
    "admin": ("store", "pepper", "ui"),
    "log": ("level", "format", "content", "content_chars", "hash_key"),
    "responses": ("store", "keep"),
    "usage": ("hourly_days",),
    "metrics": ("push",),
    "retention": ("age", "messages", "conversations"),
}  # fmt: skip
"""The options by section."""
FIXED_AT_TOP = ("state", "resume", "tracing", "records")

S = TypeVar("S", bound=msgspec.Struct)


class NeedsRestart(ConfigError):
    """The configuration changes these `options` (by their paths), and that needs a restart."""

    def __init__(self, options: list[str]) -> None:
        super().__init__([f"{option}: only a restart can change it" for option in options])
        self.options = options


def refuse_restart(old: Config, new: Config) -> None:
    """Raises NeedsRestart if a process that was started with `old` cannot apply `new`."""
    if found := needs_restart(old, new):
        raise NeedsRestart(found)


def needs_restart(old: Config, new: Config) -> list[str]:
    """Returns the paths of options that `new` changes and that need a restart."""
    found = [
        f"{section}.{option}"
        for section, options in FIXED.items()
        for option in _changed(getattr(old, section), getattr(new, section), options)
    ]
    return found + _changed(old, new, FIXED_AT_TOP)


def effective(old: Config, new: Config) -> Config:
    """Returns `new` with the old values of options that need a restart: a worker's differ from the file's,
    because its ports are bound and its limits are shared with other workers.
    """
    sections = {
        section: _kept(getattr(old, section), getattr(new, section), options)
        for section, options in FIXED.items()
    }
    return msgspec.structs.replace(_kept(old, new, FIXED_AT_TOP), **sections)


def _changed(old: msgspec.Struct, new: msgspec.Struct, options: tuple[str, ...]) -> list[str]:
    return [option for option in options if getattr(old, option) != getattr(new, option)]


def _kept(old: msgspec.Struct, new: S, options: tuple[str, ...]) -> S:
    return msgspec.structs.replace(new, **{option: getattr(old, option) for option in options})
