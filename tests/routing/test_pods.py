"""Servers of an upstream that is several: what is read of their metrics, and which of them a call goes to."""

from collections.abc import Callable, Sequence
from itertools import groupby
from random import Random
from typing import Any

import pytest

from sluice.config.types import Target as Spec
from sluice.errors import UpstreamError
from sluice.model.chat import ChatRequest, Message, Text, Tool
from sluice.routing.failover import queue_of
from sluice.routing.health import BreakerPolicy, BreakerState, Load
from sluice.routing.pod_order import by_prefix, by_queue
from sluice.routing.pods import Figures, Pod, PodChoice, depths, figures_in
from sluice.routing.pooled import PooledHealth, PooledLoad
from sluice.routing.prefixes import BLOCK, BLOCKS, SeenPrefixes, blocks_of, root_of
from sluice.routing.strategies import PODS_TRIED, CallTraits, RoutedTier

VLLM = """# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="org/a} b"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 9.0
vllm:num_requests_running{engine="0",model_name="org/a} b"} 12.0
vllm:kv_cache_usage_perc{engine="0",model_name="org/a} b"} 0.25
"""
SGLANG = """sglang:num_running_reqs{model_name="m"} 7.0
sglang:num_queue_reqs{model_name="m"} 2.0
sglang:token_usage{model_name="m"} 0.5
"""


@pytest.mark.parametrize(("body", "figures"), [
    (VLLM, Figures(3, 12, 0.25)),
    (VLLM.replace("kv_cache", "gpu_cache"), Figures(3, 12, 0.25)),
    (VLLM + VLLM.replace('engine="0"', 'engine="1"').replace("0.25", "0.75"), Figures(6, 24, 0.75)),
    (VLLM.replace("\n", "\r\n"), Figures(3, 12, 0.25)),
    (VLLM.replace("3.0", "3.0 1700000000000"), Figures(3, 12, 0.25)),
    (SGLANG, Figures(2, 7, 0.5)),
    ("vllm:num_requests_waiting 1\nvllm:num_requests_running 2", Figures(1, 2)),
    ("vllm:num_requests_waiting 1\nvllm:num_requests_running 2\nvllm:kv_cache_usage_perc 7", Figures(1, 2)),
    ("", None),
    ("<html>not found</html>", None),
    ("vllm:num_requests_waiting 1\n", None),
    ("vllm:num_requests_waiting NaN\nvllm:num_requests_running 2", None),
    ("vllm:num_requests_waiting -1\nvllm:num_requests_running 2", None),
    ("vllm:num_requests_waiting +Inf\nvllm:num_requests_running 2", None),
    ("vllm:num_requests_waiting 1e300\nvllm:num_requests_running 2", None),
    ('vllm:num_requests_waiting{a="\nvllm:num_requests_running', None),
])  # fmt: skip
def test_figures_of_metrics(body: str, figures: Figures | None) -> None:
    assert figures_in(body.encode()) == figures


def test_metrics_cut_anywhere_give_figures_or_none() -> None:
    whole = VLLM.encode()
    for end in range(len(whole)):
        found = figures_in(whole[:end])
        assert found is None or (found.waiting == 3 and found.running in (1, 12))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pod(
    name: str, waiting: float = 0, running: float = 0, cache: float = 0.0, *, clock: Clock, ours: int = 0
) -> Pod:
    """A server with fresh figures, and so many calls of ours in flight."""
    made = Pod(name, clock, 3.0)
    made.reported(Figures(waiting, running, cache), clock.now, 0)
    made.loads = {"m": load_of(ours)}
    return made


def load_of(calls: int) -> Load:
    load = Load()
    load.in_flight = calls
    return load


def names(pods: Sequence[Pod], order: Sequence[int]) -> str:
    return "".join(pods[at].address for at in order)


def half() -> float:
    return 0.5


