"""Counters, gauges and histograms of one thread: ordinary numbers, and their text for scrapes.

prometheus-client's own take a lock for each change, which one event loop does not need and a call pays some
fifteen times, and its exposition makes an object per line. Here a series keeps its lines without the numbers,
and a scrape only inserts the numbers, with `bytes % numbers`, which takes a fifth of the time of
`str.format`. A series is shown once it has counted something, or from the start if it is marked so (`kept`):
alerts need some series at zero, but a configuration of a thousand aliases has a hundred thousand that are
never used.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any, Literal, Protocol, cast

from sluice.telemetry import messages, points
from sluice.telemetry.exemplars import CELLS, Exemplar, Exemplars, Found, SharedExemplars
from sluice.telemetry.formats import Format
from sluice.telemetry.native import Grid, grid_of

Kind = Literal["counter", "gauge", "histogram"]
Times = tuple[int, int]
REFINED, EXEMPLARS = ":refined", ":exemplars"
"""Suffixes of a histogram's name: for its cells and its exemplars, if processes share them."""


class Value:
    """One series of a counter or a gauge. `text`: its line without the number, once that has been made."""

    __slots__ = ("kept", "text", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.kept = False
        self.text = b""

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount

    def set(self, value: float) -> None:
        self.value = value


class Computed:
    """One series of a gauge whose value is computed at each scrape."""

    __slots__ = ("kept", "read", "shown", "text")

    def __init__(self, read: Callable[[], float]) -> None:
        self.read = read
        self.shown: Any = None  # its value for other processes
        self.kept = False
        self.text = b""

    @property
    def value(self) -> float:
        return float(self.read())


class Distribution:
    """One series of a histogram; `bounds` are the buckets' inclusive upper ends, ascending, without infinity.
    `cells`: the counts of the cells between `ends` (`sluice.telemetry.native`), once it is refined."""

    __slots__ = ("bounds", "cells", "counts", "ends", "kept", "sum", "text")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts: list[float] = [0] * (len(bounds) + 1)
        self.cells: list[float] = []
        self.ends: Sequence[float] = ()
        self.sum = 0.0
        self.kept = False
        self.text = b""

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def refine(self, ends: Sequence[float], cells: Any) -> None:
        """Counts in these cells as well, from now on. The object changes its class for this, so that nothing
        has to be checked while no scraper needs it."""
        self.ends, self.cells = ends, cells
        self.__class__ = RefinedDistribution


class RefinedDistribution(Distribution):
    __slots__ = ()

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        self.cells[bisect_left(self.ends, value)] += 1


class SharedSeries(Protocol):
    """Gives series positions in memory that other processes read; None if there are none left."""

    def value(self, family: str, values: tuple[str, ...]) -> Any: ...

    def distribution(self, family: str, values: tuple[str, ...], bounds: Sequence[float]) -> Any: ...

    def area(self, family: str, values: tuple[str, ...], size: int) -> Any: ...


Series = Value | Computed | Distribution


class Family:
    """All series of one metric, by their label values. `slot`: where they are counted, if other processes
    need them."""

    def __init__(
        self,
        kind: Kind,
        name: str,
        help: str,
        labels: Sequence[str],
        buckets: Sequence[float] = (),
        *,
        slot: SharedSeries | None = None,
    ) -> None:
        self._given = name
        self._slot = slot
        self._kind = kind
        self._name = f"{name}_total" if kind == "counter" else name
        self._labels = labels
        self._buckets = buckets
        self._series: dict[tuple[str, ...], Series] = {}
        self._help = help
        self._grid: Grid | None = None
        """The cells to count in as well, once native histograms have been requested."""
        self._exemplars: dict[tuple[str, ...], Exemplars | SharedExemplars] = {}
        self._areas: dict[tuple[str, ...], list[Any]] = {}
        self._order = sorted(range(len(labels)), key=lambda at: labels[at])
        self._before_le = sum(label < "le" for label in labels)
        self._histogram = self._lines() if kind == "histogram" else b""

    def child(self, values: tuple[str, ...]) -> Series:
        """Returns the series with these label values, created at zero if it is new. A gauge's is shown from
        then on, because a return to zero must be visible. Raises ValueError for a wrong number of values."""
        found = self._series.get(values)
        if found is None or (self._slot is not None and getattr(found, "forgotten", False)):
            found = self._add(values, self._made(values))
            found.kept = self._kind == "gauge"
        return found

    def _made(self, values: tuple[str, ...]) -> Series:
        made: Series | None = None
        if self._slot is not None and len(values) == len(self._labels):
            of_kind = self._kind == "histogram"
            made = (
                self._slot.distribution(self._given, values, self._buckets)
                if of_kind
                else self._slot.value(self._given, values)
            )
        if made is None:
            made = Distribution(self._buckets) if self._kind == "histogram" else Value()
        if self._grid is not None:
            self._refine(self._grid, values, made)
        return made

    def refined(self) -> Iterator[None]:
        """Makes a histogram's series, one at a time, and those that come later count for native histograms,
        too."""
        if self._kind == "histogram" and self._grid is None:
            self._grid = grid_of(tuple(self._buckets))
            for values, series in self._now():
                self._refine(self._grid, values, series)
                yield

    def _refine(self, grid: Grid, values: tuple[str, ...], series: Any) -> None:
        size = len(grid.bounds) + 1
        cells = [0] * size if isinstance(series, Distribution) else self._area(REFINED, values, size)
        if cells is not None:
            series.refine(grid.bounds, cells)

    def _area(self, what: str, values: tuple[str, ...], size: int) -> Any:
        """Returns memory beside a series that other processes read; None if there is none left."""
        area = self._slot.area(self._given + what, values, size) if self._slot is not None else None
        if area is None:
            return None
        self._areas.setdefault(values, []).append(area)
        return area.cells

    def exemplify(self, values: tuple[str, ...], exemplar: Exemplar) -> None:
        """Notes that the call of this trace was counted in the series with these label values, if there is
        one."""
        exemplars = self._exemplars.get(values)
        if exemplars is None:
            series = self._series.get(values)
            if series is None:
                return
            if isinstance(series, Distribution):
                exemplars = Exemplars(self._buckets)
            else:
                cells = self._area(EXEMPLARS, values, CELLS * (len(self._buckets) + 1))
                if cells is None:
                    return
                exemplars = SharedExemplars(self._buckets, cells)
            self._exemplars[values] = exemplars
        exemplars.put(exemplar)

    def computed(self, values: tuple[str, ...], read: Callable[[], float]) -> Computed:
        """Returns a gauge's series with these label values, whose value is the result of `read` at each
        scrape from now on."""
        found = self._series.get(values)
        if isinstance(found, Computed):
            found.read = read
        else:
            self._add(values, found := Computed(read))
        return found

    def forget(self, labels: Sequence[str], gone: Collection[tuple[str, ...]]) -> None:
        """Drops the series whose values of these labels are among `gone`. Code that still holds such a series
        counts in vain."""
        if not set(labels) <= set(self._labels):
            return
        at = [self._labels.index(label) for label in labels]
        for values in [values for values in self._series if tuple(values[index] for index in at) in gone]:
            self.forget_one(values)

    def forget_one(self, values: tuple[str, ...]) -> None:
        """Drop the series with these label values, if there is one."""
        series = self._series.pop(values, None)
        self._exemplars.pop(values, None)
        for area in self._areas.pop(values, ()):
            area.forget()
        if self._slot is not None and series is not None:
            shared = series.shown if isinstance(series, Computed) else series
            if hasattr(shared, "forget"):
                shared.forget()

    def publish(self) -> Iterator[None]:
        """Publishes the values of computed series to other processes, one at a time."""
        for values, series in (
            [*self._series.items()] if self._kind == "gauge" and self._slot is not None else ()
        ):
            if isinstance(series, Computed):
                if series.shown is None or series.shown.forgotten:
                    series.shown = self._slot.value(self._given, values)  # type: ignore[union-attr]
                if series.shown is not None:
                    value = series.shown.value = series.value
                    if value or series.kept:
                        series.shown.kept = True
                yield

    def _add(self, values: tuple[str, ...], series: Series) -> Series:
        if len(values) != len(self._labels):
            raise ValueError(f"{self._name} has the labels {', '.join(self._labels)}")
        self._series[values] = series
        return series

    def head(self, format: Format) -> bytes:
        """Returns the first lines of a family in the text format. OpenMetrics has no `_total` in the names of
        counters."""
        help = self._help.replace("\\", "\\\\").replace("\n", "\\n")
        name = self._name
        if format == "openmetrics":
            name, help = self._given, help.replace('"', '\\"')
        return f"# HELP {name} {help}\n# TYPE {name} {self._kind}\n".encode()

    def pieces(self, format: Format) -> Iterator[bytes]:
        """Returns the lines of each series; b"" for one that is not shown. Series may be added meanwhile."""
        for values, series in self._now():
            if format == "text":
                yield self.text(values, series)
                continue
            exemplars = self._exemplars.get(values)
            found = exemplars.found() if isinstance(exemplars, Exemplars) else ()
            if format == "openmetrics":
                yield exemplified(self.text(values, series), found)
            elif format == "protobuf":
                yield self.metric(values, series, found)
            else:
                yield self.point(values, series)

    def family(self, pieces: Iterable[bytes], times: Times | None = None) -> bytes:
        """The message of the family, of those of its series; b"" where it has none. In Prometheus's protobuf
        format, or with `times` (from which and to which it has counted, in nanoseconds since the epoch) in
        OTLP's."""
        shown = [piece for piece in pieces if piece]
        if not shown:
            return b""
        if times is not None:
            return points.metric(
                self._given, self._help, self._kind, [points.timed(point, *times) for point in shown]
            )
        return messages.family(self._name, self._help, self._kind, shown)

    def point(self, values: tuple[str, ...], series: Series) -> bytes:
        """OTLP's data point of a series, without its times; b"" where it is not shown."""
        labels = zip(self._labels, values, strict=True)
        if self._kind == "histogram":
            counted = cast(Distribution, series)
            if not counted.kept and not any(counted.counts):
                return b""
            return points.histogram(labels, self._buckets, counted.counts, counted.sum)
        value = series.value  # type: ignore[union-attr]
        if not value and not series.kept:
            return b""
        series.kept = True
        return points.point(labels, value)

    def metric(self, values: tuple[str, ...], series: Series, found: Found = ()) -> bytes:
        """The message of a series, with these exemplars; b"" where it is not shown."""
        labelled = messages.labels(zip(self._labels, values, strict=True))
        if self._kind == "histogram":
            counted = cast(Distribution, series)
            if not counted.kept and not any(counted.counts):
                return b""
            figures = counted.cells, counted.counts, counted.sum
            return messages.native_histogram(
                labelled, grid_of(tuple(self._buckets)), self._buckets, figures, found
            )
        value = series.value  # type: ignore[union-attr]
        if not value and not series.kept:
            return b""
        series.kept = True
        return messages.single(labelled, self._kind, value)

    def text(self, values: tuple[str, ...], series: Series) -> bytes:
        """The lines of one series; b"" where it is not shown."""
        if self._kind == "histogram":
            counted = cast(Distribution, series)
            counts = [*accumulate(counted.counts)]
            total = counts[-1]
            if not total and not counted.kept:
                return b""
            return (counted.text or self._template(values, counted)) % (*counts, total, _number(counted.sum))
        single = cast(Value, series)
        value = single.value
        if value:
            single.kept = True
        elif not single.kept:
            return b""
        return b"%b %b\n" % (single.text or self._text_of(values, single), _number(value))

    def _now(self) -> Iterator[tuple[tuple[str, ...], Series]]:
        """Returns all present series, without a copy in pairs, which the garbage collector would have to
        examine."""
        return zip([*self._series], [*self._series.values()], strict=True)

    def _text_of(self, values: tuple[str, ...], series: Value | Computed) -> bytes:
        labels = ",".join(self._pairs(values))
        series.text = (f"{self._name}{{{labels}}}" if labels else self._name).encode("utf-8", "replace")
        return series.text

    def _template(self, values: tuple[str, ...], series: Distribution) -> bytes:
        """Returns the lines of one histogram without their numbers: the count of each bucket, the total
        count, and the sum."""
        pairs = [pair.encode("utf-8", "replace").replace(b"%", b"%%") for pair in self._pairs(values)]
        before = b"".join([b"%b," % pair for pair in pairs[: self._before_le]])
        after = b"".join([b",%b" % pair for pair in pairs[self._before_le :]])
        alone = b"{%b}" % b",".join(pairs) if pairs else b""
        series.text = self._histogram % {b"before": before, b"after": after, b"all": alone}
        return series.text

    def _lines(self) -> bytes:
        """Returns the lines of any histogram without its labels (those before `le`, those after it, and all
        of them) and numbers."""
        name, bounds = self._name.encode(), [*map(_number, map(float, self._buckets)), b"+Inf"]
        lines = [b'%b_bucket{%%(before)ble="%b"%%(after)b} %%%%d\n' % (name, bound) for bound in bounds]
        return b"%b%b_count%%(all)b %%%%d\n%b_sum%%(all)b %%%%b\n" % (b"".join(lines), name, name)

    def _pairs(self, values: tuple[str, ...]) -> list[str]:
        return [f'{self._labels[at]}="{_escaped(values[at])}"' for at in self._order]


def again(series: Value | Distribution, cells: list[float]) -> bytes | None:
    """Sets the numbers of a series that has been shown (for a histogram its counts, followed by their sum),
    and returns its lines. It is a shorter `Family.text`, without checks that can only have one result
    then. None: the series has not been shown, or a check is needed."""
    text = series.text
    if not text or not isfinite(cells[-1]):
        return None
    if len(cells) == 1:
        [value] = cells
        if not value:
            return None
        series.value = value  # type: ignore[union-attr]
        return b"%b %a\n" % (text, value)
    *counts, sum = cells
    below = [*accumulate(counts)]
    if not below[-1]:
        return None
    series.counts, series.sum = counts, sum  # type: ignore[union-attr]
    return text % (*below, below[-1], b"%a" % sum)


def exemplified(text: bytes, found: Found) -> bytes:
    """Returns the lines of a histogram in OpenMetrics' format, with these exemplars of its buckets."""
    if not text or not any(found):
        return text
    lines = text.split(b"\n")
    for at, one in enumerate(found):
        if one is not None:
            lines[at] += b' # {trace_id="%b"} %b %b' % (
                one.trace.encode(),
                _number(one.value),
                b"%.3f" % one.at,
            )
    return b"\n".join(lines)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> bytes:
    if math.isfinite(value):
        return b"%a" % value
    return b"NaN" if math.isnan(value) else b"+Inf" if value > 0 else b"-Inf"


def slices(
    families: Sequence[Family],
    clock: Callable[[], float],
    longest: float,
    format: Format = "text",
    times: Times | None = None,
) -> Iterator[bytes]:
    """Yields the families in pieces that each take about `longest` seconds of `clock` to make. A piece may be
    empty, because a protobuf message begins with its length. `times`: see `Family.family`."""
    parts: list[bytes] = []
    due = clock() + longest
    for family in families:
        of_family: list[bytes] = []
        whole = format in ("protobuf", "otlp")
        if not whole:
            parts.append(family.head(format))
        for piece in family.pieces(format):
            (of_family if whole else parts).append(piece)
            if clock() >= due:
                yield b"".join(parts)
                parts, due = [], clock() + longest
        if of_family:
            parts.append(family.family(of_family, times))
    yield b"".join(parts)
