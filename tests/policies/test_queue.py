"""Whose turn it is in a fair queue: pure, any sequence of those who come, go and are served."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.policies.queue import FairQueue

FAST = settings(deadline=None, database=None, max_examples=150)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 3.0}
keys = st.sampled_from(sorted(WEIGHTS))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("join"), keys, st.integers(0, 0)),
        st.tuples(st.just("join"), keys, st.integers(0, 0)),
        st.tuples(st.just("serve"), st.just(""), st.integers(0, 3)),
        st.tuples(st.just("leave"), st.just(""), st.integers(0, 20)),
    ),
    max_size=80,
)


@FAST
@given(steps)
def test_nobody_is_lost_and_a_key_is_served_in_its_order(sequence: list[tuple[str, str, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: dict[str, list[int]] = {key: [] for key in WEIGHTS}
    for number, (step, key, choice) in enumerate(sequence):
        lines = queue.lines()
        assert len(queue) == sum(map(len, waiting.values()))
        assert {line.key: list(line.items) for line in lines} == {
            key: items for key, items in waiting.items() if items
        }
        if step == "join":
            queue.join(key, WEIGHTS[key], number)
            waiting[key].append(number)
        elif step == "serve" and lines:
            line = lines[choice % len(lines)]  # heads may be passed over
            assert queue.serve(line) == waiting[line.key].pop(0)
        elif step == "leave" and lines:
            line = lines[choice % len(lines)]
            item = line.items[choice % len(line.items)]
            queue.leave(line, item)
            waiting[line.key].remove(item)


@FAST
@given(st.lists(keys, max_size=30), st.integers(2, 60))
def test_keys_that_always_have_someone_waiting_are_served_by_their_weights(
    before: list[str], rounds: int
) -> None:
    queue: FairQueue[int] = FairQueue()
    for key in (*before, *WEIGHTS):
        queue.join(key, WEIGHTS[key], 0)
    served: Counter[str] = Counter()
    for _ in range(rounds):
        line = queue.lines()[0]
        queue.join(line.key, line.weight, 0)
        queue.serve(line)
        served[line.key] += 1
        for one in WEIGHTS:
            for other in WEIGHTS:
                apart = served[one] / WEIGHTS[one] - served[other] / WEIGHTS[other]
                assert abs(apart) <= 1 / WEIGHTS[one] + 1 / WEIGHTS[other] + 1e-9  # Golestani's bound


@FAST
@given(st.integers(1, 200), st.integers(0, 50))
def test_a_flood_of_one_key_keeps_nobody_else_waiting(flood: int, served: int) -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(flood):
        queue.join("flood", 1.0, "flood")
    for _ in range(min(served, flood - 1)):
        queue.serve(queue.lines()[0])
    queue.join("other", 1.0, "other")
    order = [queue.serve(queue.lines()[0]) for _ in range(min(2, len(queue)))]
    assert "other" in order


def test_a_line_that_was_passed_over_gets_no_more_than_its_share_afterwards() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(20):
        queue.join("passed over", 1.0, "p")
        queue.join("other", 1.0, "o")
    for _ in range(10):
        queue.serve(next(line for line in queue.lines() if line.key == "other"))
    order = "".join(queue.serve(queue.lines()[0]) for _ in range(8))
    assert abs(order.count("p") - order.count("o")) <= 2


def test_who_comes_back_to_an_empty_queue_begins_anew() -> None:
    queue: FairQueue[int] = FairQueue()
    for _ in range(50):
        queue.serve(queue.join("a", 1.0, 0))
    queue.join("a", 1.0, 1)
    queue.join("b", 1.0, 2)
    assert [line.key for line in queue.lines()] == ["a", "b"]


def test_the_end_users_of_a_key_share_its_part_in_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(4):
        queue.join("one", 1.0, "one")
        for user in ("ann", "bob") if number else ("ann", "ann", "ann", "bob"):
            queue.join("many", 1.0, user, user)
    served = [queue.serve(queue.lines()[0]) for _ in range(8)]
    assert served == ["one", "ann", "one", "bob", "one", "ann", "one", "bob"]
    while queue:
        queue.serve(queue.lines()[0])
    assert queue.lines() == []
