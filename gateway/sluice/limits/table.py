"""An LMDB file that several processes of one host share: its lock, and its processes' seats. `shared.py`
stores rows in it.

*The lock* is an open file description lock (fcntl(2), F_OFD_SETLK) on the file's byte 0. It is held for some
ten microseconds, while a call reads and writes. LMDB's own lock would be waited for without a limit. The
kernel frees ours when its holder dies, however that happens. A call that finds the lock taken sleeps briefly
and blocks its event loop: a busy wait would take the processor from a preempted holder. While other
transactions are made, each sleep is 50 µs. While none is made, the sleeps grow longer, and after 13 ms the
holder is assumed to be stopped (SIGSTOP, a debugger): then the calls of this process stop blocking, and try
again every RETRY seconds, until their patience ends or a transaction is made.

*A transaction* is done whole or not at all, whenever its process is killed: LMDB writes new pages first, and
then the page that points to them. Nothing is ever flushed to a disk, so the content does not survive the
host: a file of an earlier boot is begun anew.

*Seats.* Each process keeps one byte of the file locked while it lives, so a seat that can be locked belonged
to a process that is dead. This holds across PID namespaces, and no PID can be mistaken for another process's.
The file must be on a local file system, best in memory (/dev/shm, /run). A table is used by one event loop,
and takes no precautions against threads. Linux only.
"""

import asyncio
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar, TypeVarTuple
from weakref import WeakSet

import lmdb

from sluice.limits.faults import BucketStoreFailed

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
Transaction: TypeAlias = "lmdb.Transaction[bytes]"

HEADER = b"\0sluice limits"
"""The key of the row with the file's version, the host's boot, and the maximum number of rows."""
VERSION = 3
ROWS = struct.Struct("<Q")
BEFORE_LMDB = b"sluicelb"
"""The first bytes of files of the versions 1 and 2."""
FLOCK = struct.Struct("hhqqi4x")
"""The format of `struct flock`: type, whence, start, length, pid."""

SEATS = 256
"""Maximum processes at a time."""
SEAT, TURN = b"s", b"\0turn"
ROW, COPIES = 144, 6 << 20
"""Bytes of the file: for each row, including what pages keep free; and for the pages that transactions write
anew."""

MIN_SLEEP, MAX_SLEEP, RETRY = 50e-6, 10e-3, 5e-3
MAX_LOCK_WAIT_SECONDS = 5.0
"""Maximum seconds to wait for the lock when a file is opened."""


def _lock(kind: int, first: int, count: int = 1) -> bytes:
    return FLOCK.pack(kind, os.SEEK_SET, first, count, 0)


_tables: "WeakSet[BucketTable]" = WeakSet()
"""The tables that are open in this process. LMDB opens no file twice, so tables of one file share an
environment."""
_TAKE, _GIVE = _lock(fcntl.F_WRLCK, 0), _lock(fcntl.F_UNLCK, 0)


