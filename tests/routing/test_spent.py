"""A target whose provider says that nothing remains is passed over until that is reset."""

from types import SimpleNamespace

import pytest

from sluice.errors import UpstreamError
from sluice.routing.failover import FailoverPlan, RetryBudget
from sluice.routing.health import COOL_DOWN, MAX_COOL_DOWN, Health


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("said", "held"), [(5.0, 5.0), (0.0, COOL_DOWN), (86_400.0, MAX_COOL_DOWN), (float("inf"), MAX_COOL_DOWN)]
)
def test_it_is_ready_again_when_that_is_reset_and_never_later_than_a_minute(said: float, held: float) -> None:
    clock = Clock()
    health = Health(clock)
    health.spent(said)
    assert (health.closed, health.ready(), health.healthy()) == (True, False, False)
    clock.now = 100.0 + held - 0.01
    assert not health.ready()
    clock.now = 100.0 + held
    assert health.ready()


def test_the_answer_that_says_so_is_a_success_and_does_not_end_it() -> None:
    health = Health(Clock())
    health.spent(5.0)
    health.succeeded()
    assert not health.ready()


def test_the_latest_answer_counts() -> None:
    clock = Clock()
    health = Health(clock)
    health.spent(50.0)
    health.spent(2.0)
    clock.now += 2
    assert health.ready()


def test_another_target_is_chosen_and_the_one_that_is_ready_first_where_there_is_none() -> None:
    clock = Clock()
    one, two = (SimpleNamespace(label=name, health=Health(clock)) for name in ("one", "two"))
    one.health.spent(5.0)
    plan = FailoverPlan([one, two], lambda: 0.5, RetryBudget(clock))  # type: ignore[list-item]
    assert plan.choice.target.label == "two"
    assert [passed.label for passed in plan.passed] == ["one"]
    following = plan.failed(UpstreamError("connect_timeout"))
    assert following is not None
    assert following.target.label == "one"  # better than a refusal
    two.health.spent(9.0)
    assert FailoverPlan([two, one], lambda: 0.5, RetryBudget(clock)).choice.target.label == "one"  # type: ignore[list-item]
