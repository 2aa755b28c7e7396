"""What is pushed is read by the official messages of OTLP, and says what a scrape says."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice.telemetry.board import Board, BoardSlot
from sluice.telemetry.merged import MergedExposition
from sluice.telemetry.metrics import Metrics
from sluice.telemetry.points import request, requests
from sluice.telemetry.table import FIRST_TOKEN, TABLE

pb = pytest.importorskip(
    "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2",
    reason="opentelemetry-proto is not installed",
)
ODD = 'odd "name"\\\n ü'


def read(body: bytes) -> dict[str, Any]:
    """The metrics of a request, by name."""
    [resource] = pb.ExportMetricsServiceRequest.FromString(body).resource_metrics
    [scope] = resource.scope_metrics
    assert scope.scope.name == "sluice"
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes} == {
        "service.name": "s",
        "empty": "",
    }
    return {metric.name: metric for metric in scope.metrics}


def requested(metrics: bytes) -> dict[str, Any]:
    return read(request(metrics, {"service.name": "s", "empty": ""}, scope="sluice", version="1"))


def labels(point: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}


def count(metrics: Metrics) -> None:
    metrics.child("requests", "openai", ODD, "2xx").inc(3)
    metrics.child("streams_in_flight", "openai", "chat").set(2)
    for value in (0.06, 0.7, 500.0):
        metrics.child("time_to_first_token_seconds", "openai", "chat").observe(value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_request_has_counters_gauges_and_histograms(workers: int) -> None:
    board = Board(3)
    several = [Metrics("1", BoardSlot(board, number)) for number in range(1, workers + 1)] or [Metrics("1")]
    for metrics in several:
        count(metrics)
    times = max(workers, 1)
    merged = MergedExposition(board, lambda: [])
    found = requested(
        merged.text(range(3), range(3), "otlp")
        if workers
        else b"".join(several[0].slices(lambda: 0.0, "otlp"))
    )
    [requests] = found["sluice_requests"].sum.data_points
    assert (labels(requests), requests.as_double) == (
        {"frontend": "openai", "alias": ODD, "code": "2xx"},
        3 * times,
    )
    assert (
        found["sluice_requests"].sum.is_monotonic,
        found["sluice_requests"].sum.aggregation_temporality,
    ) == (True, 2)
    assert 0 < requests.start_time_unix_nano <= requests.time_unix_nano
    assert [point.as_double for point in found["sluice_streams_in_flight"].gauge.data_points] == [2 * times]
    first = found["sluice_time_to_first_token_seconds"]
    [point] = first.histogram.data_points
    assert (first.unit, point.count, point.sum) == ("s", 3 * times, pytest.approx(500.76 * times))
    assert [*point.explicit_bounds] == [*map(float, FIRST_TOKEN)]
    assert (sum(point.bucket_counts), len(point.bucket_counts)) == (3 * times, len(FIRST_TOKEN) + 1)
    assert point.bucket_counts[-1] == times
    assert found["process_cpu_seconds" if not workers else "python_info"].WhichOneof("data") in (
        "sum",
        "gauge",
    )


def test_what_is_pushed_is_what_is_scraped() -> None:
    metrics = Metrics("1")
    count(metrics)
    pushed = requested(b"".join(metrics.slices(lambda: 0.0, "otlp")))
    scraped = {
        family.name: family for family in text_string_to_metric_families(metrics.exposition().decode())
    }
    assert {name for name in pushed if name.startswith("sluice_")} == {
        name for name, family in scraped.items() if name.removeprefix("sluice_") in TABLE and family.samples
    }
    for name, metric in pushed.items():
        if metric.WhichOneof("data") != "histogram" and name.startswith("sluice_"):
            points = (metric.sum if metric.HasField("sum") else metric.gauge).data_points
            assert [point.as_double for point in points] == [sample.value for sample in scraped[name].samples]


def test_more_metrics_than_a_request_may_have_are_sent_in_several() -> None:
    metrics = Metrics("1")
    count(metrics)
    every = b"".join(metrics.slices(lambda: 0.0, "otlp"))
    whole = requested(every)
    resource = {"service.name": "s", "empty": ""}
    for largest in (1, 2000, 10**6):
        bodies = [*requests(every, resource, scope="sluice", version="1", largest=largest)]
        assert all(len(body) <= largest or len(read(body)) == 1 for body in bodies)
        parts = [read(body) for body in bodies]
        assert {name: metric for part in parts for name, metric in part.items()} == whole
        assert sum(map(len, parts)) == len(whole)
    assert [*requests(b"", resource, scope="sluice", version="1", largest=1)] == []
