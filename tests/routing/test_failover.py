"""The failover plan: which target a call is sent to next."""

from collections import Counter
from collections.abc import Callable
from itertools import cycle

import pytest

from sluice.errors import BadRequest, StaleConnection, UpstreamError, UpstreamErrorKind
from sluice.routing.failover import FailoverPlan, RetryBudget, RetryPolicy
from sluice.routing.strategies import CallTraits
from tests.routing.targets import Clock, Target, names, queue


def chances(*values: float) -> Callable[[], float]:
    return cycle(values).__next__


def plan_of(*tiers: list[Target], budget: RetryBudget | None = None) -> FailoverPlan[Target]:
    policy = RetryPolicy(backoff=0.1, retry_after_wait=2)
    budget = budget or RetryBudget(Clock())
    budget.request()
    return FailoverPlan(queue(*tiers), chances(0.5), budget, policy)


def walk(plan: FailoverPlan[Target], *errors: UpstreamError) -> list[tuple[str, float]]:
    """The steps taken when these errors happen one after another."""
    step = plan.choice
    taken = [(step.target.name, step.wait)]
    for error in errors:
        following = plan.failed(error)
        if following is None:
            break
        taken.append((following.target.name, round(following.wait, 3)))
    return taken


def test_tiers_are_tried_in_order() -> None:
    plan = plan_of([Target("a")], [Target("b")], [Target("c")])
    refused = UpstreamError("connect_error")
    assert walk(plan, refused, refused, refused) == [("a", 0), ("b", 0), ("c", 0)]


@pytest.mark.parametrize("kind", ["server_error", "overloaded", "reset"])
def test_the_same_target_is_asked_once_more_after_a_server_error(kind: UpstreamErrorKind) -> None:
    error = UpstreamError(kind)
    assert walk(plan_of([Target("a")], [Target("b")]), error, error, error, error) == [
        ("a", 0),
        ("a", 0.1),
        ("b", 0),
        ("b", 0.1),
    ]


def test_a_stale_connection_is_replaced_at_once_and_once() -> None:
    stale = StaleConnection("idle")
    assert walk(plan_of([Target("a")], [Target("b")]), stale, stale) == [("a", 0), ("a", 0), ("b", 0)]


def test_a_stale_connection_is_not_replaced_where_the_same_target_is_not_to_be_asked_twice() -> None:
    budget = RetryBudget(Clock())
    plan = FailoverPlan(queue([Target("a")], [Target("b")]), chances(0.5), budget, RetryPolicy(same_target=0))
    assert walk(plan, StaleConnection("idle")) == [("a", 0), ("b", 0)]


@pytest.mark.parametrize(
    "kind",
    ["connect_error", "dns_error", "tls_error", "connect_timeout", "headers_timeout", "first_token_timeout", "truncated",
     "garbled", "stream_error", "idle_timeout", "bad_credentials", "billing", "not_found"],
)  # fmt: skip
def test_the_next_target_is_asked_at_once_after(kind: UpstreamErrorKind) -> None:
    assert walk(plan_of([Target("a")], [Target("b")]), UpstreamError(kind)) == [("a", 0), ("b", 0)]


@pytest.mark.parametrize("kind", ["bad_request", "content_policy"])
def test_what_the_request_is_to_blame_for_is_told_to_the_caller(kind: UpstreamErrorKind) -> None:
    assert walk(plan_of([Target("a")], [Target("b")]), UpstreamError(kind)) == [("a", 0)]


@pytest.mark.parametrize(
    ("retry_after", "steps"),
    [
        (1.5, [("a", 0), ("a", 1.5)]),
        (2.0, [("a", 0), ("a", 2.0)]),
        (2.1, [("a", 0), ("b", 0)]),
        (None, [("a", 0), ("b", 0)]),
    ],
)
def test_a_rate_limit_that_ends_soon_is_waited_out(
    retry_after: float | None, steps: list[tuple[str, float]]
) -> None:
    assert (
        walk(plan_of([Target("a")], [Target("b")]), UpstreamError("rate_limited", retry_after=retry_after))
        == steps
    )


@pytest.mark.parametrize(
    ("retry_after", "steps"),
    [(1.5, [("a", 0), ("a", 1.5)]), (30.0, [("a", 0), ("b", 0)]), (None, [("a", 0), ("a", 0.1)])],
)
def test_an_overloaded_target_that_says_for_how_long_is_believed(
    retry_after: float | None, steps: list[tuple[str, float]]
) -> None:
    assert (
        walk(plan_of([Target("a")], [Target("b")]), UpstreamError("overloaded", retry_after=retry_after))
        == steps
    )


