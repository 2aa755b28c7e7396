"""Records in a file of JSON lines, which is renamed by size and by age. Several processes may write to one
file."""

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from sluice.config.types import RecordFile
from sluice.sinks.delivery import Delivered, RecordBatch


class RotatingFile:
    """A file holds the records of one period of `age` (counted from 1970 in UTC, so 1d is a calendar day).
    The period is that of the file's last write, so nothing has to be remembered over a restart. Writers
    take turns by the file's lock (flock). Raises OSError if the file cannot be opened."""

    def __init__(self, config: RecordFile, wall: Callable[[], float] = time.time) -> None:
        self._path = Path(config.path)
        self._config = config
        self._wall = wall
        self._thread = ThreadPoolExecutor(1, "records")
        os.close(self._open())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def deliver(self, batch: RecordBatch) -> Delivered:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.write, batch.body)
        except OSError as error:
            return Delivered("again", error.strerror or type(error).__name__)
        return Delivered("delivered")

    def write(self, body: bytes) -> None:
        """Appends the whole body, or nothing. Blocks. Raises OSError."""
        number = self._locked()
        try:
            if self._is_due(os.fstat(number), len(body)):
                self._put_aside()
                os.close(number)
                number = self._locked()
            before = os.fstat(number).st_size
            try:
                _write_all(number, body)
            except OSError:
                os.ftruncate(number, before)  # otherwise half of the batch would be there twice later
                raise
        finally:
            os.close(number)

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _locked(self) -> int:
        """Returns the locked file at the path; another process may have renamed the previous one meanwhile."""
        while True:
            number = self._open()
            try:
                fcntl.flock(number, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(number), self._path.stat()):
                    return number
            except FileNotFoundError:
                pass
            except OSError:
                os.close(number)
                raise
            os.close(number)

    def _is_due(self, stat: os.stat_result, more: int) -> bool:
        if not stat.st_size:
            return False
        age = self._config.age
        return stat.st_size + more > self._config.size or (
            age is not None and int(self._wall() // age) != int(stat.st_mtime // age)
        )

    def _put_aside(self) -> None:
        moment = int(self._wall() * 1e6)
        while (aside := self._path.with_name(f"{self._path.name}.{_stamp(moment)}")).exists():
            moment += 1
        self._path.rename(aside)
        others = sorted(self._path.parent.glob(f"{_escaped(self._path.name)}.[0-9]*T[0-9]*Z"))
        for old in others[: -self._config.keep]:
            old.unlink(missing_ok=True)


def _stamp(moment: int) -> str:
    """Returns a time as a name; names sort in the order of their times, which are microseconds since the
    epoch."""
    seconds, rest = divmod(moment, 1_000_000)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{rest:06d}Z"


def _write_all(number: int, body: bytes) -> None:
    rest = memoryview(body)
    while rest:
        rest = rest[os.write(number, rest) :]


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
