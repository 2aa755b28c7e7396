"""The exposition: what prometheus-client's own would say, only of series in use, and in pieces."""

import random
import re
from itertools import count

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sluice.telemetry.metrics import FAILOVERS, Metrics, zero_of_failovers
from sluice.telemetry.series import Distribution, Family, Value, again, slices
from sluice.telemetry.table import CODES, FAILOVER_CAUSES, FIRST_TOKEN, TABLE

ODD = 'odd "name"\\\n{0} %s \x01 ü'


def parsed(text: str) -> dict[str, tuple[str, str, dict[tuple[str, tuple[tuple[str, str], ...]], float]]]:
    """By family: type, help, and the value of each sample by its name and labels; without the times of
    creation."""
    return {
        family.name: (
            family.type,
            family.documentation,
            {
                (s.name, tuple(sorted(s.labels.items()))): s.value
                for s in family.samples
                if not s.name.endswith("_created")
            },
        )
        for family in text_string_to_metric_families(text)
    }


def written(*families: Family) -> str:
    return b"".join(slices(families, lambda: 0.0, 1.0)).decode()


def test_every_kind_says_what_prometheus_clients_own_would() -> None:
    registry, chance = CollectorRegistry(), random.Random(1)
    pairs = [("a", "b"), (ODD, ""), ("x", ODD)]
    for labels in (["frontend", "alias"], ["upstream", "model"], ["alias", "zone"]):
        name = "_".join(labels)
        theirs = (
            Counter(f"{name}_c", "A counter\\ of\nthings", labels, registry=registry),
            Gauge(f"{name}_g", "A gauge", labels, registry=registry),
            Histogram(f"{name}_h", "A histogram", labels, buckets=FIRST_TOKEN, registry=registry),
        )
        ours = (
            Family("counter", f"{name}_c", "A counter\\ of\nthings", labels),
            Family("gauge", f"{name}_g", "A gauge", labels),
            Family("histogram", f"{name}_h", "A histogram", labels, FIRST_TOKEN),
        )
        for pair in pairs:
            for value in (0, 0.05, 0.050001, 0.3, 1, 7, 120, 121, 1e9, chance.random()):
                theirs[0].labels(*pair).inc(value)
                theirs[1].labels(*pair).set(value)
                theirs[2].labels(*pair).observe(value)
                ours[0].child(pair).inc(value)  # type: ignore[union-attr]
                ours[1].child(pair).set(value)  # type: ignore[union-attr]
                ours[2].child(pair).observe(value)  # type: ignore[union-attr]
        for family in ours:
            found = parsed(written(family))
            assert found == {
                name: found_of
                for name, found_of in parsed(generate_latest(registry).decode()).items()
                if name in found
            }
            assert len(found) == 1


def test_numbers_that_are_none_are_written_as_prometheus_reads_them() -> None:
    family = Family("gauge", "g", "help", ["a"])
    for value in (float("inf"), float("-inf"), 1e300, 5e-324):
        family.child((repr(value),)).set(value)  # type: ignore[union-attr]
    assert [line.rpartition(" ")[2] for line in written(family).splitlines()[2:]] == [
        "+Inf",
        "-Inf",
        "1e+300",
        "5e-324",
    ]


def test_what_nothing_has_used_is_not_shown() -> None:
    counter, histogram = (
        Family("counter", "c", "help", ["a"]),
        Family("histogram", "h", "help", ["a"], (1.0,)),
    )
    series = counter.child(("idle",))
    kept = counter.child(("kept",))
    kept.kept = True
    histogram.child(("idle",))
    assert written(counter, histogram).count("idle") == 0
    assert 'c_total{a="kept"} 0.0\n' in written(counter)
    assert isinstance(series, Value)
    series.value += 1
    assert 'c_total{a="idle"} 1.0\n' in written(counter)


def test_a_gauge_that_is_back_at_zero_is_still_shown() -> None:
    family = Family("gauge", "g", "help", ["a"])
    now = 0.0
    family.computed(("computed",), lambda: now)
    counted = family.child(("counted",))
    assert 'g{a="counted"} 0.0\n' in written(family)
    assert "computed" not in written(family)
    now = 2
    assert 'g{a="computed"} 2.0\n' in written(family)
    now = 0.0
    assert 'g{a="computed"} 0.0\n' in written(family)
    assert isinstance(counted, Value)


def test_a_piece_ends_when_its_time_is_over_and_all_pieces_are_the_whole() -> None:
    families = [Family("counter", "c", "help", ["a"]), Family("histogram", "h", "help", ["a"], FIRST_TOKEN)]
    for n in range(100):
        families[0].child((str(n),)).inc()  # type: ignore[union-attr]
        families[1].child((str(n),)).observe(n)  # type: ignore[union-attr]
    clock = count()
    pieces = list(slices(families, lambda: float(next(clock)), 10.0))
    assert len(pieces) == 2 * 100 // 10 + 1
    assert all(piece.count(b"_sum") + piece.count(b"c_total{") <= 10 for piece in pieces)
    assert b"".join(pieces).decode() == written(*families)


