"""Series in memory that several processes share, so that one scrape can cover all of them, including those
that have ended.

Every process counts in a slot of its own, an array of doubles. The first process that uses a series assigns
its position, which is the same in every slot. So processes only wait for each other at the first use of a
series; sums are sums of arrays; and the counts of a process survive when it is killed. The slot of a process
that has ended is taken by another one, which continues its counts. The memory is an anonymous file that is
far larger than the part in use: pages that are never touched take no memory.
"""

import fcntl
import mmap
import os
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

CELLS = 2 << 20
"""Doubles of a slot: some twenty thousand aliases that have all been called."""
NAMES = 32 << 20
"""Bytes for the series' names."""
HEAD = 4096
NAMES_END, CELLS_END, STOPPING, REFINED = 0, 1, 2, 3
"""Cells of the head: how much of each region is used; 1.0 when the whole gateway drains; 1.0 when native
histograms are requested."""
FIRST_BEAT = 16
"""The cell of the head in which slot 0 reports that it is alive; the other slots follow."""
KEPT, FORGOTTEN = 1.0, 2.0

_encode = msgspec.msgpack.Encoder().encode
Key = tuple[str, tuple[str, ...]]
Cells = Any
"""A memoryview of doubles."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A series: its family, its labels' values, and its cells."""

    family: str
    values: tuple[str, ...]
    at: int
    size: int


_decode = msgspec.msgpack.Decoder(Record).decode


class Board:
    """The shared memory. To be made before processes are forked; each of them then takes a `BoardSlot`.
    Raises OSError."""

    def __init__(self, slots: int, cells: int = CELLS, names: int = NAMES) -> None:
        self.maker = os.getpid()
        """The process that made it: the supervisor."""
        self.slots = slots
        self._cells = cells
        self._names_size = names
        self._file = os.memfd_create("sluice-metrics")
        size = HEAD + names + 8 * cells * (slots + 1)
        os.ftruncate(self._file, size)
        self._map = mmap.mmap(self._file, size)
        whole = memoryview(self._map)
        self._head: Cells = whole[:HEAD].cast("d")
        self._names = whole[HEAD : HEAD + names]
        self._values: Cells = whole[HEAD + names :].cast("d")
        self.flags: Cells = self._values[:cells]
        """For each series, at the index of its first cell: 0.0, KEPT or FORGOTTEN."""
        self._read = 0
        self._known: dict[Key, Record] = {}
        self.records: list[Record] = []
        """The series that this process knows; `catch_up` reads those of other processes."""

    def cells(self, slot: int) -> Cells:
        """Returns the doubles of a slot, from 0."""
        return self._values[self._cells * (slot + 1) : self._cells * (slot + 2)]

    @property
    def used(self) -> int:
        return int(self._head[CELLS_END])

    @property
    def stopping(self) -> bool:
        """Whether the whole gateway drains, not only a worker that is being replaced."""
        return bool(self._head[STOPPING])

    def stop(self) -> None:
        self._head[STOPPING] = 1.0

    @property
    def refined(self) -> bool:
        """Whether all processes have to count for native histograms, too."""
        return bool(self._head[REFINED])

    def refine(self) -> None:
        self._head[REFINED] = 1.0

    def beat(self, slot: int, now: float) -> None:
        """Reports that the process of this slot is alive; 0.0: it has not begun, or has ended."""
        self._head[FIRST_BEAT + slot] = now

    def last_beat(self, slot: int) -> float:
        return float(self._head[FIRST_BEAT + slot])

    def clear(self, slot: int, families: Collection[str]) -> None:
        """Notes that the process of this slot has ended: its gauges, the families, no longer hold."""
        self.beat(slot, 0.0)
        self.catch_up()
        cells = self.cells(slot)
        for record in self.records:
            if record.family in families:
                cells[record.at] = 0.0

    def catch_up(self) -> None:
        """Reads the names of series to which other processes have assigned positions."""
        end = int(self._head[NAMES_END])
        while self._read < end:
            length = int.from_bytes(self._names[self._read : self._read + 4], "big")
            record = _decode(self._names[self._read + 4 : self._read + 4 + length])
            self._read += 4 + length
            self._known[record.family, record.values] = record
            self.records.append(record)

    def place(self, family: str, values: tuple[str, ...], size: int) -> int | None:
        """Returns the position of the series' cells in every slot; None: there is no space for another
        series."""
        found = self._known.get((family, values))
        if found is None or self.flags[found.at] == FORGOTTEN:
            with self._locked():
                self.catch_up()
                found = self._known.get((family, values))
                if found is None or self.flags[found.at] == FORGOTTEN:
                    found = self._new(family, values, size)
        return found.at if found is not None else None

    def _new(self, family: str, values: tuple[str, ...], size: int) -> Record | None:
        start, at = int(self._head[NAMES_END]), self.used
        record = Record(family, values, at, size)
        text = _encode(record)
        end = start + 4 + len(text)
        if end > self._names_size or at + size > self._cells:
            return None
        self._names[start:end] = len(text).to_bytes(4, "big") + text
        self._head[CELLS_END] = at + size
        self._head[NAMES_END] = end
        self.catch_up()
        return record

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks among processes; the kernel releases the lock of a process that is killed."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


