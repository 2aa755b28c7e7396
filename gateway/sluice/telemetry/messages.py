"""Prometheus's protobuf format: messages of io.prometheus.client, each behind its length. Pure.

https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto has the numbers of
the fields.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import Metric

from sluice.telemetry.exemplars import Exemplar, Found
from sluice.telemetry.native import SCHEMA, Grid, native_of
from sluice.wire.protobuf import data, double, number, packed, text, varint, zigzag

TYPES = {"counter": 0, "gauge": 1, "histogram": 4}
_FIELDS = {"counter": 3, "gauge": 2, "histogram": 7}


def family(name: str, help: str, kind: str, metrics: Iterable[bytes]) -> bytes:
    """A MetricFamily, delimited: its length comes first."""
    body = b"".join(
        (text(1, name), text(2, help), number(3, TYPES[kind]), *[data(4, metric) for metric in metrics])
    )
    return varint(len(body)) + body


def labels(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The labels of a Metric, which it begins with."""
    return b"".join([data(1, text(1, name) + text(2, value)) for name, value in pairs])


def single(labelled: bytes, kind: str, value: float) -> bytes:
    """The Metric of a counter or a gauge."""
    return labelled + data(_FIELDS[kind], double(1, value))


def histogram(labelled: bytes, bounds: Sequence[float], counts: Sequence[float], total: float) -> bytes:
    """The Metric of a histogram that has only the buckets of its configuration; `total` is the sum of what
    was observed."""
    return labelled + data(7, _conventional(bounds, counts, total, int(sum(counts)), ()))


def native_histogram(
    labelled: bytes,
    grid: Grid,
    bounds: Sequence[float],
    counted: tuple[Sequence[float], Sequence[float], float],
    found: Found,
) -> bytes:
    """The Metric of one that has both kinds of buckets. `counted`: the counts of its cells (or none), those
    of the configured buckets, and the sum of what was observed. `found`: its exemplars, or none."""
    cells, counts, total = counted
    native = native_of(grid, cells, counts)
    body = [
        _conventional(bounds, counts, total, native.count, found),
        number(5, zigzag(SCHEMA)),
        double(6, grid.threshold),
        number(7, native.zeros),
        *[data(12, number(1, zigzag(offset)) + number(2, length)) for offset, length in native.spans],
        packed(13, map(zigzag, native.deltas)) if native.deltas else b"",
        *[data(16, _exemplar(one)) for one in found if one is not None],
    ]
    return labelled + data(7, b"".join(body))


def _conventional(
    bounds: Sequence[float],
    counts: Sequence[float],
    total: float,
    count: int,
    found: Sequence[Exemplar | None],
) -> bytes:
    """The fields of a Histogram that those of both kinds have. The bucket without a bound is there only for
    its exemplar."""
    ends = [double(2, bound) for bound in bounds]
    if found and found[-1] is not None:
        ends.append(double(2, float("inf")))
    exemplars = found or [None] * len(counts)
    buckets = [
        data(3, number(1, int(so_far)) + end + (data(3, _exemplar(one)) if one is not None else b""))
        for so_far, end, one in zip(accumulate(counts), ends, exemplars, strict=False)
    ]
    return b"".join((number(1, count), double(2, total), *buckets))


def _exemplar(one: Exemplar) -> bytes:
    seconds, rest = divmod(round(one.at * 1000), 1000)
    at = number(1, seconds) + number(2, rest * 1_000_000)
    return data(1, text(1, "trace_id") + text(2, one.trace)) + double(2, one.value) + data(3, at)


def foreign(metrics: Iterable[Metric]) -> bytes:
    """Families of prometheus-client: counters and gauges."""
    out = []
    for metric in metrics:
        counter = metric.type == "counter"
        kind = "counter" if counter else "gauge"
        name = f"{metric.name}_total" if counter else metric.name
        samples = [sample for sample in metric.samples if sample.name == name]
        of_family = [single(labels(sample.labels.items()), kind, sample.value) for sample in samples]
        if of_family:
            out.append(family(name, metric.documentation, kind, of_family))
    return b"".join(out)
