"""Native histograms (https://prometheus.io/docs/specs/native_histograms/): buckets whose bounds grow by a
factor of 2^(1/4). Pure.

A histogram counts in the buckets of its configuration, whose bounds are round numbers; those of native
histograms are not. Once a scraper has requested native ones, it also counts in cells, which are separated by
the bounds of both kinds. Each cell is within one bucket of either kind, so the counts of both are sums of the
same cells. Counts from before that, and those for which there is no cell, are known by their bucket only:
they stay in one cell in the middle of the bucket, and so do not change any rate.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import msgspec

SCHEMA = 2
"""Bounds are the powers of 2^(2^-SCHEMA), so an estimated quantile is off by less than a tenth of its value.
"""
STEPS = 2**SCHEMA
BELOW, ABOVE = 4, 4
"""Values down to 1/BELOW of the smallest bound, and up to ABOVE times the greatest one, are distinguished."""


class Grid(msgspec.Struct, frozen=True):
    """The cells of a histogram.

    `bounds`: their upper ends; the last cell has none. The first cell is the bucket of zero, up to
    `threshold`; `indexes` has the native bucket of each other cell. `parts`: where the cells of each
    configured bucket begin and end. `middles`: the cell among them for counts that are only known by their
    bucket.
    """

    bounds: tuple[float, ...]
    threshold: float
    indexes: tuple[int, ...]
    parts: tuple[tuple[int, int], ...]
    middles: tuple[int, ...]


class Native(msgspec.Struct, frozen=True):
    """The counts of a native histogram. `spans`: the gap to the span before (of the first: its index), and
    its length. `deltas`: each count less the one before."""

    count: int
    zeros: int
    spans: list[tuple[int, int]]
    deltas: list[int]


@cache
def grid_of(buckets: Sequence[float]) -> Grid:
    """Returns the cells for a histogram whose buckets have these upper ends, which are above zero and
    ascending."""
    first = STEPS * math.floor(math.log2(buckets[0] / BELOW))
    last = STEPS * math.ceil(math.log2(buckets[-1] * ABOVE))
    native = [2.0 ** (index / STEPS) for index in range(first, last + 1)]
    bounds = sorted({*native, *map(float, buckets)})
    indexes = [first + bisect_left(native, bound) for bound in bounds] + [last + 1]
    ends = [bounds.index(bound) + 1 for bound in buckets]
    parts = tuple(pairwise([0, *ends, len(bounds) + 1]))
    middles = (*[(start + end) // 2 for start, end in parts[:-1]], ends[-1])
    return Grid(tuple(bounds), native[0], tuple(indexes[1:]), parts, middles)


def native_of(grid: Grid, cells: Sequence[float], buckets: Sequence[float]) -> Native:
    """`cells`: the counts in each cell of the grid, or empty; `buckets`: the counts in each configured
    bucket."""
    counts = [int(count) for count in cells] or [0] * (len(grid.bounds) + 1)
    for (start, end), middle, count in zip(grid.parts, grid.middles, buckets, strict=True):
        missing = int(count) - sum(counts[start:end])
        if missing > 0:  # negative only if a process counts at this moment
            counts[middle] += missing
    filled: dict[int, int] = {}
    for index, count in zip(grid.indexes, counts[1:], strict=True):
        if count:
            filled[index] = filled.get(index, 0) + count
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    end = before = 0
    for index, count in filled.items():  # in ascending order of their indexes
        if spans and index == end:
            spans[-1] = spans[-1][0], spans[-1][1] + 1
        else:
            spans.append((index - end, 1))
        deltas.append(count - before)
        end, before = index + 1, count
    return Native(sum(counts), counts[0], spans, deltas)