class BoardSlot:
    """The counters of one process. `worker`: its number, from 1; 0: it is the supervisor."""

    def __init__(self, board: Board, number: int, worker: int = 0) -> None:
        self.board = board
        self.number = number
        self.worker = worker
        self.cells = board.cells(number)

    @property
    def stopping(self) -> bool:
        return self.board.stopping

    def value(self, family: str, values: tuple[str, ...]) -> "SharedValue | None":
        at = self.board.place(family, values, 1)
        return SharedValue(self.cells, self.board.flags, at) if at is not None else None

    def distribution(
        self, family: str, values: tuple[str, ...], bounds: Sequence[float]
    ) -> "SharedDistribution | None":
        at = self.board.place(family, values, len(bounds) + 2)
        return SharedDistribution(self.cells, self.board.flags, at, bounds) if at is not None else None

    def area(self, family: str, values: tuple[str, ...], size: int) -> "Area | None":
        """Returns memory of this process beside a series."""
        at = self.board.place(family, values, size)
        return Area(self.cells[at : at + size], self.board.flags, at) if at is not None else None

    def beat(self, now: float) -> None:
        self.board.beat(self.number, now)


class Area:
    """Doubles beside a series: `cells`."""

    __slots__ = ("_at", "_flags", "cells")

    def __init__(self, cells: Cells, flags: Cells, at: int) -> None:
        self.cells = cells
        self._flags = flags
        self._at = at

    def forget(self) -> None:
        self._flags[self._at] = FORGOTTEN


class _SharedSeries:
    """Whether a series is shown is stored in its flag, which all processes read."""

    __slots__ = ("_at", "_flags", "text")

    _flags: Cells
    _at: int

    @property
    def kept(self) -> bool:
        return bool(self._flags[self._at])

    @kept.setter
    def kept(self, kept: bool) -> None:
        if kept and not self._flags[self._at]:
            self._flags[self._at] = KEPT

    def forget(self) -> None:
        self._flags[self._at] = FORGOTTEN

    @property
    def forgotten(self) -> bool:
        return bool(self._flags[self._at] == FORGOTTEN)


class SharedValue(_SharedSeries):
    """A series of a counter or a gauge, like `series.Value`."""

    __slots__ = ("_cells",)

    def __init__(self, cells: Cells, flags: Cells, at: int) -> None:
        self._cells = cells
        self._flags = flags
        self._at = at
        self.text = b""

    @property
    def value(self) -> float:
        return float(self._cells[self._at])

    @value.setter
    def value(self, value: float) -> None:
        self._cells[self._at] = value

    def inc(self, amount: float = 1) -> None:
        self._cells[self._at] += amount

    def dec(self, amount: float = 1) -> None:
        self._cells[self._at] -= amount

    def set(self, value: float) -> None:
        self._cells[self._at] = value


class SharedDistribution(_SharedSeries):
    """A series of a histogram, like `series.Distribution`: its counts, followed by its sum."""

    __slots__ = ("_cells", "bounds", "cells", "ends")

    def __init__(self, cells: Cells, flags: Cells, at: int, bounds: Sequence[float]) -> None:
        self.cells: Cells = ()
        self.ends: Sequence[float] = ()
        self._cells = cells[at : at + len(bounds) + 2]
        self._flags = flags
        self._at = at
        self.bounds = bounds
        self.text = b""

    @property
    def counts(self) -> list[float]:
        found: list[float] = self._cells[:-1].tolist()
        return found

    @property
    def sum(self) -> float:
        return float(self._cells[-1])

    def observe(self, value: float) -> None:
        cells = self._cells
        cells[bisect_left(self.bounds, value)] += 1
        cells[-1] += value

    def refine(self, ends: Sequence[float], cells: Cells) -> None:
        """Like `series.Distribution`."""
        self.ends, self.cells = ends, cells
        self.__class__ = SharedRefinedDistribution


class SharedRefinedDistribution(SharedDistribution):
    __slots__ = ()

    def observe(self, value: float) -> None:
        cells = self._cells
        cells[bisect_left(self.bounds, value)] += 1
        cells[-1] += value
        self.cells[bisect_left(self.ends, value)] += 1
