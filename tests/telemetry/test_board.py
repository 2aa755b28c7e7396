"""Series that several processes share: the same places, sums of everybody, and nothing lost with a
process."""

import os
import random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sluice.telemetry.board import Board, BoardSlot
from sluice.telemetry.merged import MergedExposition
from sluice.telemetry.metrics import CallSeries, Metrics
from sluice.telemetry.table import TABLE


def exposition(board: Board) -> MergedExposition:
    return MergedExposition(board, lambda: [os.getpid()])


def samples(text: bytes) -> dict[str, float]:
    return {
        f"{sample.name} {sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("sluice_")
    }


def count(metrics: Metrics, chance: random.Random) -> None:
    """Something of every kind."""
    for alias in ("a", 'odd "name"\\\n'):
        series = CallSeries(metrics, "openai", alias)
        for _ in range(chance.randrange(20)):
            series.requests["2xx"].value += 1
            series.duration.observe(chance.random())
            series.first_token.observe(float(chance.randrange(200)))
        series.in_flight.inc(chance.randrange(5))


def test_several_processes_say_together_what_one_would_have_said() -> None:
    board, alone = Board(4), Metrics("1")
    for number in range(3):
        count(Metrics("1", BoardSlot(board, number)), random.Random(number))
        count(alone, random.Random(number))
    ours, theirs = samples(exposition(board).text(range(3), range(3))), samples(alone.exposition())
    apart = [name for name, spec in TABLE.items() if spec.merge == "apart"]
    left_out = {name for name in theirs if name.split()[0].removeprefix("sluice_") in apart}
    assert ours == pytest.approx({name: value for name, value in theirs.items() if name not in left_out})


def test_what_a_process_counted_stays_and_its_gauges_go() -> None:
    board = Board(3)
    merged = exposition(board)
    for number in (0, 1):
        metrics = Metrics("1", BoardSlot(board, number))
        metrics.child("usage_folded").inc(5)
        metrics.child("streams_in_flight", "openai", "a").inc(2)
        metrics.child("breaker_state", "u", "m").set(number)
    before = samples(merged.text([0, 1], [0, 1]))
    in_flight = "sluice_streams_in_flight [('alias', 'a'), ('frontend', 'openai')]"
    breaker = "sluice_breaker_state [('model', 'm'), ('upstream', 'u')]"
    assert (before["sluice_usage_folded_total []"], before[in_flight], before[breaker]) == (10, 4, 1)
    board.clear(1, {"sluice_streams_in_flight", "sluice_breaker_state"})
    after = samples(merged.text([0, 1], [0]))
    assert (after["sluice_usage_folded_total []"], after[in_flight], after[breaker]) == (10, 2, 0)
    again = Metrics("1", BoardSlot(board, 1))  # its successor goes on where it has ended
    again.child("usage_folded").inc()
    assert samples(merged.text([0, 1], [0, 1]))["sluice_usage_folded_total []"] == 11


def test_series_that_are_forgotten_vanish_and_come_back_from_zero() -> None:
    board = Board(3)
    merged = exposition(board)
    several = [Metrics("1", BoardSlot(board, number)) for number in (0, 1)]
    name = "sluice_failovers_total [('alias', 'a'), ('cause', 'c'), ('from', 'f'), ('to', 't')]"
    for metrics in several:
        metrics.child("failovers", "a", "f", "t", "c").inc(3)
    assert samples(merged.text([0, 1], [0, 1]))[name] == 6
    for metrics in several:
        metrics.forget(("alias",), {("a",)})
    assert name not in samples(merged.text([0, 1], [0, 1]))
    several[1].child("failovers", "a", "f", "t", "c").inc()
    assert samples(merged.text([0, 1], [0, 1]))[name] == 1


def test_what_is_looked_up_is_published() -> None:
    board = Board(2)
    metrics = Metrics("1", BoardSlot(board, 0))
    value = 7.0
    metrics.computed("dynamic_keys", lambda: value).kept = True
    metrics.publish()
    assert samples(exposition(board).text([0], [0]))["sluice_dynamic_keys []"] == 7


def test_processes_give_a_series_one_place() -> None:
    board = Board(3)
    pids = []
    for number in (1, 2):
        pid = os.fork()
        if not pid:  # pragma: no cover (another process)
            slot = BoardSlot(board, number)
            for at in range(200):
                value = slot.value("sluice_usage_folded", (str(at % 50 if number == 1 else 49 - at % 50),))
                if value is not None:
                    value.inc()
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    board.catch_up()
    assert len(board.records) == len({record.values for record in board.records}) == 50
    assert [board.cells(1)[record.at] + board.cells(2)[record.at] for record in board.records] == [8.0] * 50


def test_where_there_is_no_room_a_series_counts_for_its_process_alone() -> None:
    board = Board(1, cells=200, names=4096)
    metrics = Metrics("1", BoardSlot(board, 0))
    for alias in map(str, range(100)):
        metrics.child("inter_token_seconds", alias).observe(1)
    assert board.used <= 200
    assert samples(exposition(board).text([0], [0]))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_anew_is_what_a_first_look_would_write(seed: int) -> None:
    """Of series that change, stay, cancel each other out between processes, go back to nothing, are forgotten
    or are no numbers."""
    chance = random.Random(seed)
    board = Board(4)
    merged = exposition(board)
    several = [Metrics("1", BoardSlot(board, number)) for number in range(3)]
    values = (0.0, 1.0, -1.0, 2.5, 1e-7, 1e300, float("inf"), float("-inf"), float("nan"))

    def change() -> None:
        metrics, alias = chance.choice(several), f"a{chance.randrange(4)}"
        match chance.randrange(7):
            case 0:
                count(metrics, chance)
            case 1:
                metrics.child("streams_in_flight", "openai", alias).inc(chance.choice((-1, 1)))
            case 2:
                metrics.child("breaker_state", "u", alias).set(chance.choice((0, 1, 2)))
            case 3:
                metrics.child("cost_usd", "u", alias).value += chance.choice(values[2:])
            case 4:
                metrics.child("limit_capacity", "key", alias, "requests", "1m").set(chance.choice(values))
            case 5:
                metrics.child("overhead_seconds", "to_upstream").observe(chance.choice(values))
            case 6:
                for each in several:
                    each.forget(("alias",), {(alias,)})

    def ours(text: bytes) -> bytes:
        return text[: text.index(b"# HELP process_")] if b"# HELP process_" in text else text

    for _ in range(40):
        for _ in range(chance.randrange(4)):
            change()
        lively = chance.choice(([0, 1, 2], [0, 2]))
        for format in ("text", "openmetrics"):
            first = exposition(board).text(range(3), lively, format)
            assert ours(merged.text(range(3), lively, format)) == ours(first)
