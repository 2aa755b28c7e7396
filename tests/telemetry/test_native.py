"""Native histograms: cells that both kinds of buckets are sums of, and messages as Google's library reads
them."""

import math
import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text_format

from sluice.telemetry.board import Board, BoardSlot
from sluice.telemetry.exemplars import Exemplar, packed, unpacked
from sluice.telemetry.formats import Format
from sluice.telemetry.merged import MergedExposition
from sluice.telemetry.metrics import Metrics
from sluice.telemetry.native import STEPS, Native, grid_of, native_of
from sluice.telemetry.series import Distribution
from sluice.telemetry.table import DURATION, FIRST_TOKEN, OVERHEAD, PER_TOKEN
from tests.telemetry.metrics_proto import families

ALL = (FIRST_TOKEN, PER_TOKEN, DURATION, OVERHEAD)
TRACE = "0af7651916cd43dd8448eb211c80319c"


def refined(buckets: Sequence[float]) -> Distribution:
    series, grid = Distribution(buckets), grid_of(tuple(buckets))
    series.refine(grid.bounds, [0] * (len(grid.bounds) + 1))
    return series


def native(series: Distribution, buckets: Sequence[float]) -> Native:
    return native_of(grid_of(tuple(buckets)), series.cells, series.counts)


def buckets_of(found: Native) -> dict[int, int]:
    """The count of each native bucket, by its index."""
    deltas, counts, index = iter(found.deltas), dict[int, int](), 0
    count = 0
    for offset, length in found.spans:
        index += offset
        for _ in range(length):
            count += next(deltas)
            counts[index] = count
            index += 1
    assert next(deltas, None) is None
    return counts


