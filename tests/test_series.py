from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import FIRST_TOKEN, Metrics
from gateway.series import Family


def test_a_histogram_says_what_prometheus_clients_own_would() -> None:
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reference = Histogram("h", "help", ["a"], buckets=FIRST_TOKEN, registry=theirs)
    family = Family("histogram", "h", "help", ["a"], FIRST_TOKEN)
    ours.register(family)
    for value in (0, 0.05, 0.050001, 0.3, 1, 7, 120, 121, 1e9):
        reference.labels("x").observe(value)
        family.child(("x",)).observe(value)  # type: ignore[union-attr]
    lines = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == lines


def test_everything_is_parsed_back_and_exists_from_the_start() -> None:
    metrics = Metrics("1.0")
    metrics.child("requests", "widget", 'odd"\\\n', "2xx").inc(3)
    metrics.child("streams_in_flight", "widget", "chat").set(2)
    found = {f.name: f for f in text_string_to_metric_families(metrics.exposition().decode())}
    [sample] = found["sluice_requests"].samples
    assert (sample.labels["alias"], sample.value) == ('odd"\\\n', 3)
    assert found["sluice_event_loop_lag_seconds"].samples[-1].value == 0
    assert found["sluice_build_info"].samples[0].labels["version"] == "1.0"
    assert "process_cpu_seconds" in found
