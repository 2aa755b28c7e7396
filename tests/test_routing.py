from collections import Counter
from collections.abc import Callable
from itertools import cycle

import pytest

from gateway.errors import UpstreamError, UpstreamErrorKind
from gateway.health import BreakerPolicy, Health
from gateway.routing import Journey, RetryBudget, RetryPolicy, draw


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Target:
    def __init__(self, name: str, weight: float = 1.0, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.name = name
        self.weight = weight
        self.health = Health(clock, BreakerPolicy(failures=1))

    def __repr__(self) -> str:
        return self.name


def chances(*values: float) -> Callable[[], float]:
    return cycle(values).__next__


def journey(*tiers: list[Target], budget: RetryBudget | None = None) -> Journey[Target]:
    return Journey(tiers, chances(0.5), budget or RetryBudget(Clock()), RetryPolicy(backoff=0.1, retry_after_wait=2))


def walk(trip: Journey[Target], *errors: UpstreamError) -> list[tuple[str, float]]:
    """The steps taken when these errors happen one after another."""
    step = trip.first()
    taken = [(step.target.name, step.wait)]
    for error in errors:
        following = trip.failed(error)
        if following is None:
            break
        taken.append((following.target.name, round(following.wait, 3)))
    return taken


def test_weights_decide_who_is_first() -> None:
    import random

    rng = random.Random(7)
    targets = [Target("a", 3), Target("b", 1), Target("never", 0)]
    first = Counter(draw(targets, rng.random)[0].name for _ in range(4000))
    assert first["never"] == 0
    assert 2850 <= first["a"] <= 3150


def test_tiers_are_tried_in_order() -> None:
    trip = journey([Target("a")], [Target("b")], [Target("c")])
    refused = UpstreamError("connect_error")
    assert walk(trip, refused, refused, refused) == [("a", 0), ("b", 0), ("c", 0)]


@pytest.mark.parametrize("kind", ["server_error", "overloaded", "reset"])
def test_the_same_target_is_asked_once_more_after_a_server_error(kind: UpstreamErrorKind) -> None:
    error = UpstreamError(kind)
    assert walk(journey([Target("a")], [Target("b")]), error, error, error, error) == [
        ("a", 0),
        ("a", 0.1),
        ("b", 0),
        ("b", 0.1),
    ]


@pytest.mark.parametrize(
    "kind",
    ["connect_error", "dns_error", "tls_error", "connect_timeout", "headers_timeout", "first_token_timeout", "truncated",
     "garbled", "stream_error", "idle_timeout", "bad_credentials", "not_found"],
)  # fmt: skip
def test_the_next_target_is_asked_at_once_after(kind: UpstreamErrorKind) -> None:
    assert walk(journey([Target("a")], [Target("b")]), UpstreamError(kind)) == [("a", 0), ("b", 0)]


@pytest.mark.parametrize("kind", ["bad_request", "context_length", "content_policy"])
def test_what_the_request_is_to_blame_for_is_told_to_the_caller(kind: UpstreamErrorKind) -> None:
    assert walk(journey([Target("a")], [Target("b")]), UpstreamError(kind)) == [("a", 0)]


@pytest.mark.parametrize(
    ("retry_after", "steps"),
    [(1.5, [("a", 0), ("a", 1.5)]), (2.0, [("a", 0), ("a", 2.0)]), (2.1, [("a", 0), ("b", 0)]), (None, [("a", 0), ("b", 0)])],
)
def test_a_rate_limit_that_ends_soon_is_waited_out(retry_after: float | None, steps: list[tuple[str, float]]) -> None:
    assert walk(journey([Target("a")], [Target("b")]), UpstreamError("rate_limited", retry_after=retry_after)) == steps


def test_targets_that_are_not_well_are_passed_over() -> None:
    clock = Clock()
    ill, well = Target("ill", clock=clock), Target("well", clock=clock)
    ill.health.failed(UpstreamError("server_error"))
    assert walk(journey([ill], [well])) == [("well", 0)]


def test_the_last_target_is_never_ejected() -> None:
    clock = Clock()
    one, two = Target("one", clock=clock), Target("two", clock=clock)
    two.health.failed(UpstreamError("server_error"))
    clock.now = 1
    one.health.failed(UpstreamError("server_error"))
    assert walk(journey([one, two])) == [("two", 0)], "the one that will be well first"


def test_a_burst_fails_over_freely_while_another_target_is_well() -> None:
    budget = RetryBudget(Clock())
    for _ in range(500):
        assert walk(journey([Target("a")], [Target("b")], budget=budget), UpstreamError("connect_error"))[-1] == ("b", 0)


def test_the_budget_bounds_attempts_when_everything_fails() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    attempts = requests = 0
    for _ in range(200 * 10):  # 200 requests a second for 10 seconds
        clock.now += 1 / 200
        requests += 1
        trip = journey([Target("a")], [Target("b")], [Target("c")], budget=budget)
        attempts += len(walk(trip, *[UpstreamError("connect_error")] * 5))
    assert attempts <= 1.2 * requests + 10 * 10 + 11
    assert attempts > requests
