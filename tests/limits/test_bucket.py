"""The arithmetic of a token bucket, in whole numbers."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.limits import Limit
from sluice.limits.bucket import MAX_BACKLOG_TICKS, NEVER, Bucket, moved, rule_of

RATES = st.floats(1e-3, 1e6)
CAPACITIES = st.integers(1, 10**6).map(float)


@given(CAPACITIES, RATES)
def test_the_capacity_fits_once_and_no_more(capacity: float, rate: float) -> None:
    rule = rule_of(Limit(capacity, rate))
    assert rule.cost(capacity) <= rule.capacity < rule.cost(capacity) + rule.one
    assert rule.cost(capacity + 1) == NEVER
    assert rule.cost(0) == 0


@given(CAPACITIES, RATES, st.lists(st.tuples(st.integers(0, 10**7), st.integers(1, 20)), max_size=30))
def test_never_more_is_admitted_than_the_capacity_and_what_was_refilled(
    capacity: float, rate: float, steps: list[tuple[int, int]]
) -> None:
    rule = rule_of(Limit(capacity, rate))
    bucket, now, admitted = Bucket(rule, 0), 0, 0
    for pause, amount in steps:
        now += pause
        bucket.refill(now, now)
        cost = rule.cost(amount)
        if bucket.backlog + cost <= rule.capacity:
            bucket.settle(cost)
            admitted += amount
        assert admitted <= math.floor(Fraction(capacity) + Fraction(rate) * now / 10**6) + 1


def test_a_clock_that_steps_back_neither_gives_nor_takes() -> None:
    rule = rule_of(Limit(10.0, 1.0))
    bucket = Bucket(rule, 1_000_000)
    bucket.settle(rule.cost(5.0))
    before = bucket.backlog
    bucket.refill(0, 0)
    assert bucket.backlog == before
    bucket.refill(3_000_000, 3_000_000)  # refilling goes on from the earlier time
    assert rule.level(bucket.backlog).remaining == pytest.approx(8.0)


def test_a_charge_is_rounded_against_the_caller() -> None:
    rule = rule_of(Limit(10.0, 0.3))
    assert rule.charge(0.1) >= rule.unit * 0.1
    assert rule.charge(-0.1) >= -rule.unit * 0.1
    assert rule.charge(0.1) + rule.charge(-0.1) in (0, 1)


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_cannot_be_charged(amount: float) -> None:
    with pytest.raises(ValueError):
        rule_of(Limit(10.0, 1.0)).charge(amount)


@pytest.mark.parametrize(
    "limit", [Limit(0.0, 1.0), Limit(-1.0, 1.0), Limit(math.nan, 1.0), Limit(1e12, 1e-9)]
)
def test_an_impossible_limit_is_refused(limit: Limit) -> None:
    with pytest.raises(ValueError):
        rule_of(limit)


def test_a_budget_never_refills() -> None:
    rule = rule_of(Limit(10.0, 0.0))
    bucket = Bucket(rule, 0)
    bucket.settle(rule.cost(4.0))
    bucket.refill(10**15, 10**15)
    level = rule.level(bucket.backlog)
    assert (level.remaining, level.reset) == (6.0, math.inf)
    assert rule.wait(1) == math.inf


def test_debt_is_bounded() -> None:
    rule = rule_of(Limit(10.0, 1.0))
    bucket = Bucket(rule, 0)
    for _ in range(100):
        bucket.settle(rule.charge(1e9))
    assert bucket.backlog <= MAX_BACKLOG_TICKS


@given(st.integers(0, 2**50), st.integers(1, 2**41), st.integers(1, 2**41))
def test_moved_ticks_are_never_more(ticks: int, unit: int, to: int) -> None:
    assert Fraction(moved(ticks, unit, to), to) <= Fraction(ticks, unit)