def test_series_that_nothing_has_used_take_their_share_of_a_pieces_time() -> None:
    family = Family("counter", "c", "help", ["a"])
    for n in range(100):
        family.child((str(n),))
    clock = count()
    assert len(list(slices([family], lambda: float(next(clock)), 10.0))) == 11


def test_series_may_be_added_between_two_pieces() -> None:
    family = Family("counter", "c", "help", ["a"])
    for n in range(10):
        family.child((str(n),)).inc()  # type: ignore[union-attr]
    pieces = slices([family], lambda: 0.0, 0.0)
    first = next(pieces)
    for n in range(10, 1000):
        family.child((str(n),)).inc()  # type: ignore[union-attr]
    assert (first + b"".join(pieces)).count(b"c_total{") == 10
    assert written(family).count("c_total{") == 1000


def test_everything_is_parsed_back() -> None:
    metrics = Metrics("1.0")
    metrics.child("requests", "widget", ODD, "2xx").inc(3)
    metrics.child("streams_in_flight", "widget", "chat").set(2)
    found = {f.name: f for f in text_string_to_metric_families(metrics.exposition().decode())}
    [sample] = found["sluice_requests"].samples
    assert (sample.labels["alias"], sample.value) == (ODD, 3)
    assert found["sluice_usage_folded"].samples[-1].value == 0
    assert found["sluice_build_info"].samples[0].labels["version"] == "1.0"
    assert "process_cpu_seconds" in found
    assert {f"sluice_{name}" for name in TABLE} <= found.keys()


def test_a_label_that_is_not_of_its_closed_set_is_refused() -> None:
    requests = Metrics("1.0").children("requests", ("widget", "chat"), CODES)
    requests["2xx"].inc()
    try:
        requests["9xx"].inc()
    except KeyError:
        return
    raise AssertionError


def test_series_of_what_is_gone_are_dropped_and_the_others_count_on() -> None:
    metrics = Metrics("test")
    for alias in ("kept", "gone"):
        metrics.child("stream_end", "openai", alias, "done").inc(2)
    for model in ("m", "n"):
        metrics.child("tokens", "up", model, "input", "provider").inc()
    metrics.child("failovers", "kept", "up/m", "up/n", "context").inc()
    held = metrics.child("stream_end", "openai", "gone", "done")
    metrics.forget(("alias",), {("gone",), ("unknown",)})
    metrics.forget(("upstream", "model"), {("up", "m")})
    held.inc()  # whoever holds it counts for nobody
    text = metrics.exposition().decode()
    assert 'stream_end_total{alias="kept",frontend="openai",reason="done"} 2.0' in text
    assert "gone" not in text
    assert 'model="n"' in text
    assert 'model="m"' not in text
    assert 'from="up/m"' in text
    metrics.forget(("from",), {("up/m",)})
    assert 'from="up/m"' not in metrics.exposition().decode()
    assert metrics.child("stream_end", "openai", "gone", "done").value == 0


def test_failovers_have_a_zero_between_targets_that_are_likely_to_fail_over() -> None:
    metrics = Metrics("test")
    zero_of_failovers(metrics, "one", [["a"]])
    zero_of_failovers(metrics, "even", [["a", "b", "a"], ["c"]])
    zero_of_failovers(metrics, "many", [[f"t{n}" for n in range(500)], ["last"]])
    shown = [
        line
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("sluice_failovers_total{")
    ]
    assert all(line.endswith(" 0.0") for line in shown)
    pairs = re.findall(r'alias="(\w+)",cause="server_error",from="(\w+)",to="(\w+)"', "\n".join(shown))
    assert {pair[1:] for pair in pairs if pair[0] == "even"} == {
        ("a", "b"),
        ("b", "a"),
        ("a", "c"),
        ("b", "c"),
    }
    assert {pair[1:] for pair in pairs if pair[0] == "many"} == {(f"t{n}", "last") for n in range(FAILOVERS)}
    assert len(pairs) == 4 + FAILOVERS
    assert len(shown) == len(pairs) * len(FAILOVER_CAUSES)


def test_a_computed_gauge_that_is_computed_anew_stays_shown() -> None:
    metrics = Metrics("test")
    metrics.computed("breaker_state", lambda: 2, "up", "m")
    assert 'breaker_state{model="m",upstream="up"} 2.0' in metrics.exposition().decode()
    metrics.computed("breaker_state", lambda: 0, "up", "m")
    assert 'breaker_state{model="m",upstream="up"} 0.0' in metrics.exposition().decode()


def test_a_histogram_whose_sum_is_seen_before_its_count_is_left_to_who_asks_more() -> None:
    """Another process writes both, one after the other."""
    series = Distribution((1.0,))
    series.text = b"%d %d %d %b\n"
    cells = [0.0, 0.0, 1.5]
    assert again(series, cells) is None
    assert cells == [0.0, 0.0, 1.5]
    assert again(series, [0.0, 1.0, 1.5]) == b"0 1 1 1.5\n"
