"""Counters, gauges and histograms of one thread: plain numbers, read by prometheus-client only when somebody scrapes.

prometheus-client's own take a lock per change, which one event loop does not need and a call pays some fifteen times.
The exposition stays its: a `Family` is a custom collector.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

Kind = Literal["counter", "gauge", "histogram"]


class Value:
    """One series of a counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        self.value += amount

    def dec(self, amount: float = 1) -> None:
        self.value -= amount

    def set(self, value: float) -> None:
        self.value = value


class Distribution:
    """One series of a histogram; `bounds` are the buckets' inclusive upper ends, ascending, without infinity."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """(`le`, count of all values up to it), +Inf last."""
        total, rows = 0, []
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            total += count
            rows.append((floatToGoString(bound), float(total)))  # type: ignore[no-untyped-call]
        return rows


class Family:
    """All series of one metric, by their label values."""

    def __init__(self, kind: Kind, name: str, help: str, labels: Sequence[str], buckets: Sequence[float] = ()) -> None:
        self._kind = kind
        self._name = name
        self._help = help
        self._labels = labels
        self._buckets = buckets
        self._series: dict[tuple[str, ...], Value | Distribution] = {}

    def child(self, values: tuple[str, ...]) -> Value | Distribution:
        """The series with these label values, created at zero if it is new. Raises ValueError for a wrong number of them."""
        found = self._series.get(values)
        if found is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {', '.join(self._labels)}")
            found = Distribution(self._buckets) if self._kind == "histogram" else Value()
            self._series[values] = found
        return found

    def collect(self) -> Iterable[Metric]:
        if self._kind == "histogram":
            histogram = HistogramMetricFamily(self._name, self._help, labels=self._labels)
            for values, series in self._series.items():
                assert isinstance(series, Distribution)
                histogram.add_metric(values, series.cumulative(), series.sum)
            yield histogram
            return
        kind = CounterMetricFamily if self._kind == "counter" else GaugeMetricFamily
        family = kind(self._name, self._help, labels=self._labels)
        for values, series in self._series.items():
            assert isinstance(series, Value)
            family.add_metric(values, series.value)
        yield family