def test_targets_that_are_not_well_are_passed_over() -> None:
    clock = Clock()
    ill, well = Target("ill", clock=clock), Target("well", clock=clock)
    ill.health.failed(UpstreamError("server_error"))
    assert walk(plan_of([ill], [well])) == [("well", 0)]


def test_the_last_target_is_never_ejected() -> None:
    clock = Clock()
    one, two = Target("one", clock=clock), Target("two", clock=clock)
    two.health.failed(UpstreamError("server_error"))
    clock.now = 1
    one.health.failed(UpstreamError("server_error"))
    assert walk(plan_of([one, two])) == [("two", 0)], "the one that will be well first"


def test_a_burst_fails_over_freely_while_another_target_is_well() -> None:
    budget = RetryBudget(Clock())
    for _ in range(500):
        assert walk(plan_of([Target("a")], [Target("b")], budget=budget), UpstreamError("connect_error"))[
            -1
        ] == ("b", 0)


def test_retries_at_a_sick_target_leave_the_way_to_a_well_one_free() -> None:
    budget = RetryBudget(Clock())
    plans = [plan_of([Target("a")], [Target("b")], [Target("c")], budget=budget) for _ in range(100)]
    for wanted in ("a", "b"):
        steps = [plan.failed(UpstreamError("server_error")) for plan in plans]
        assert Counter(step.target.name for step in steps if step) == {wanted: 100}


def test_the_budget_bounds_attempts_when_everything_fails() -> None:
    clock = Clock()
    budget = RetryBudget(clock)
    attempts = requests = 0
    targets = [Target("a"), Target("b"), Target("c")]
    for target in targets:
        target.health.failed(UpstreamError("connect_error"))
    for _ in range(200 * 10):  # 200 requests a second for 10 seconds
        clock.now += 1 / 200
        requests += 1
        plan = plan_of(*([target] for target in targets), budget=budget)
        attempts += len(walk(plan, *[UpstreamError("connect_error")] * 5))
    assert attempts <= 1.2 * requests + 10 * 10
    assert attempts > requests


@pytest.mark.parametrize(
    ("traits", "left"),
    [
        (CallTraits(vision=True), ["all"]),
        (CallTraits(tools=True), ["all", "blind"]),
        (CallTraits(tokens=5000), ["all", "blind", "toolless"]),
        (CallTraits(), ["all", "blind", "toolless", "small"]),
    ],
)
def test_only_targets_that_can_take_the_call_are_asked(traits: CallTraits, left: list[str]) -> None:
    tiers = [
        [Target("all")],
        [Target("blind", vision=False)],
        [Target("toolless", vision=False, tools=False)],
        [Target("small", vision=False, tools=False, context=4096)],
    ]
    assert names(queue(*tiers, traits=traits)) == left


def test_a_request_that_no_target_can_take_is_refused_with_the_reason() -> None:
    with pytest.raises(BadRequest, match="takes no images"):
        queue([Target("blind", vision=False)], traits=CallTraits(vision=True))


def test_a_request_that_is_too_long_goes_to_a_larger_context_only() -> None:
    plan = plan_of(
        [Target("small", context=8000)], [Target("same", context=8000)], [Target("large", context=100_000)]
    )
    assert walk(plan, UpstreamError("context_length")) == [("small", 0), ("large", 0)]


def test_a_request_that_is_too_long_goes_to_a_context_that_nobody_has_told() -> None:
    errors = [UpstreamError("context_length"), UpstreamError("context_length")]
    plan = plan_of(
        [Target("small", context=8000)], [Target("same", context=8000)], [Target("untold")], [Target("too")]
    )
    assert walk(plan, *errors) == [("small", 0), ("untold", 0), ("too", 0)]
    assert walk(plan_of([Target("untold")], [Target("small", context=8000)]), *errors) == [
        ("untold", 0),
        ("small", 0),
    ]


@pytest.mark.parametrize(
    ("tokens", "window", "code"),
    [(900, 100, "context_length"), (50, 100, "no_fit_target"), (900, None, "no_fit_target")],
)
def test_a_request_that_is_too_long_for_all_is_refused_as_such(
    tokens: int, window: int | None, code: str
) -> None:
    sees = window is not None and code == "context_length"
    tiers = [[Target("blind", vision=False)], [Target("small", vision=sees, context=window)]]
    with pytest.raises(BadRequest) as refused:
        queue(*tiers, traits=CallTraits(vision=True, tokens=tokens))
    assert refused.value.code == code


def test_a_refusal_by_policy_is_passed_on_unless_the_alias_says_otherwise() -> None:
    policy = RetryPolicy(after_content_policy=True)
    plan = FailoverPlan(queue([Target("a")], [Target("b")]), chances(0.5), RetryBudget(Clock()), policy)
    assert walk(plan, UpstreamError("content_policy")) == [("a", 0), ("b", 0)]
