"""A table in a file that several processes of one host map: its lock, its journal, its rows. What they mean is `shared.py`'s.

    header | mark | turn | seats | journal | bounds | keys of all rows | states of all rows

*The lock* is an open file description lock (fcntl(2), F_OFD_SETLK) on the file's byte 0, held for some ten microseconds
while a call reads and writes. The kernel frees it when its holder dies, however. Who finds it taken naps and tries again,
and its event loop naps with it: a holder that was preempted needs the processor that a busy wait would take from it. While
the lock changes hands (each holder counts the turn on) naps are of 50 µs; else they double, and after 13 ms the holder
may have been stopped between two of its instructions (SIGSTOP, a debugger): then no call of this process naps any more,
but each tries again every RETRY, beside the loop's other work, until its patience ends or the lock changes hands.

*The journal.* A call's new rows are written to the journal, then their number to the mark (one byte, so it is there or it
is not), then to their places, then the mark is cleared. Who takes the lock and finds a mark does again what it says: a
process killed between any two instructions has done all of its call or nothing. What it wrote is in the kernel's pages
and outlives it. It does not outlive the host: a file of an earlier boot is begun anew.

*Rows* never move. A key's row is one of the WINDOW rows from where its hash points, so rows are found by one short search
and freed by zeros. *Bounds* say, for each CHUNK of rows and for all, from when on it may be worth looking for rows whose
time has come; one that is too early costs a look, so they need no journal.

*Seats.* Each process keeps one byte of the file locked for life: a seat that can be locked belonged to a process that is
dead. That holds across PID namespaces, and no PID can be mistaken for another's.

The file must lie on a local file system, best in memory (/dev/shm, /run). A table takes no precautions against threads: it
is its event loop's. Linux only.
"""

import asyncio
import errno
import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from sluice.limits.faults import StoreFailed

MAGIC = b"sluicelb"
VERSION = 2
HEADER = struct.Struct("<8sII16s")
"""Magic, version, rows, boot id."""
FLOCK = struct.Struct("hhqqi4x")
"""struct flock: type, whence, start, length, pid."""

SEATS = 256
"""Processes at a time."""
KEY, STATE = 16, 48
WINDOW, CHUNK = 32, 256
ENTRY = struct.Struct("<q16s48s")
"""In the journal: row, key, state."""
MOST = 255
"""Rows of one write."""
BOUND = struct.Struct("<q")
MARK, TURN, SEATING, JOURNAL, BOUNDS = 64, 128, 256, 4096, 24576
FREE = bytes(KEY)
EMPTY = bytes(STATE)

NAP, LONGEST_NAP, RETRY = 50e-6, 10e-3, 5e-3
PATIENCE = 5.0
"""Seconds to wait for the lock when a file is opened."""


class Name(msgspec.Struct, frozen=True, gc=False):
    """`key`: KEY bytes, of which the last is not 0, so that no zeros but a free row's are a free row's. `hash`: of the same."""

    key: bytes
    hash: int


def name_of(text: str, kind: bytes, salt: bytes = b"") -> Name:
    """`kind`: one byte, not 0; `salt`: up to 16 bytes."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY - 1, salt=salt).digest()
    return Name(digest + kind, int.from_bytes(digest[:8], "little"))


class Row(msgspec.Struct, frozen=True, gc=False):
    """What is to stand in a row; `new`: in place of whatever is there now, else of the same key's earlier state."""

    index: int
    key: bytes
    state: bytes
    new: bool


def _lock(kind: int, first: int, count: int = 1) -> bytes:
    return FLOCK.pack(kind, os.SEEK_SET, first, count, 0)


_TAKE, _GIVE = _lock(fcntl.F_WRLCK, 0), _lock(fcntl.F_UNLCK, 0)