@pytest.mark.parametrize("buckets", ALL)
def test_each_value_is_in_the_bucket_that_the_specification_gives_it(buckets: tuple[float, ...]) -> None:
    grid, chance = grid_of(buckets), random.Random(1)
    edges = [
        edge
        for bound in (*grid.bounds, *buckets)
        for edge in (bound, math.nextafter(bound, 0), math.nextafter(bound, 1e9))
    ]
    top = grid.indexes[-1]
    for value in (
        *edges,
        *[chance.lognormvariate(math.log(buckets[len(buckets) // 2]), 2) for _ in range(500)],
        0.0,
    ):
        series = refined(buckets)
        series.observe(value)
        found = native(series, buckets)
        assert found.count == 1
        if value <= grid.threshold:
            assert (found.zeros, found.spans) == (1, [])
            continue
        [(index, count)] = buckets_of(found).items()
        assert count == 1
        assert value > 2.0 ** ((index - 1) / STEPS)
        assert value <= 2.0 ** (index / STEPS) or index == top


@pytest.mark.parametrize("buckets", ALL)
def test_both_kinds_have_counted_the_same(buckets: tuple[float, ...]) -> None:
    chance, series = random.Random(2), refined(buckets)
    grid = grid_of(buckets)
    for _ in range(2000):
        series.observe(chance.lognormvariate(math.log(buckets[len(buckets) // 2]), 2))
    found = native(series, buckets)
    assert found.count == sum(series.counts) == 2000
    assert found.zeros + sum(buckets_of(found).values()) == 2000
    cells = [*accumulate(series.cells)]
    assert [*accumulate(series.counts)] == [cells[end - 1] for _, end in grid.parts]


def test_what_was_counted_before_stands_in_the_middle_of_its_bucket_and_changes_no_rate() -> None:
    series, grid = Distribution(FIRST_TOKEN), grid_of(FIRST_TOKEN)
    for value in (0.06, 0.06, 0.7, 500.0):
        series.observe(value)
    series.refine(grid.bounds, [0] * (len(grid.bounds) + 1))
    before = native(series, FIRST_TOKEN)
    assert before.count == 4
    assert all(2.0 ** (index / STEPS) > 0.05 for index in buckets_of(before))
    series.observe(0.052)
    after = buckets_of(native(series, FIRST_TOKEN))
    more = {index: count - buckets_of(before).get(index, 0) for index, count in after.items()}
    assert {index: count for index, count in more.items() if count} == {
        math.ceil(math.log2(0.052) * STEPS): 1
    }


def test_a_cell_that_is_ahead_of_its_bucket_is_believed() -> None:
    grid = grid_of(FIRST_TOKEN)
    cells = [0.0] * (len(grid.bounds) + 1)
    cells[40] = 1.0  # another process is just counting
    assert native_of(grid, cells, [0.0] * (len(FIRST_TOKEN) + 1)).count == 1


def test_a_histogram_that_has_counted_nothing_has_no_spans() -> None:
    assert native_of(grid_of(PER_TOKEN), (), [0] * (len(PER_TOKEN) + 1)) == Native(0, 0, [], [])


# --- messages


def message(data: bytes, name: str) -> Any:
    [found] = [family for family in families(data) if family.name == name]
    return found


def scraped(metrics: Metrics, format: Format = "protobuf") -> bytes:
    return b"".join(metrics.slices(lambda: 0.0, format))


def test_messages_say_what_the_text_says() -> None:
    metrics = Metrics("1")
    metrics.child("requests", "openai", 'odd "name"\\\n ü', "2xx").inc(3)
    metrics.child("streams_in_flight", "openai", "chat").set(2)
    metrics.child("cost_usd", "u", "m").inc(0.25)
    for value in (0.04, 0.06, 700.0):
        metrics.child("request_duration_seconds", "openai", "chat").observe(value)
    data = scraped(metrics)
    requests = message(data, "sluice_requests_total")
    assert (requests.type, requests.help) == (0, "Answered requests, by status class")
    [metric] = requests.metric
    assert {pair.name: pair.value for pair in metric.label} == {
        "frontend": "openai", "alias": 'odd "name"\\\n ü', "code": "2xx",
    }  # fmt: skip
    assert metric.counter.value == 3
    assert [m.gauge.value for m in message(data, "sluice_streams_in_flight").metric] == [2]
    assert [m.counter.value for m in message(data, "sluice_cost_usd_total").metric] == [0.25]
    [duration] = [m.histogram for m in message(data, "sluice_request_duration_seconds").metric]
    assert (duration.sample_count, duration.sample_sum) == (3, pytest.approx(700.1))
    assert [bucket.upper_bound for bucket in duration.bucket] == [*DURATION]
    assert [bucket.cumulative_count for bucket in duration.bucket] == [1, *[2] * 13]
    assert duration.schema == 2
    assert duration.zero_count + len(duration.positive_delta) > 0
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"} <= {
        f.name for f in families(data)
    }
    shown = {
        line.split()[2]
        for line in scraped(metrics, "text").decode().splitlines()
        if line.startswith("# TYPE")
    }
    assert {family.name for family in families(data)} <= shown


def test_openmetrics_is_read_by_its_parser_and_has_the_same_samples() -> None:
    metrics = Metrics("1")
    metrics.child("requests", "openai", 'odd "name"\\\n ü', "2xx").inc(3)
    metrics.child("request_duration_seconds", "openai", "chat").observe(0.4)

    def samples(families: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        found = [
            sample for family in families for sample in family.samples if sample.name.startswith("sluice_")
        ]
        return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}

    ours = samples(openmetrics(scraped(metrics, "openmetrics").decode()))
    assert ours == samples(text_format(scraped(metrics, "text").decode()))
    assert len(ours) > 20


def test_workers_are_summed_and_count_in_cells_once_somebody_has_asked() -> None:
    board = Board(4)
    merged = MergedExposition(board, lambda: [])
    several = [Metrics("1", BoardSlot(board, number)) for number in (1, 2)]
    first = [metrics.child("time_to_first_token_seconds", "openai", "chat") for metrics in several]

    def found() -> Any:
        [metric] = message(
            merged.text(range(4), range(4), "protobuf"), "sluice_time_to_first_token_seconds"
        ).metric
        return metric.histogram

    first[0].observe(0.06)
    assert found().sample_count == 1
    for metrics in several:
        metrics.publish()
    before = found()
    for series in first:
        series.observe(0.052)
    late = several[0].child("time_to_first_token_seconds", "openai", "later")
    late.observe(0.052)
    metrics = message(
        merged.text(range(4), range(4), "protobuf"), "sluice_time_to_first_token_seconds"
    ).metric
    after = next(m.histogram for m in metrics if any(pair.value == "chat" for pair in m.label))
    later = next(m.histogram for m in metrics if any(pair.value == "later" for pair in m.label))
    assert (before.sample_count, after.sample_count, later.sample_count) == (1, 3, 1)
    assert later.positive_span[0].offset == math.ceil(math.log2(0.052) * STEPS)
    assert sum(accumulate(after.positive_delta)) + after.zero_count == 3
    again = merged.text(range(4), range(4), "protobuf")
    assert message(again, "sluice_time_to_first_token_seconds").metric[0] in [*metrics]


def test_series_that_are_forgotten_take_their_cells_with_them() -> None:
    board = Board(2)
    merged = MergedExposition(board, lambda: [])
    metrics = Metrics("1", BoardSlot(board, 1))
    board.refine()
    metrics.publish()
    for _ in range(2):
        series = metrics.child("inter_token_seconds", "chat")
        series.observe(0.02)
        metrics.exemplify("inter_token_seconds", ("chat",), Exemplar(0.02, 1.0, TRACE))
        [metric] = message(merged.text([0, 1], [0, 1], "protobuf"), "sluice_inter_token_seconds").metric
        assert (metric.histogram.sample_count, len(metric.histogram.exemplars)) == (1, 1)
        metrics.forget(("alias",), {("chat",)})
        assert b"inter_token_seconds_count{" not in merged.text([0, 1], [0, 1])


# --- exemplars


def test_an_exemplar_is_read_as_it_was_written_and_not_while_it_is_written() -> None:
    exemplar = Exemplar(0.25, 1_700_000_000.5, TRACE)
    data = packed(exemplar)
    assert unpacked(data + bytes(len(data))) == [exemplar, None]
    other = packed(Exemplar(0.3, 1_700_000_001.5, TRACE[::-1]))
    for cut in range(1, len(data)):
        mixed = other[:cut] + data[cut:]
        assert unpacked(mixed) in ([None], [exemplar], [Exemplar(0.3, 1_700_000_001.5, TRACE[::-1])])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bucket_shows_the_trace_of_its_last_call(workers: int) -> None:
    board = Board(3)
    several = [Metrics("1", BoardSlot(board, number)) for number in range(1, workers + 1)] or [Metrics("1")]
    for at, metrics in enumerate(several):
        for value, trace in ((0.06, TRACE), (300.0, TRACE[::-1])):
            metrics.child("time_to_first_token_seconds", "openai", "chat").observe(value)
            exemplar = Exemplar(value + at, 1_700_000_000.0 + at, trace)
            metrics.exemplify("time_to_first_token_seconds", ("openai", "chat"), exemplar)
    merged = MergedExposition(board, lambda: [])
    data: dict[Format, bytes] = {
        format: merged.text(range(3), range(3), format) if workers else scraped(several[0], format)
        for format in ("text", "openmetrics", "protobuf")
    }
    assert b"trace_id" not in data["text"]
    lines = [line for line in data["openmetrics"].decode().splitlines() if "trace_id" in line]
    last = max(workers - 1, 0)
    assert lines[-1] == (
        'sluice_time_to_first_token_seconds_bucket{alias="chat",frontend="openai",le="+Inf"} '
        f'{2 * max(workers, 1)} # {{trace_id="{TRACE[::-1]}"}} {300.0 + last} {1_700_000_000 + last}.000'
    )
    parsed = [sample for family in openmetrics(data["openmetrics"].decode()) for sample in family.samples]
    assert TRACE in {sample.exemplar.labels["trace_id"] for sample in parsed if sample.exemplar is not None}
    [metric] = message(data["protobuf"], "sluice_time_to_first_token_seconds").metric
    exemplars = [*metric.histogram.exemplars]
    assert {one.label[0].value for one in exemplars} == {TRACE, TRACE[::-1]}
    assert {one.timestamp.seconds for one in exemplars} >= {1_700_000_000 + last}
    assert metric.histogram.bucket[-1].upper_bound == math.inf