@pytest.mark.parametrize(("reported", "order"), [
    ([(5, 9), (0, 9), (2, 1)], "bca"),  # the shortest queue
    ([(0, 9), (0, 2), (0, 5)], "bca"),  # no queue: the fewest running
    ([(0, 100), (1, 2)], "ab"),  # a large server without a queue before a small one with one
    ([(0, 2, 0.6), (0, 2, 0.1)], "ba"),  # the emptier cache
    ([(0, 2, 0.96), (0, 9, 0.1)], "ba"),  # what is sent to a full cache has to wait, once anything is
])  # fmt: skip
def test_the_shortest_queue_is_first(reported: list[tuple[float, ...]], order: str) -> None:
    clock = Clock()
    pods = [pod(name, *figures, clock=clock) for name, figures in zip("abc", reported, strict=False)]
    for one in pods:
        one.begun = 1 if one.figures and one.figures.cache >= 0.95 else 0
    assert names(pods, by_queue(pods, half)) == order


def test_equal_queues_are_drawn_by_chance() -> None:
    clock = Clock()
    pods = [pod(name, clock=clock) for name in "abc"]
    values = iter([0.9, 0.1, 0.5])
    assert names(pods, by_queue(pods, values.__next__)) == "bca"


def test_stale_figures_are_ignored() -> None:
    clock = Clock()
    old = pod("a", clock=clock)
    clock.now += 4
    fresh = pod("b", 9, 9, clock=clock)
    choice = PodChoice()
    assert names([old, fresh], by_queue([old, fresh], half, choice)) == "ba"
    assert choice.how == "queue"


def test_without_any_figures_the_calls_in_flight_decide() -> None:
    clock = Clock()
    pods = [Pod(name, clock, 3.0) for name in "abc"]
    for one, calls in zip(pods, (2, 0, 1), strict=True):
        one.loads = {"m": load_of(calls)}
    choice = PodChoice()
    assert names(pods, by_queue(pods, half, choice)) == "bca"
    assert choice.how == "in_flight"


def test_calls_sent_since_the_figures_count() -> None:
    """Else all calls until the next figures would go to one server."""
    clock = Clock()
    pods = [pod(name, running=running, clock=clock) for name, running in (("a", 10), ("b", 12), ("c", 14))]
    sent = ""
    for _ in range(12):
        first = by_queue(pods, half)[0]
        pods[first].begun += 1
        sent += pods[first].address
    assert {name: sent.count(name) for name in "abc"} == {"a": 6, "b": 4, "c": 2}


def test_what_other_gateways_send_is_assumed_to_be_as_what_we_send() -> None:
    clock = Clock()
    alone = [pod("a", running=10, clock=clock, ours=10), pod("b", running=14, clock=clock, ours=14)]
    alone[0].begun = 3
    assert names(alone, by_queue(alone, half)) == "ab"
    one_of_ten = [pod("a", running=10, clock=clock, ours=1), pod("b", running=14, clock=clock, ours=1)]
    one_of_ten[0].begun = 1
    assert names(one_of_ten, by_queue(one_of_ten, half)) == "ba"
    assert depths(one_of_ten)[0].all == pytest.approx(10 + 12)


# --- prefixes


def chat(*texts: str, system: str = "", tools: tuple[Tool, ...] = ()) -> ChatRequest:
    """A conversation: texts of the user and the assistant in turns."""
    roles: Any = ["user", "assistant"] * len(texts)
    messages = [Message(role, (Text(text),)) for role, text in zip(roles, texts, strict=False)]
    if system:
        messages.insert(0, Message("system", (Text(system),)))
    return ChatRequest("", None, tuple(messages), tools=tools)


LONG = "".join(f"sentence {number}. " for number in range(400))


def test_equal_beginnings_have_equal_blocks() -> None:
    one, other = blocks_of(chat(LONG + "x"), "m"), blocks_of(chat(LONG + "y", "an answer", "z"), "m")
    same = sum(a == b for a, b in zip(one, other, strict=False))
    assert same == len(LONG) // BLOCK
    assert one[:same] == other[:same]
    assert not set(one) & set(blocks_of(chat(LONG + "x"), "another model"))
    assert not set(one) & set(blocks_of(chat(LONG + "x", tools=(Tool("look_up"),)), "m"))


def test_blocks_are_bounded_and_never_none() -> None:
    assert len(blocks_of(chat("x" * (BLOCK * BLOCKS * 3)), "m")) == BLOCKS
    assert len(blocks_of(chat("short"), "m")) == 1
    assert len(blocks_of(chat("\ud800" * 300), "m")) == 1


