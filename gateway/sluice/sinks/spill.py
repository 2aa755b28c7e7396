"""Batches on disk that could not be delivered yet: one file each, which outlives the process.

All functions block. Processes may share a directory: a process that sends a file holds its lock (flock),
which the kernel releases when the process ends.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from sluice.sinks.delivery import RecordBatch

SUFFIX, UNFINISHED = ".ndjson", ".part"
LEFT_BEHIND = 3600.0
"""Seconds after which the writer of an unfinished file is assumed to be gone."""


class Spill:
    """The files of one sink in `directory`, up to `most` bytes. Raises OSError if the directory cannot be
    made."""

    def __init__(self, directory: str, sink: str, most: int) -> None:
        self._directory = Path(directory)
        self._prefix = quote(sink, safe="") + "~"
        self._most = most
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.glob(f"{self._prefix}*{UNFINISHED}"):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND:
                path.unlink(missing_ok=True)

    def keep(self, batch: RecordBatch) -> None:
        """Writes a batch, which survives a crash of the machine when this returns. Raises OSError if it does
        not fit."""
        body = batch.body
        if sum(size for _, size in self._files()) + len(body) > self._most:
            raise OSError(errno.EDQUOT, "spill_max is reached")
        path = self._directory / f"{self._prefix}{batch.name}{SUFFIX}"
        part = path.with_suffix(UNFINISHED)
        try:
            with open(
                os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
            ) as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def oldest(self) -> list[str]:
        """Returns the names of waiting files, oldest first."""
        return sorted(name for name, _ in self._files())

    def claim(self, name: str) -> "Claimed | None":
        """Locks a file, so that this process alone sends it. Returns None if another process sends it, or has
        sent it."""
        try:
            number = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(number).st_nlink:
                with open(number, "rb", closefd=False) as file:
                    lines = file.read().splitlines()
                batch_name = name.removeprefix(self._prefix).removesuffix(SUFFIX)
                return Claimed(
                    self._directory / name, number, RecordBatch(batch_name, _time_of(batch_name), lines)
                )
        except OSError:
            pass
        os.close(number)
        return None

    def _files(self) -> list[tuple[str, int]]:
        found = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.startswith(self._prefix) and entry.name.endswith(SUFFIX):
                    try:
                        found.append((entry.name, entry.stat().st_size))
                    except OSError:  # sent meanwhile
                        continue
        return found


class Claimed:
    """A locked file, for the duration of a `with`; `done` removes it."""

    def __init__(self, path: Path, number: int, batch: RecordBatch) -> None:
        self._path = path
        self._number = number
        self.batch = batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        os.close(self._number)

    def done(self) -> None:
        self._path.unlink(missing_ok=True)


def _time_of(name: str) -> float:
    """Returns when a batch was made: its name begins with the milliseconds since the epoch."""
    number = name.partition("-")[0]
    return int(number) / 1000 if number.isascii() and number.isdigit() and len(number) < 15 else time.time()