class Table:
    """`path` is created (0600) if need be, for `size` rows (a power of two); the size of one that exists stays.

    Raises OSError where the file is not such a table, is another user's, or is in use by another version.
    """

    def __init__(self, path: str | Path, size: int) -> None:
        self.seat = -1
        self._stuck = False
        """The lock's holder does not go on, as it seems."""
        self._path = os.fspath(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._open(self._path, size)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        self._map.close()
        os.close(self._file)

    def _open(self, path: str, size: int) -> None:
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "not a file of this user's", path)
        self.lock_to_open()
        try:
            self.size = self._begin(path, size)
            self._mask = self.size - 1
            self.chunks = self.size // CHUNK + 1
            self._keys, self._states, length = _layout(self.size)
            self._map = mmap.mmap(self._file, length)
            self._finish()
            self.seat = next((seat for seat in range(SEATS) if self._holds(_lock(fcntl.F_WRLCK, 1 + seat))), -1)
            if self.seat < 0:
                raise OSError(errno.EUSERS, f"in use by {SEATS} processes", path)
        finally:
            self.unlock()

    def _begin(self, path: str, size: int) -> int:
        """The number of rows. A file is begun if it is new, or nobody uses it and it is of another boot or version."""
        boot = bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
        header = os.pread(self._file, HEADER.size, 0).ljust(HEADER.size, b"\0")
        magic, version, rows, of_boot = HEADER.unpack(header)
        if any(header):
            if magic != MAGIC:
                raise OSError(errno.EEXIST, "not a table of limits", path)
            if (version, of_boot) == (VERSION, boot) and os.fstat(self._file).st_size == _layout(rows)[2]:
                return int(rows)
            if not self._free(1, SEATS):
                raise OSError(errno.EBUSY, "in use by another version", path)
        if size < CHUNK or size & (size - 1):
            raise ValueError(f"the size of a table is a power of two, at least {CHUNK}")
        os.ftruncate(self._file, 0)
        os.posix_fallocate(self._file, 0, _layout(size)[2])  # else a full file system would kill us at some write
        os.pwrite(self._file, HEADER.pack(MAGIC, VERSION, size, boot), 0)
        return size

    # --- the lock

    def try_lock(self) -> bool:
        if not self._holds(_TAKE):
            return False
        self._map[TURN] = (self._map[TURN] + 1) & 255
        if self._map[MARK]:
            self._finish()
        return True

    def lock_to_open(self) -> None:
        """For those without an event loop yet. Raises OSError where the lock cannot be had for PATIENCE seconds."""
        deadline = time.monotonic() + PATIENCE
        while not self._holds(_TAKE):
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, "its lock is held by a process that does not go on", self._path)
            time.sleep(NAP)

    async def lock(self, patience: float) -> None:
        """Raises StoreFailed where the lock cannot be had for `patience` seconds."""
        deadline = time.monotonic() + patience
        turn, nap = self._map[TURN], NAP
        while not self.try_lock():
            if time.monotonic() > deadline:
                raise StoreFailed("timeout")
            if self._map[TURN] != turn:
                turn, nap, self._stuck = self._map[TURN], NAP, False
            elif nap > LONGEST_NAP:
                self._stuck = True
            if self._stuck:
                await asyncio.sleep(RETRY)
            else:
                time.sleep(nap)  # noqa: ASYNC251
                nap *= 2
        self._stuck = False

    def unlock(self) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _GIVE)

    def _holds(self, lock: bytes) -> bool:
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, lock)
        except BlockingIOError:
            return False
        return True

    def _free(self, first: int, count: int = 1) -> bool:
        """Whether no other process holds any of these bytes."""
        found = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, first, count))
        return bool(FLOCK.unpack(found)[0] == fcntl.F_UNLCK)

    # --- rows; all of this under the lock

    def find(self, name: Name) -> int:
        """The row that has this name; -1: none."""
        first = self._keys + (name.hash & self._mask) * KEY
        at = self._map.find(name.key, first, first + WINDOW * KEY)
        if at < 0:
            return at
        index, between = divmod(at - self._keys, KEY)
        return -1 if between else index  # no digest is like the end of one and the beginning of the next

    def free_row(self, hash_: int, taken: Container[int]) -> int:
        """A row for a name of this hash that is free and not among `taken`; -1: none."""
        first = self._keys + (hash_ & self._mask) * KEY
        at = self._map.find(FREE, first, first + WINDOW * KEY)
        while at >= 0 and (at - self._keys) // KEY in taken:
            at = self._map.find(FREE, at + KEY, first + WINDOW * KEY)
        return at if at < 0 else (at - self._keys) // KEY

    def window(self, hash_: int) -> range:
        """Where a name of this hash may stand."""
        return range(hash_ & self._mask, (hash_ & self._mask) + WINDOW)

    def state(self, layout: struct.Struct, index: int) -> tuple[Any, ...]:
        return layout.unpack_from(self._map, self._states + index * STATE)

    def states(self, layout: struct.Struct, rows: range) -> Iterator[tuple[Any, ...]]:
        return layout.iter_unpack(self._map[self._states + rows.start * STATE : self._states + rows.stop * STATE])

    def key(self, index: int) -> bytes:
        return self._map[self._keys + index * KEY : self._keys + (index + 1) * KEY]

    def write(self, rows: Sequence[Row]) -> None:
        """All of them or none, whenever this process is killed. Raises ValueError for more than MOST."""
        if not rows:
            return
        if len(rows) > MOST:
            raise ValueError(f"a call that changes more than {MOST} rows")
        journal = b"".join([ENTRY.pack(row.index, row.key, row.state) for row in rows])
        self._map[JOURNAL : JOURNAL + len(journal)] = journal
        self._map[MARK] = len(rows)
        for row in rows:
            at = self._states + row.index * STATE
            self._map[at : at + STATE] = row.state
            if row.new:
                at = self._keys + row.index * KEY
                self._map[at : at + KEY] = row.key
        self._map[MARK] = 0

    def _finish(self) -> None:
        """What a process that died had decided."""
        decided = self._map[JOURNAL : JOURNAL + self._map[MARK] * ENTRY.size]
        self.write([Row(index, key, state, True) for index, key, state in ENTRY.iter_unpack(decided)])

    # --- bounds

    @property
    def bound(self) -> int:
        """The lowest bound of all; 0: there is none."""
        return int(BOUND.unpack_from(self._map, BOUNDS)[0])

    def bounded(self, until: float) -> list[int]:
        """The chunks whose bound is not above `until`."""
        return [chunk for chunk, bound in enumerate(self._bounds()) if 0 < bound <= until]

    def lower(self, index: int, bound: int) -> None:
        """Row `index` will be worth a look at `bound`. Before it is written."""
        for at in (BOUNDS, BOUNDS + BOUND.size * (1 + index // CHUNK)):
            known = BOUND.unpack_from(self._map, at)[0]
            if not known or bound < known:
                self._map[at : at + BOUND.size] = BOUND.pack(bound)

    def rebound(self, bounds: Mapping[int, int]) -> None:
        """These chunks have been looked at; their lowest bounds (0: none)."""
        for chunk, bound in bounds.items():
            at = BOUNDS + BOUND.size * (1 + chunk)
            self._map[at : at + BOUND.size] = BOUND.pack(bound)
        lowest = min((bound for bound in self._bounds() if bound), default=0)
        self._map[BOUNDS : BOUNDS + BOUND.size] = BOUND.pack(lowest)

    def _bounds(self) -> list[int]:
        """By chunk."""
        bounds = BOUND.iter_unpack(self._map[BOUNDS + BOUND.size : BOUNDS + BOUND.size * (1 + self.chunks)])
        return [bound for (bound,) in bounds]

    # --- seats

    def use_seat(self) -> None:
        """From now on it counts as one whose process may die."""
        self._map[SEATING + self.seat] = 1

    def vacant(self) -> frozenset[int]:
        """Seats whose process is dead."""
        used = self._map[SEATING : SEATING + SEATS]
        return frozenset(seat for seat in range(SEATS) if used[seat] and seat != self.seat and self._free(1 + seat))

    def clear(self, seats: Iterable[int]) -> None:
        for seat in seats:
            self._map[SEATING + seat] = 0


def _layout(size: int) -> tuple[int, int, int]:
    """Where keys and states begin, and the length of it all."""
    keys = BOUNDS + -(-(size // CHUNK + 2) * BOUND.size // 64) * 64
    states = keys + (size + CHUNK) * KEY
    return keys, states, states + (size + CHUNK) * STATE
