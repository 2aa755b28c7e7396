"""The gateway's own policies under simulated traffic: what is refused, retried, failed over, and when."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from sluice.config.loader import load_mapping
from sluice.config.types import Limit
from sluice.config.units import Rate, Seconds
from sluice.simulate.arrivals import PATTERNS, Filling, generated
from sluice.simulate.clock import START, Stalled, VirtualLoop
from sluice.simulate.driver import Simulated, simulate
from sluice.simulate.measured import Timeline, percentile
from sluice.simulate.report import document, lines_of, needed
from sluice.simulate.scenario import (
    Arrivals,
    Clients,
    CountSpread,
    Outage,
    ReplicaModel,
    Scenario,
    TimeSpread,
    UpstreamModel,
    dice_of,
    draw,
)
from sluice.simulate.traces import Arrival, RecordedAttempt

DIGEST = "sha256:" + "0" * 64


def always(seconds: float) -> TimeSpread:
    return TimeSpread(median=Seconds(seconds))


STEADY = UpstreamModel(first_token=always(0.5), token=always(0.01))
"""Half a second to the first token, then 100 tokens a second: no chance in it."""


def config(alias: dict[str, Any] | None = None, key: dict[str, Any] | None = None, **upstream: Any) -> Any:
    """Two upstreams, a before b, and one key."""
    address = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "x", **upstream}
    tiers = [[{"upstream": "a", "model": "m"}], [{"upstream": "b", "model": "m"}]]
    return load_mapping(
        {
            "upstreams": {"a": address, "b": address},
            "aliases": {"chat": {"tiers": tiers, **(alias or {})}},
            "keys": [{"id": "web", "digest": DIGEST, "aliases": ["chat"], "limits": key or {}}],
            "prices": {"models": {"m": {"input": 1.0, "output": 10.0}}},
        }
    )


def even(count: int, every: float = 1.0, **fields: Any) -> Iterable[Arrival]:
    """Calls of 100 tokens' prompts and 101 tokens' answers: they take 1.5 s of STEADY."""
    arrival = {"alias": "chat", "key": "web", "input": 100, "output": 101, **fields}
    return [Arrival(number * every, **arrival) for number in range(count)]


def run(
    loaded: Any, arrivals: Iterable[Arrival], scenario: Scenario | None = None, **upstreams: UpstreamModel
) -> Simulated:
    found = scenario or Scenario(upstreams={"a": STEADY, "b": STEADY, **upstreams})
    simulated = simulate(loaded, found, iter(arrivals), began=1_800_000_000.0)
    assert simulated.crashes == []
    return simulated


def scenario(**fields: Any) -> Scenario:
    return Scenario(**{"upstreams": {"a": STEADY, "b": STEADY}, **fields})


# --- time


def test_an_hour_of_sleep_takes_no_time() -> None:
    async def sleep() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(sleep()) == pytest.approx(START + 3600)


def test_what_will_never_happen_is_an_error_and_no_endless_wait() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    loop = VirtualLoop()
    try:
        with pytest.raises(Stalled):
            loop.run_until_complete(wait())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()


# --- calls


def test_a_steady_upstream_answers_as_it_is_modelled() -> None:
    simulated = run(config(), even(10))
    measured = simulated.measured
    assert measured.all.outcomes == {"ok": 10}
    assert list(measured.all.first_token) == pytest.approx([0.5] * 10)
    assert list(measured.all.duration) == pytest.approx([1.5] * 10)
    assert simulated.seconds == pytest.approx(9 + 1.5)
    assert measured.cost == pytest.approx(10 * (100 * 1.0 + 101 * 10.0) / 1e6)
    assert measured.targets.keys() == {"a/m"}


def test_the_limiter_refuses_what_is_over_a_key_s_rate() -> None:
    loaded = config(key={"requests": {"rate": "1/s", "burst": 10}})
    measured = run(loaded, even(210, every=0.1)).measured  # 20.9 s: 10 of the burst and one a second
    assert measured.all.outcomes == {"ok": 30, "429": 180}
    assert measured.refusals == {"key requests": 180}


def test_replicas_share_their_limits() -> None:
    loaded = config(key={"requests": {"rate": "1/s", "burst": 10}})
    measured = run(loaded, even(210, every=0.1), scenario(replicas=3)).measured
    assert measured.all.outcomes == {"ok": 30, "429": 180}


def test_streams_at_a_time_are_limited() -> None:
    measured = run(
        config(key={"streams": 2}), even(30, every=0.6)
    ).measured  # each takes 1.5 s: the third finds two
    assert measured.all.outcomes["ok"] == 20
    assert measured.refusals == {"key streams": 10}


def test_a_queue_makes_calls_wait_in_place_of_a_refusal() -> None:
    loaded = config({"queue": {"size": 100, "timeout": "30s"}}, key={"streams": 1})
    measured = run(loaded, even(5, every=0.0)).measured
    assert measured.all.outcomes == {"ok": 5}
    assert sorted(measured.all.waited) == pytest.approx([0, 1.5, 3.0, 4.5, 6.0], abs=0.01)


def test_an_outage_opens_the_breaker_and_calls_fail_over() -> None:
    down = UpstreamModel(
        first_token=always(0.5), token=always(0.01), outages=(Outage(at=Seconds(10), lasts=Seconds(30)),)
    )
    simulated = run(config(), even(60), a=down)
    measured = simulated.measured
    assert measured.all.outcomes == {"ok": 60}
    assert 1 <= simulated.opened <= 5  # probes fail while it lasts
    failed = measured.targets["a/m"].outcomes["server_error"]
    assert 5 <= failed < 15  # the breaker spares it the others
    assert measured.targets["b/m"].outcomes["ok"] >= 30
    assert simulated.breakers == [{"a/m": "closed", "b/m": "closed"}]


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("refuse", "connect_error"),
        ("hang", "headers_timeout"),
        ("overloaded", "server_error"),
        ("error", "server_error"),
    ],
)
def test_calls_fail_over_before_the_first_token(kind: Any, outcome: str) -> None:
    broken = UpstreamModel(outages=(Outage(at=Seconds(0), lasts=Seconds(1000), kind=kind),))
    measured = run(config(timeouts={"headers": "3s"}), even(3, every=20), a=broken).measured
    assert measured.all.outcomes == {"ok": 3}
    assert set(measured.targets["a/m"].outcomes) == {outcome}


@pytest.mark.parametrize(("kind", "error"), [("stall", "idle_timeout"), ("cut", "truncated")])
def test_a_stream_that_breaks_later_is_an_error_in_it(kind: Any, error: str) -> None:
    broken = UpstreamModel(
        first_token=always(0.5),
        token=always(0.01),
        outages=(Outage(at=Seconds(0), lasts=Seconds(99), kind=kind),),
    )
    simulated = run(config({"recovery": "error"}, timeouts={"idle": "5s"}), even(1), a=broken)
    assert simulated.measured.all.outcomes == {f"broken: {error}": 1}
    if kind == "stall":
        assert simulated.seconds == pytest.approx(5.5, abs=0.01)


def test_a_cut_stream_is_continued_where_the_alias_says_so() -> None:
    cut = UpstreamModel(cuts=1.0)
    measured = run(config({"recovery": "continue"}), even(5), a=cut).measured
    assert measured.all.outcomes == {"ok": 5}
    assert measured.targets["b/m"].outcomes == {"ok": 5}


def test_a_slow_first_token_is_the_gateway_s_deadline_s_to_end() -> None:
    slow = UpstreamModel(first_token=always(60), token=always(0.01))
    measured = run(config(timeouts={"first_token": "2s"}), even(1), a=slow).measured
    assert measured.targets["a/m"].outcomes == {"first_token_timeout": 1}
    assert list(measured.all.first_token) == pytest.approx([2.5], abs=0.01)


def test_the_deadline_of_an_attempt_ends_it() -> None:
    measured = run(config(timeouts={"total": "1s"}), even(1)).measured
    assert measured.all.outcomes == {"broken: total_timeout": 1}


def test_a_hedge_takes_over_where_the_first_target_is_slow() -> None:
    slow = UpstreamModel(first_token=always(20), token=always(0.01))
    measured = run(config({"hedge": {"after": "1s"}}), even(2, every=30), a=slow).measured
    assert list(measured.all.first_token) == pytest.approx([1.5, 1.5], abs=0.01)
    assert measured.targets["b/m"].outcomes == {"ok": 2}


def test_a_provider_s_own_limit_is_met_by_the_other_upstream() -> None:
    limited = UpstreamModel(
        first_token=always(0.5), token=always(0.01), requests=Limit(rate=Rate.parse("60/min"), burst=5)
    )
    simulated = run(config(), even(100, every=0.1), a=limited)
    assert simulated.measured.all.outcomes == {"ok": 100}
    assert 1 <= simulated.upstreams["a/m"].refused < 50  # the cool-down keeps most calls away


def test_calls_wait_for_a_place_at_the_upstream() -> None:
    one = UpstreamModel(first_token=always(0.5), token=always(0.01), places=1)
    simulated = run(config(), even(3, every=0.0), a=one)
    assert sorted(simulated.measured.all.first_token) == pytest.approx([0.5, 2.0, 3.5])
    assert simulated.upstreams["a/m"].most == 1
    assert simulated.upstreams["a/m"].longest_line == 2


def test_a_client_without_patience_leaves_and_frees_its_place() -> None:
    one = UpstreamModel(first_token=always(0.5), token=always(0.01), places=1)
    impatient = scenario(clients=Clients(patience=Seconds(1)), upstreams={"a": one})
    simulated = run(config(), even(3, every=0.0), impatient)
    assert simulated.measured.all.outcomes == {"ok": 1, "client left": 2}
    assert simulated.upstreams["a/m"].streaming == 0


def test_clients_try_again_after_a_refusal() -> None:
    again = scenario(clients=Clients(retries=3))
    measured = run(config(key={"requests": {"rate": "1/s", "burst": 1}}), even(3, every=0.0), again).measured
    assert measured.all.outcomes["ok"] == 3
    assert measured.retries == measured.all.outcomes["429"]


def test_recorded_times_stand_in_for_a_model() -> None:
    recorded = [RecordedAttempt("a/m", 0.25, 0.02)] * 30
    simulated = simulate(config(), Scenario(), iter(even(3)), observed=recorded)
    assert list(simulated.measured.all.first_token) == pytest.approx([0.25] * 3)
    assert list(simulated.measured.all.duration) == pytest.approx([2.25] * 3)


def test_what_comes_while_it_warms_up_is_not_counted() -> None:
    measured = run(config(), even(10), scenario(warmup=Seconds(4))).measured
    assert (measured.all.calls, measured.warmup_calls) == (6, 4)


def test_an_alias_that_a_key_may_not_use_is_a_404() -> None:
    assert run(config(), even(2, alias="other")).measured.all.outcomes == {"404": 2}


# --- the same again


def figures(seed: int) -> dict[str, Any]:
    arrivals = Arrivals(rate=Rate(30), lasts=Seconds(20), burst_every=Seconds(10), burst_lasts=Seconds(5))
    noisy = Scenario(
        seed=seed,
        replicas=2,
        clients=Clients(retries=2, patience=Seconds(5)),
        upstreams={"a": UpstreamModel(errors=0.05, cuts=0.02, requests=Limit(rate=Rate(20)))},
    )
    dice = dice_of(seed, "arrivals")
    trace = generated("bursts", arrivals, Filling(arrivals, ["chat"], ["web"], dice), dice)
    found = document(run(config({"hedge": {"after": "1s"}}), trace, noisy), noisy)
    del found["took"]
    return found


def test_the_same_seed_is_the_same_run_to_the_last_digit() -> None:
    first = figures(1)
    assert first["calls"] > 400
    assert json.dumps(first) == json.dumps(figures(1))
    assert first != figures(2)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_generated_arrivals_have_their_rate(pattern: str) -> None:
    of = Arrivals(rate=Rate(50), lasts=Seconds(400), burst_factor=1.0, day=Seconds(100))
    dice = dice_of(7, pattern)
    arrivals = list(generated(PATTERNS[pattern], of, Filling(of, ["chat"], [], dice), dice))
    times = [arrival.at for arrival in arrivals]
    assert times == sorted(times)
    assert len(times) == pytest.approx(20_000, rel=0.05)


def test_spreads_have_their_median_and_95th_percentile() -> None:
    dice = dice_of(3, "spread")
    for spread in (TimeSpread(median=Seconds(0.4), p95=Seconds(1.2)), CountSpread(median=0.4, p95=1.2)):
        drawn = sorted(draw(spread, dice) for _ in range(20_000))
        assert percentile(drawn, 50) == pytest.approx(0.4, rel=0.05)
        assert percentile(drawn, 95) == pytest.approx(1.2, rel=0.05)


# --- figures


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert [percentile([1, 2, 3, 4], p) for p in (50, 75, 99)] == [2, 3, 4]
    assert percentile([], 50) == 0.0


def test_a_timeline_sums_what_is_open_in_each_second() -> None:
    timeline = Timeline()
    timeline.add(0.5, 3.2, 1.0)
    timeline.add(1.0, 1.1, 2.0)
    assert timeline.levels()[:5] == [1.0, 3.0, 1.0, 0.0, 0.0]


def test_the_replicas_that_are_needed_are_those_of_the_scarcest() -> None:
    replica = ReplicaModel(request=Seconds(0.001), token=Seconds(0.0001), load=0.5, streams=100)
    assert needed([1000.0] * 20, [5000.0] * 20, [120.0], replica)["by"] == {
        "cpu": 3,
        "memory": 1,
        "streams": 2,
    }
    assert needed([0.0], [], [950.0], replica)["for"] == "streams"
    assert needed([], [], [], replica)["replicas"] == 1


def test_the_text_names_what_matters() -> None:
    simulated = run(config(key={"requests": {"rate": "1/s", "burst": 10}}), even(210, every=0.1))
    text = "\n".join(lines_of(document(simulated, scenario())))
    assert "429 by: key requests 180" in text
    assert "needed: 1 replica(s)" in text
