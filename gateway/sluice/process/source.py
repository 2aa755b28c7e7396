"""The source of the configuration: a file, with the options of the command line in place of its own."""

import os
from pathlib import Path

import msgspec

from sluice.config.loader import Loaded, load, read_file, with_workers

LOOK_EVERY = 0.5
"""Seconds between two looks at a watched file."""

State = tuple[int, int, int, int]


class ConfigSource(msgspec.Struct, frozen=True):
    """`workers`: the command line's number, where it gives one."""

    path: str
    workers: int | None = None

    def load(self, data: bytes | None = None) -> Loaded:
        """The configuration; `data`: the file's bytes, where somebody has read them. Raises ConfigError."""
        loaded = load(self.path, data=data)
        return loaded if self.workers is None else with_workers(loaded, self.workers)

    def read(self) -> bytes:
        """The file's bytes. Raises OSError."""
        return read_file(self.path)

    def state(self) -> State | None:
        """A value that changes when the file is written to, replaced, or another one is put behind a symbolic
        link; None: not there."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def __str__(self) -> str:
        return str(Path(self.path))


class FileWatch:
    """Notices that a file was changed: once for each change, as soon as two looks have found the same.

    So a file that is being written is not read in the middle. A file that is not there is no change: it may
    be on its way.
    """

    def __init__(self, state: State | None) -> None:
        self._taken = state
        self._seen = state

    def look(self, state: State | None) -> bool:
        """Whether to read it now. Call it every LOOK_EVERY seconds with the file's state."""
        steady, self._seen = state == self._seen, state
        if state is None or not steady or state == self._taken:
            return False
        self._taken = state
        return True
