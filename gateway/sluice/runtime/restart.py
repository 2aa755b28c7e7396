"""Which options a running process cannot change: what they say is built once, with the process's state and its listeners."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from sluice.config.types import Config

FIXED: Mapping[str, tuple[str, ...]] = {
    "server": (
        "listen", "admin_listen", "body_limit", "body_timeout", "body_memory", "header_timeout", "keepalive_timeout",
        "write_idle", "send_buffer", "max_connections", "workers",
    ),
    "limits": ("store", "when_down", "replicas", "prefix"),
    "admin": ("store", "pepper"),
    "log": ("level", "format"),
}  # fmt: skip
"""By section."""
FIXED_AT_TOP = ("state", "resume")

S = TypeVar("S", bound=msgspec.Struct)


def needs_restart(old: Config, new: Config) -> list[str]:
    """The options, by their paths, that `new` has other values for and that only a restart can change."""
    found = [
        f"{section}.{option}"
        for section, options in FIXED.items()
        for option in _changed(getattr(old, section), getattr(new, section), options)
    ]
    return found + _changed(old, new, FIXED_AT_TOP)


def effective(old: Config, new: Config) -> Config:
    """`new` as a process that was started with `old` can follow it: with the old values of what needs a restart."""
    sections = {section: _kept(getattr(old, section), getattr(new, section), options) for section, options in FIXED.items()}
    return msgspec.structs.replace(_kept(old, new, FIXED_AT_TOP), **sections)


def _changed(old: msgspec.Struct, new: msgspec.Struct, options: tuple[str, ...]) -> list[str]:
    return [option for option in options if getattr(old, option) != getattr(new, option)]


def _kept(old: msgspec.Struct, new: S, options: tuple[str, ...]) -> S:
    return msgspec.structs.replace(new, **{option: getattr(old, option) for option in options})