def test_a_conversation_keeps_its_root() -> None:
    first = root_of(chat("hello", system="be brief"), "m")
    assert root_of(chat("hello", "hi", "and now?", system="be brief"), "m") == first
    assert root_of(chat("hallo", system="be brief"), "m") != first


def test_seen_prefixes_are_bounded_and_forget_the_oldest_from_their_ends() -> None:
    seen = SeenPrefixes(5)
    one, two = [b"a1", b"a2", b"a3"], [b"b1", b"b2", b"b3"]
    seen.add(one)
    seen.add(two)
    assert len(seen) == 5
    assert (seen.matched(one), seen.matched(two)) == (2, 3)


class CountedBlock(bytes):
    """A block's digest that counts how often it was looked up."""

    looked_up = 0

    def __hash__(self) -> int:
        CountedBlock.looked_up += 1
        return super().__hash__()


def test_the_longest_prefix_is_found_without_a_look_at_each_block() -> None:
    blocks: list[bytes] = [CountedBlock(b"%d" % number) for number in range(BLOCKS)]
    seen = SeenPrefixes()
    for length in (0, 1, 100, 255, 256, BLOCKS):
        seen.add(blocks[:length])
        CountedBlock.looked_up = 0
        assert seen.matched(blocks) == length
        assert CountedBlock.looked_up <= 12


def test_a_block_is_forgotten_before_those_in_front_of_it() -> None:
    """Else the longest prefix could not be searched for in halves."""
    dice = Random(7)
    prompts = [[b"%d" % dice.randrange(3)] for _ in range(6)]
    for prompt in prompts:
        for _ in range(dice.randrange(12)):
            prompt.append(prompt[-1] + b"/%d" % dice.randrange(2))
    seen = SeenPrefixes(20)
    for _ in range(500):
        seen.add(dice.choice(prompts))
        for prompt in prompts:
            known = [block in seen._blocks for block in prompt]
            assert known == sorted(known, reverse=True)
            assert seen.matched(prompt) == sum(known)


def choose(
    pods: list[Pod], asked: ChatRequest, *, ready: Callable[[int], bool] = lambda at: True, **more: Any
) -> tuple[str, str]:
    choice = PodChoice()
    order = by_prefix(pods, ready, asked, model="m", chance=half, choice=choice, **more)
    return names(pods, order), choice.how


def test_a_prompt_goes_where_most_of_it_was_sent_before() -> None:
    clock = Clock()
    pods = [pod(name, clock=clock) for name in "abcd"]
    first, how = choose(pods, chat(LONG + "what is it about?"))
    assert how == "hash"
    for question in ("who wrote it?", "when?", "is it long?"):
        order, how = choose(pods, chat(LONG + question))
        assert (order[0], how) == (first[0], "prefix")


def test_all_turns_of_a_conversation_go_to_one_server_in_every_process() -> None:
    """What one process has seen another has not: the beginning decides there, to the same end."""
    clock = Clock()
    turn = chat("hello", system="be brief")
    later = chat("hello", "hi", "and now?", system="be brief")
    first, _ = choose([pod(name, clock=clock) for name in "abcd"], turn)
    elsewhere, how = choose([pod(name, clock=clock) for name in "abcd"], later)
    assert (elsewhere[0], how) == (first[0], "hash")
    by_session = {
        choose([pod(name, clock=clock) for name in "abcd"], chat(text), session="t/1")[0][0]
        for text in "uvwxyz"
    }
    assert len(by_session) == 1


def test_conversations_are_spread_though_their_system_prompt_is_one() -> None:
    clock = Clock()
    pods = [pod(name, clock=clock) for name in "abcd"]
    system = "x" * 2 * BLOCK
    firsts = [choose(pods, chat(f"question {number} " + LONG, system=system))[0][0] for number in range(200)]
    assert all(30 <= firsts.count(name) <= 70 for name in "abcd"), firsts


def test_a_busy_server_gives_its_prompts_to_others_and_they_stay_there() -> None:
    clock = Clock()
    pods = [pod(name, clock=clock) for name in "abcd"]
    asked = chat(LONG)
    first, _ = choose(pods, asked)
    busy = pods["abcd".index(first[0])]
    busy.reported(Figures(6, 40), clock.now, 0)
    second, how = choose(pods, asked)
    assert how == "load"
    assert second[0] != first[0]
    assert second[-1] == first[0], "it is the last resort"
    busy.reported(Figures(0, 0), clock.now, 0)
    order, how = choose(pods, asked)
    assert how == "prefix"
    assert {*order[:2]} == {first[0], second[0]}


