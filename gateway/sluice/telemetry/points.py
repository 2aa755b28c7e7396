"""Encodes metrics in OTLP (https://github.com/open-telemetry/opentelemetry-proto, metrics of version 1).
Pure.

Figures are cumulative, as for Prometheus: a receiver that was unavailable has only missed the times in
between.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric

from sluice.wire.protobuf import data, double, fields, fixed, number, text

CUMULATIVE = 2
_GAUGE, _SUM, _HISTOGRAM = 5, 7, 9


def metric(name: str, help: str, kind: str, points: Iterable[bytes]) -> bytes:
    """Encodes a Metric, as a field of ScopeMetrics. `name` is without the `_total` that Prometheus's counters
    have."""
    body = b"".join([data(1, point) for point in points])
    match kind:
        case "counter":
            body = data(_SUM, body + number(2, CUMULATIVE) + number(3, 1))
        case "histogram":
            body = data(_HISTOGRAM, body + number(2, CUMULATIVE))
        case _:
            body = data(_GAUGE, body)
    return data(2, text(1, name) + text(2, help) + text(3, _unit(name)) + body)


def point(labels: Iterable[tuple[str, str]], value: float) -> bytes:
    """Encodes a NumberDataPoint without its times (`timed`)."""
    return double(4, value) + _attributes(7, labels)


def histogram(
    labels: Iterable[tuple[str, str]], bounds: Sequence[float], counts: Sequence[float], total: float
) -> bytes:
    """Encodes a HistogramDataPoint without its times; `total` is the sum of the observations."""
    whole = [int(count) for count in counts]
    return b"".join(
        (
            fixed(4, sum(whole)),
            double(5, total),
            data(6, struct.pack(f"<{len(whole)}Q", *whole)),
            data(7, struct.pack(f"<{len(bounds)}d", *bounds)),
            _attributes(9, labels),
        )
    )


def timed(point: bytes, started: int, now: int) -> bytes:
    """Adds the times between which a data point was counted, in nanoseconds since the epoch."""
    return point + fixed(2, started) + fixed(3, now)


def foreign(metrics: Iterable[Metric], started: int, now: int) -> bytes:
    """Encodes metrics of prometheus-client (counters and gauges) as fields of ScopeMetrics."""
    out = []
    for one in metrics:
        counter = one.type == "counter"
        name = f"{one.name}_total" if counter else one.name
        points = [
            timed(point(s.labels.items(), s.value), started, now) for s in one.samples if s.name == name
        ]
        if points:
            out.append(metric(one.name, one.documentation, "counter" if counter else "gauge", points))
    return b"".join(out)


def request(metrics: bytes, resource: Mapping[str, str], *, scope: str, version: str) -> bytes:
    """Encodes an ExportMetricsServiceRequest. `metrics`: fields of ScopeMetrics."""
    scoped = data(1, text(1, scope) + text(2, version)) + metrics
    return data(1, data(1, _attributes(1, resource.items())) + data(2, scoped))


def requests(
    metrics: bytes, resource: Mapping[str, str], *, scope: str, version: str, largest: int
) -> Iterator[bytes]:
    """Returns ExportMetricsServiceRequests of whole metrics: as few as have at most `largest` bytes each,
    unless a single metric has more. See `request`. Without metrics there is none."""
    room = largest - len(request(b"", resource, scope=scope, version=version)) - 32  # lengths of messages
    of_request: list[bytes] = []
    size = 0
    for _, one in fields(metrics):
        written = data(2, one) if isinstance(one, bytes) else b""
        if of_request and size + len(written) > room:
            yield request(b"".join(of_request), resource, scope=scope, version=version)
            of_request, size = [], 0
        of_request.append(written)
        size += len(written)
    if of_request:
        yield request(b"".join(of_request), resource, scope=scope, version=version)


def _unit(name: str) -> str:
    """Returns the UCUM unit (https://ucum.org/) at the end of a name, if there is one."""
    return "s" if name.endswith("_seconds") else "By" if name.endswith("_bytes") else ""


def _attributes(field: int, pairs: Iterable[tuple[str, str]]) -> bytes:
    """Encodes KeyValues; an empty text is also a value, so its field is written."""
    return b"".join(
        [
            data(field, text(1, key) + data(2, data(1, value.encode("utf-8", "replace"))))
            for key, value in pairs
        ]
    )
