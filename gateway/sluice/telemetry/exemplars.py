"""Exemplars: for each bucket of a histogram, the trace of the call that was last counted there. They are kept
apart from the counts, and only for series of traced calls."""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import msgspec

_LAYOUT = struct.Struct("<dd16sQ")
CELLS = _LAYOUT.size // 8
"""Doubles that one exemplar takes in memory that processes share."""


class Exemplar(msgspec.Struct, frozen=True):
    """`trace` in hexadecimal digits, `at` in seconds since the epoch."""

    value: float
    at: float
    trace: str


Found = Sequence[Exemplar | None]
"""One for each bucket, the last of which has no upper bound."""


class Exemplars:
    """The exemplars of one series in this process. `bounds` are the buckets' upper ends."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._found: list[Exemplar | None] = [None] * (len(bounds) + 1)

    def put(self, exemplar: Exemplar) -> None:
        self._found[bisect_left(self._bounds, exemplar.value)] = exemplar

    def found(self) -> Found:
        return self._found


class SharedExemplars:
    """The exemplars of one series of this process in `cells`, which other processes read: CELLS doubles for
    each bucket."""

    def __init__(self, bounds: Sequence[float], cells: Any) -> None:
        self._bounds = bounds
        self._bytes = cells.cast("B")

    def put(self, exemplar: Exemplar) -> None:
        at = _LAYOUT.size * bisect_left(self._bounds, exemplar.value)
        self._bytes[at : at + _LAYOUT.size] = packed(exemplar)


def packed(exemplar: Exemplar) -> bytes:
    """Encodes an exemplar with a checksum, so that a reader notices if it is just being written."""
    body = _LAYOUT.pack(exemplar.value, exemplar.at, bytes.fromhex(exemplar.trace), 0)[:-8]
    return body + crc32(body).to_bytes(8, "little")


def unpacked(data: bytes) -> list[Exemplar | None]:
    """Decodes an exemplar; None if there is none, or if it is just being written."""
    found: list[Exemplar | None] = []
    for at in range(0, len(data), _LAYOUT.size):
        value, when, trace, check = _LAYOUT.unpack_from(data, at)
        good = when and crc32(data[at : at + _LAYOUT.size - 8]) == check
        found.append(Exemplar(value, when, trace.hex()) if good else None)
    return found


def latest(several: Iterable[Found]) -> Found:
    """Returns the latest exemplar of each bucket over several processes."""
    return [
        max(filter(None, of_bucket), key=lambda one: one.at, default=None)
        for of_bucket in zip(*several, strict=True)
    ]