def test_a_few_requests_never_make_a_server_busy() -> None:
    clock = Clock()
    pods = [pod(name, clock=clock) for name in "abcd"]
    first, _ = choose(pods, chat(LONG))
    pods["abcd".index(first[0])].reported(Figures(0, 8), clock.now, 0)
    assert choose(pods, chat(LONG)) == (first, "prefix")


def test_without_figures_prefixes_hold_all_the_same() -> None:
    clock = Clock()
    pods = [Pod(name, clock, 3.0) for name in "abcd"]
    first, _ = choose(pods, chat(LONG))
    assert choose(pods, chat(LONG)) == (first, "prefix")


def test_a_server_that_appears_or_vanishes_moves_only_what_it_must() -> None:
    clock = Clock()

    def firsts(of: str) -> list[str]:
        return [
            choose([pod(name, clock=clock) for name in of], chat(f"question {n}"))[0][0] for n in range(300)
        ]

    before, with_e, without_d = firsts("abcd"), firsts("abcde"), firsts("abc")
    assert all(new in (old, "e") for old, new in zip(before, with_e, strict=True))
    assert all(new == old for old, new in zip(before, without_d, strict=True) if old != "d")


def test_the_one_that_is_asked_remembers_the_prompt() -> None:
    clock = Clock()
    pods = [pod(name, clock=clock) for name in "ab"]
    first, _ = choose(pods, chat(LONG))
    chosen = "ab".index(first[0])
    pods[chosen].seen = SeenPrefixes()
    _, how = choose(pods, chat(LONG), ready=lambda at: at != chosen)
    assert how == "load"
    assert not len(pods[chosen].seen)
    assert len(pods[1 - chosen].seen)


# --- in a tier


class Target:
    """A target of one server, or of an upstream that is several."""

    def __init__(
        self,
        label: str,
        at: Pod | None = None,
        *,
        servers: "Sequence[Target] | None" = None,
        weight: float = 1.0,
        price: float | None = None,
    ) -> None:
        self.label, self.model = label, "m"
        self.pod = at
        self.spec = Spec(upstream=label, model="m", weight=weight, price=price)
        self.health = PooledHealth(lambda: 0.0, BreakerPolicy(failures=1))
        self.load = Load()
        self.pods = (lambda _: servers) if servers is not None else None


def servers(count: int, label: str = "up", **spec: Any) -> list[Target]:
    clock = Clock()
    return [Target(label, pod(f"p{number}", running=number, clock=clock), **spec) for number in range(count)]


def several(count: int, label: str = "up", **spec: Any) -> Target:
    return Target(label, servers=servers(count, label, **spec), **spec)


def asked(queue: Sequence[Any]) -> list[str]:
    return [f"{t.label}.{t.pod.address}" if t.pod is not None else t.label for t in queue]


def test_a_tier_tries_three_servers_at_most_the_healthy_ones_first() -> None:
    found = servers(6)
    found[0].health.failed(UpstreamError("server_error"))
    tier: Any = RoutedTier([Target("up", servers=found)], "queue_depth", pooled=True)
    queue: list[Any] = queue_of([tier], CallTraits(), half)
    assert [target.pod.address for target in queue] == ["p1", "p2", "p3"]
    for target in found:
        target.health.failed(UpstreamError("server_error"))
    assert len(queue_of([tier], CallTraits(), half)) == PODS_TRIED


@pytest.mark.parametrize(
    "strategy", ["queue_depth", "prefix_cache", "weighted", "affinity", "least_in_flight"]
)
def test_every_strategy_orders_servers_and_an_upstream_whose_servers_are_not_known(strategy: Any) -> None:
    several, unknown = Target("up", servers=servers(2)), Target("other")
    for targets, count in (([several], 2), ([several, unknown], 3), ([unknown], 1)):
        tier: Any = RoutedTier(targets, strategy, "key", pooled=True)
        traits = CallTraits(key="k", chat=chat("hello"))
        assert len(queue_of([tier], traits, half)) == count


