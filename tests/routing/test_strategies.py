"""Strategies: the order of a tier's targets for a call."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from random import Random
from typing import Any

import pytest

from sluice.config.types import Canary
from sluice.config.types import Target as Spec
from sluice.errors import UpstreamError
from sluice.routing.failover import queue_of
from sluice.routing.health import BreakerPolicy, Load
from sluice.routing.pods import Pod, PodChoice
from sluice.routing.pooled import PooledHealth
from sluice.routing.strategies import (
    BY_PODS,
    BY_TTFT,
    PODS_TRIED,
    STRATEGIES,
    CallTraits,
    RoutedTier,
)
from tests.routing.servers import Clock as ServerClock
from tests.routing.servers import chat, half, pod
from tests.routing.targets import Target, names, queue


def test_weights_decide_who_is_first() -> None:
    rng = random.Random(7)
    routed = RoutedTier([Target("a", 3), Target("b", 1), Target("never", 0)])
    first = Counter(queue_of([routed], CallTraits(), rng.random)[0].label for _ in range(4000))
    assert first["never"] == 0
    assert 2850 <= first["a"] <= 3150


def test_round_robin_takes_turns() -> None:
    routed = RoutedTier([Target("a"), Target("b"), Target("c")], "round_robin")
    firsts = [queue_of([routed], CallTraits(), lambda: 0.5)[0].label for _ in range(4)]
    assert firsts == ["a", "b", "c", "a"]


def test_least_in_flight_goes_to_the_idle_one() -> None:
    busy, idle, bigger = Target("busy"), Target("idle"), Target("bigger", weight=4)
    busy.load.in_flight, idle.load.in_flight, bigger.load.in_flight = 3, 1, 3
    assert names(queue([busy, idle, bigger], strategy="least_in_flight")) == ["bigger", "idle", "busy"]


def test_lowest_ttft_prefers_the_quicker_of_two() -> None:
    slow, quick = Target("slow"), Target("quick")
    slow.load.observe(2.0)
    quick.load.observe(0.2)
    routed = RoutedTier([slow, quick], "lowest_ttft")
    rng = random.Random(1)
    assert {queue_of([routed], CallTraits(), rng.random)[0].label for _ in range(50)} == {"quick"}


def test_cheapest_goes_by_price_and_unknown_prices_last() -> None:
    tier = [Target("unknown"), Target("dear", price=10), Target("cheap", price=1)]
    assert names(queue(tier, strategy="cheapest")) == ["cheap", "dear", "unknown"]


def test_affinity_keeps_a_session_on_its_target_when_others_leave() -> None:
    tier = [Target(name) for name in "abcd"]
    home = {
        f"s{i}": queue(tier, traits=CallTraits(session=f"s{i}"), strategy="affinity")[0].name
        for i in range(200)
    }
    assert set(home.values()) == set("abcd")
    fewer = [target for target in tier if target.name != "c"]
    for session, name in home.items():
        now = queue(fewer, traits=CallTraits(session=session), strategy="affinity")[0].name
        assert now == name or name == "c"


@pytest.mark.parametrize(
    "traits", [CallTraits(key="tester"), CallTraits(headers={"x-canary": "yes"})], ids=["by key", "by header"]
)
def test_a_canary_is_weighed_for_its_callers(traits: CallTraits) -> None:
    canary = Canary(weight=1000, keys=("tester",), header="x-canary: yes")
    tier = [Target("stable"), Target("new", weight=0, canary=canary)]
    rng = random.Random(3)
    routed = RoutedTier(tier)
    chosen = Counter(queue_of([routed], traits, rng.random)[0].label for _ in range(200))
    others = {queue_of([routed], CallTraits(key="other"), rng.random)[0].label for _ in range(200)}
    assert chosen["new"] > 180
    assert others == {"stable"}


def test_only_what_strategies_say_of_themselves_is_known_elsewhere() -> None:
    assert {"queue_depth", "prefix_cache"} == BY_PODS
    assert {"lowest_ttft"} == BY_TTFT
    assert STRATEGIES.keys() > BY_PODS | BY_TTFT


# --- upstreams with several servers


class Pooled:
    """A target of one server, or of an upstream with several."""

    def __init__(
        self,
        label: str,
        at: Pod | None = None,
        *,
        servers: "Sequence[Pooled] | None" = None,
        weight: float = 1.0,
        price: float | None = None,
    ) -> None:
        self.label, self.model = label, "m"
        self.pod = at
        self.spec = Spec(upstream=label, model="m", weight=weight, price=price)
        self.health = PooledHealth(lambda: 0.0, BreakerPolicy(failures=1))
        self.load = Load()
        self.pods = (lambda _: servers) if servers is not None else None


def servers(count: int, label: str = "up", **spec: Any) -> list[Pooled]:
    clock = ServerClock()
    return [Pooled(label, pod(f"p{number}", running=number, clock=clock), **spec) for number in range(count)]


def several(count: int, label: str = "up", **spec: Any) -> Pooled:
    return Pooled(label, servers=servers(count, label, **spec), **spec)


def asked(queue: Sequence[Any]) -> list[str]:
    return [f"{t.label}.{t.pod.address}" if t.pod is not None else t.label for t in queue]


def test_a_tier_tries_three_servers_at_most_the_healthy_ones_first() -> None:
    found = servers(6)
    found[0].health.failed(UpstreamError("server_error"))
    tier: Any = RoutedTier([Pooled("up", servers=found)], "queue_depth", pooled=True)
    queue: list[Any] = queue_of([tier], CallTraits(), half)
    assert [target.pod.address for target in queue] == ["p1", "p2", "p3"]
    for target in found:
        target.health.failed(UpstreamError("server_error"))
    assert len(queue_of([tier], CallTraits(), half)) == PODS_TRIED


@pytest.mark.parametrize(
    "strategy", ["queue_depth", "prefix_cache", "weighted", "affinity", "least_in_flight"]
)
def test_every_strategy_orders_servers_and_an_upstream_whose_servers_are_not_known(strategy: Any) -> None:
    several, unknown = Pooled("up", servers=servers(2)), Pooled("other")
    for targets, count in (([several], 2), ([several, unknown], 3), ([unknown], 1)):
        tier: Any = RoutedTier(targets, strategy, "key", pooled=True)
        traits = CallTraits(key="k", chat=chat("hello"))
        assert len(queue_of([tier], traits, half)) == count


def test_a_target_has_its_weight_however_many_servers_it_has() -> None:
    tier: Any = RoutedTier([several(8), Pooled("other")], "weighted", pooled=True)
    chance = Random(1).random
    firsts = [asked(queue_of([tier], CallTraits(), chance))[0] for _ in range(600)]
    assert 240 <= firsts.count("other") <= 360
    assert len(set(firsts)) == 9


@pytest.mark.parametrize("strategy", ["weighted", "round_robin", "least_in_flight", "cheapest", "affinity"])
def test_no_target_is_left_out_because_another_has_many_servers(strategy: Any) -> None:
    targets = [several(8), Pooled("other"), several(4, "more")]
    tier: Any = RoutedTier(targets, strategy, "key", pooled=True)
    for number in range(20):
        queue = asked(queue_of([tier], CallTraits(key=f"k{number}"), Random(number).random))
        by_target = [label for label, _ in groupby(name.partition(".")[0] for name in queue)]
        assert sorted(by_target) == ["more", "other", "up"], "the servers of a target stand together"
        assert len(queue) == 2 * PODS_TRIED + 1


def test_a_target_of_weight_0_comes_behind_all_servers_of_the_others() -> None:
    for strategy in ("weighted", "round_robin", "least_in_flight", "lowest_ttft", "cheapest"):
        tier: Any = RoutedTier([Pooled("other", weight=0), several(5)], strategy, pooled=True)
        assert asked(queue_of([tier], CallTraits(), half))[-1] == "other"
        tier = RoutedTier([several(5, weight=0), Pooled("other")], strategy, pooled=True)
        assert asked(queue_of([tier], CallTraits(), half))[0] == "other"


def test_targets_of_several_servers_take_turns_and_so_do_the_servers_of_each() -> None:
    tier: Any = RoutedTier([several(3), Pooled("other")], "round_robin", pooled=True)
    firsts = [asked(queue_of([tier], CallTraits(), half))[0] for _ in range(6)]
    assert firsts == ["up.p0", "other", "up.p1", "other", "up.p2", "other"]
    tier = RoutedTier([several(3)], "round_robin", pooled=True)
    firsts = [asked(queue_of([tier], CallTraits(), half))[0] for _ in range(4)]
    assert firsts == ["up.p0", "up.p1", "up.p2", "up.p0"]


def test_the_cheapest_target_is_first_and_its_idlest_server() -> None:
    cheap = servers(3, "cheap", price=1.0)
    for target, calls in zip(cheap, (2, 0, 1), strict=True):
        target.load.in_flight = calls
    targets = [Pooled("dear", price=2.0), Pooled("cheap", servers=cheap, price=1.0)]
    tier: Any = RoutedTier(targets, "cheapest", pooled=True)
    assert asked(queue_of([tier], CallTraits(), half)) == ["cheap.p1", "cheap.p2", "cheap.p0", "dear"]


@pytest.mark.parametrize("strategy", ["queue_depth", "prefix_cache"])
def test_queues_of_all_upstreams_are_compared_and_each_has_its_three_servers(strategy: Any) -> None:
    tier: Any = RoutedTier([several(6), several(6, "more")], strategy, pooled=True)
    choice = PodChoice()
    traits = CallTraits(chat=chat("hello"), choice=choice)
    queue = asked(queue_of([tier], traits, half))
    assert [sum(name.startswith(label) for name in queue) for label in ("up.", "more.")] == [3, 3]
    tier = RoutedTier([several(2, weight=0), several(2, "more")], strategy, pooled=True)
    queue = asked(queue_of([tier], traits, half))
    assert [name.partition(".")[0] for name in queue] == ["more", "more", "up", "up"]
    assert choice.how in ("queue", "hash")


def test_affinity_keeps_a_caller_at_one_server() -> None:
    tier: Any = RoutedTier([Pooled("up", servers=servers(3))], "affinity", "key", pooled=True)
    firsts: list[Any] = [queue_of([tier], CallTraits(key=f"k{number}"), half)[0] for number in range(60)]
    assert len({target.pod.address for target in firsts}) == 3
