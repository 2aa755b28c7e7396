"""The source of the configuration: a file, with options of the command line replacing its own."""

import os
from pathlib import Path

import msgspec

from sluice.config.loader import MAX_FILE, Loaded, load, with_workers
from sluice.files import read_file

LOOK_EVERY = 0.5
"""Seconds between two looks at a watched file."""

State = tuple[int, int, int, int]


class ConfigSource(msgspec.Struct, frozen=True):
    """`workers`: the number on the command line, if given."""

    path: str
    workers: int | None = None

    def load(self, data: bytes | None = None) -> Loaded:
        """Loads the configuration; `data`: the file's bytes, if they have been read already. Raises
        ConfigError."""
        loaded = load(self.path, data=data)
        return loaded if self.workers is None else with_workers(loaded, self.workers)

    def read(self) -> bytes:
        """Reads the file's bytes. Raises OSError."""
        return read_file(self.path, MAX_FILE)

    def state(self) -> State | None:
        """Returns a value that changes when the file is written, replaced, or a symbolic link points to
        another one; None: no file.
        """
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def __str__(self) -> str:
        return str(Path(self.path))


class FileWatch:
    """Detects that a file has changed: once for each change, as soon as two checks have found the same state.

    So a file is not read while it is being written. A missing file is not a change: it may be about to be
    replaced.
    """

    def __init__(self, state: State | None) -> None:
        self._taken = state
        self._seen = state

    def look(self, state: State | None) -> bool:
        """Returns whether to read the file now. Call it every LOOK_EVERY seconds with the file's state."""
        steady, self._seen = state == self._seen, state
        if state is None or not steady or state == self._taken:
            return False
        self._taken = state
        return True