class BucketTable:
    """The table in the file `path`, which is created (0600) if need be, with `size` rows; an existing file
    keeps its size.

    Raises OSError if the file is not such a table, belongs to another user, or is in use by another version.
    """

    def __init__(self, path: str | Path, size: int) -> None:
        self.seat = -1
        self._stuck = False
        """Whether the lock's holder seems to hang."""
        self._path = os.fspath(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(self._file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise OSError(errno.EPERM, "not a file of this user's", self._path)
            self._wait_to_open()
            try:
                self.env, self.size = self._existing() or self._begun(size)
                self.seat = next(
                    (seat for seat in range(SEATS) if self._holds(_lock(fcntl.F_WRLCK, 1 + seat))), -1
                )
                if self.seat < 0:
                    raise OSError(errno.EUSERS, f"in use by {SEATS} processes", self._path)
            finally:
                self.unlock()
        except BaseException:
            os.close(self._file)
            raise
        _tables.add(self)

    def close(self) -> None:
        _tables.discard(self)
        if all(table.env is not self.env for table in _tables):
            self.env.close()
        os.close(self._file)

    def _existing(self) -> tuple[lmdb.Environment, int] | None:
        """Opens the file as another process began it. Returns None if it has to be begun, and nobody uses it."""
        start = os.pread(self._file, 4096, 0)
        if not any(start):
            return None
        foreign, env = OSError(errno.EEXIST, "not a table of limits", self._path), None
        if not start.startswith(BEFORE_LMDB):
            try:
                env = self._environment(os.fstat(self._file).st_size)
            except (lmdb.InvalidError, lmdb.VersionMismatchError):
                raise foreign from None
            with env.begin() as txn:
                stamp, rows = txn.get(HEADER, b""), txn.stat()["entries"]
            if rows and not stamp:
                raise foreign
            if stamp.startswith(_stamp()):
                return env, ROWS.unpack_from(stamp, len(_stamp()))[0]
        if not self._free(1, SEATS):
            raise OSError(errno.EBUSY, "in use by another version", self._path)
        if env is not None:
            env.close()
        return None

    def _begun(self, size: int) -> tuple[lmdb.Environment, int]:
        length = COPIES + size * ROW
        os.ftruncate(self._file, 0)
        env = self._environment(length)
        try:
            os.posix_fallocate(self._file, 0, length)  # else a full file system would kill us at some write
        except OSError as error:
            raise OSError(
                error.errno, f"{os.strerror(error.errno or 0)}, it takes {length} bytes", self._path
            ) from None
        with env.begin(write=True) as txn:
            txn.put(HEADER, _stamp() + ROWS.pack(size))
        return env, size

    def _environment(self, length: int) -> lmdb.Environment:
        for table in _tables:
            if os.path.sameopenfile(table._file, self._file):
                return table.env
        return lmdb.open(
            self._path,
            length,
            subdir=False,
            create=False,
            writemap=True,
            lock=False,
            sync=False,
            metasync=False,
            lib_version=0,
        )

    # --- the lock

    async def change(self, patience: float, work: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        """Does `work` under the lock. Raises BucketStoreFailed if the lock is not free within `patience`
        seconds, or the file is full."""
        if not self._holds(_TAKE):
            await self._wait(patience)
        try:
            return work(*arguments)
        except lmdb.MapFullError as error:
            raise BucketStoreFailed("full") from error
        finally:
            self.unlock()

    def change_blocking(self, work: Callable[[], object]) -> None:
        """Like `change`, for callers without an event loop. Raises OSError if the lock is not free within
        MAX_LOCK_WAIT_SECONDS."""
        self._wait_to_open()
        try:
            work()
        finally:
            self.unlock()

    def _wait_to_open(self) -> None:
        deadline = time.monotonic() + MAX_LOCK_WAIT_SECONDS
        while not self._holds(_TAKE):
            if time.monotonic() > deadline:
                raise OSError(
                    errno.ETIMEDOUT, "its lock is held by a process that does not go on", self._path
                )
            time.sleep(MIN_SLEEP)

    async def _wait(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        turn, pause = self._turn(), MIN_SLEEP
        while not self._holds(_TAKE):
            if time.monotonic() > deadline:
                raise BucketStoreFailed("timeout")
            if self._turn() != turn:
                turn, pause, self._stuck = self._turn(), MIN_SLEEP, False
            elif pause > MAX_SLEEP:
                self._stuck = True
            if self._stuck:
                await asyncio.sleep(RETRY)
            else:
                time.sleep(pause)  # noqa: ASYNC251
                pause *= 2
        self._stuck = False

    def _turn(self) -> int:
        """Returns the number of transactions that were made."""
        return self.env.info()["last_txnid"]

    def unlock(self) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _GIVE)

    def _holds(self, lock: bytes) -> bool:
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            return False
        return True

    def _free(self, first: int, count: int = 1) -> bool:
        """Returns whether no other process holds any of these bytes."""
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, first, count))
        return bool(FLOCK.unpack(found)[0] == fcntl.F_UNLCK)

    def turn(self, txn: Transaction) -> None:
        """Counts a transaction that changes nothing, so that processes that wait for the lock see that it
        changes hands."""
        txn.put(TURN, b"")

    # --- seats; under the lock

    def use_seat(self, txn: Transaction) -> None:
        """Marks the seat as one whose process may die."""
        txn.put(SEAT + bytes([self.seat]), b"")

    def vacant(self, txn: Transaction) -> frozenset[int]:
        """Returns the seats whose process is dead."""
        used = [key[1] for key, _ in starting(txn, SEAT)]
        return frozenset(seat for seat in used if seat != self.seat and self._free(1 + seat))

    def clear(self, txn: Transaction, seats: Iterable[int]) -> None:
        for seat in seats:
            txn.delete(SEAT + bytes([seat]))


def starting(txn: Transaction, prefix: bytes, first: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Yields the rows whose keys start with `prefix`, in order, from `first` on. No row may be written
    meanwhile."""
    with txn.cursor() as cursor:
        if cursor.set_range(first or prefix):
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value


def _stamp() -> bytes:
    """Returns the version and the host's boot."""
    return bytes([VERSION]) + bytes.fromhex(
        Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    )