def test_a_target_has_its_weight_however_many_servers_it_has() -> None:
    tier: Any = RoutedTier([several(8), Target("other")], "weighted", pooled=True)
    chance = Random(1).random
    firsts = [asked(queue_of([tier], CallTraits(), chance))[0] for _ in range(600)]
    assert 240 <= firsts.count("other") <= 360
    assert len(set(firsts)) == 9


@pytest.mark.parametrize("strategy", ["weighted", "round_robin", "least_in_flight", "cheapest", "affinity"])
def test_no_target_is_left_out_because_another_has_many_servers(strategy: Any) -> None:
    targets = [several(8), Target("other"), several(4, "more")]
    tier: Any = RoutedTier(targets, strategy, "key", pooled=True)
    for number in range(20):
        queue = asked(queue_of([tier], CallTraits(key=f"k{number}"), Random(number).random))
        by_target = [label for label, _ in groupby(name.partition(".")[0] for name in queue)]
        assert sorted(by_target) == ["more", "other", "up"], "the servers of a target stand together"
        assert len(queue) == 2 * PODS_TRIED + 1


def test_a_target_of_weight_0_comes_behind_all_servers_of_the_others() -> None:
    for strategy in ("weighted", "round_robin", "least_in_flight", "lowest_ttft", "cheapest"):
        tier: Any = RoutedTier([Target("other", weight=0), several(5)], strategy, pooled=True)
        assert asked(queue_of([tier], CallTraits(), half))[-1] == "other"
        tier = RoutedTier([several(5, weight=0), Target("other")], strategy, pooled=True)
        assert asked(queue_of([tier], CallTraits(), half))[0] == "other"


def test_targets_of_several_servers_take_turns_and_so_do_the_servers_of_each() -> None:
    tier: Any = RoutedTier([several(3), Target("other")], "round_robin", pooled=True)
    firsts = [asked(queue_of([tier], CallTraits(), half))[0] for _ in range(6)]
    assert firsts == ["up.p0", "other", "up.p1", "other", "up.p2", "other"]
    tier = RoutedTier([several(3)], "round_robin", pooled=True)
    firsts = [asked(queue_of([tier], CallTraits(), half))[0] for _ in range(4)]
    assert firsts == ["up.p0", "up.p1", "up.p2", "up.p0"]


def test_the_cheapest_target_is_first_and_its_idlest_server() -> None:
    cheap = servers(3, "cheap", price=1.0)
    for target, calls in zip(cheap, (2, 0, 1), strict=True):
        target.load.in_flight = calls
    targets = [Target("dear", price=2.0), Target("cheap", servers=cheap, price=1.0)]
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
    tier: Any = RoutedTier([Target("up", servers=servers(3))], "affinity", "key", pooled=True)
    firsts: list[Any] = [queue_of([tier], CallTraits(key=f"k{number}"), half)[0] for number in range(60)]
    assert len({target.pod.address for target in firsts}) == 3


# --- health and load of the whole


def test_the_whole_is_as_healthy_as_its_healthiest_server() -> None:
    gone = list[str]()
    health = PooledHealth(lambda: 0.0, BreakerPolicy(failures=1), server_gone=gone.append)
    assert (health.closed, health.state, health.ready()) == (True, BreakerState.CLOSED, True)
    one, other = health.of("a"), health.of("b")
    assert health.of("a") is one
    one.failed(UpstreamError("server_error"))
    assert (health.closed, health.state, health.last_error) == (True, BreakerState.CLOSED, "server_error")
    other.failed(UpstreamError("reset"))
    assert (health.closed, health.state, health.ready(), health.last_error) == (
        False,
        BreakerState.OPEN,
        False,
        "reset",
    )
    health.keep(["b"])
    assert gone == ["a"]
    other.succeeded()
    assert health.closed


def test_the_load_of_the_whole_is_that_of_all() -> None:
    load = PooledLoad()
    load.in_flight += 1
    one, other = load.of("a"), load.of("b")
    one.in_flight += 2
    other.in_flight += 3
    load.in_flight += 1
    assert load.in_flight == 7
    load.in_flight -= 2
    assert (load.in_flight, one.in_flight) == (5, 2)
    for _ in range(20):
        one.observe(0.5)
    assert (load.first_token, other.p95()) == (0.5, 0.5)
    load.keep([])
    assert load.in_flight == 0
