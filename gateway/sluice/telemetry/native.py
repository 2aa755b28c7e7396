"""Native histograms (https://prometheus.io/docs/specs/native_histograms/): buckets that grow by a factor of
2^(1/4). Pure.

A histogram counts in the buckets of its configuration, whose bounds are round numbers, which those of native
histograms are not. Once a scraper has asked for native ones, it counts in cells, too, that both kinds of
bounds delimit: each cell lies in one bucket of either kind, so that both are sums of the same cells. What was
counted before that, and what finds no place, is known by its bucket only: it stands in one cell in the middle
of it, for good, and so changes no rate.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import msgspec

SCHEMA = 2
"""Bounds are the powers of 2^(2^-SCHEMA): an estimated quantile is off by less than a tenth of its value."""
STEPS = 2**SCHEMA
BELOW, ABOVE = 4, 4
"""How many times smaller than the least and greater than the greatest bound of a bucket a value can be told
apart."""


class Grid(msgspec.Struct, frozen=True):
    """The cells of a histogram: `bounds` are their upper ends, the last one has none.

    The first is the bucket of zero, up to `threshold`; `indexes` has the native bucket of each of the others.
    `parts`: where the cells of each configured bucket begin and end. `middles`: the one of them that gets
    what is only known by its bucket.
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
    """The cells for a histogram with these upper ends of its buckets, which are above zero and ascend."""
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
    """`cells`: what was counted in each cell of the grid, or nothing; `buckets`: what was in each configured
    bucket."""
    counts = [int(count) for count in cells] or [0] * (len(grid.bounds) + 1)
    for (start, end), middle, count in zip(grid.parts, grid.middles, buckets, strict=True):
        missing = int(count) - sum(counts[start:end])
        if missing > 0:  # below zero only where a process counts in between
            counts[middle] += missing
    filled: dict[int, int] = {}
    for index, count in zip(grid.indexes, counts[1:], strict=True):
        if count:
            filled[index] = filled.get(index, 0) + count
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    end = before = 0
    for index, count in filled.items():  # their indexes ascend
        if spans and index == end:
            spans[-1] = spans[-1][0], spans[-1][1] + 1
        else:
            spans.append((index - end, 1))
        deltas.append(count - before)
        end, before = index + 1, count
    return Native(sum(counts), counts[0], spans, deltas)
