"""The order of an upstream's servers for a call: by their queues, or by the prompt's beginning."""

from collections.abc import Callable
from typing import Any

import pytest

from sluice.model.chat import ChatRequest
from sluice.routing.pod_order import by_prefix, by_queue
from sluice.routing.pods import Figures, Pod, PodChoice, depths
from sluice.routing.prefixes import BLOCK, SeenPrefixes
from tests.routing.servers import LONG, Clock, chat, half, load_of, names, pod


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
