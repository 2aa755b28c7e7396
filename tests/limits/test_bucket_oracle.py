"""Any sequence of takes, settlings and passing time, against exact arithmetic."""

import asyncio
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.limits import Claim, Limit
from gateway.limits.bucket import rule_of
from gateway.limits.memory import MemoryStore
from tests.limits.stores import STEP, Lab, Oracle, lab
from tests.servers import RedisServer

FAST = settings(deadline=None, database=None, max_examples=60, suppress_health_check=list(HealthCheck))

# limits whose unit is a whole number of ticks: nothing is rounded, so the oracle must agree to the last digit
EXACT = {
    "a": Limit(capacity=1, rate=1),
    "b": Limit(capacity=10, rate=2.5),
    "c": Limit(capacity=2.5, rate=1000),
    "d": Limit(capacity=1_000_000, rate=0.0625),
    "e": Limit(capacity=40, rate=1 << 20),
}
eighths = st.integers(0, 96).map(lambda n: n / 8)
signed = st.integers(-160, 400).map(lambda n: n / 8)


def some_claims(amounts: st.SearchStrategy[float]) -> st.SearchStrategy[list[Claim]]:
    claim = st.builds(lambda key, amount: Claim(key, EXACT[key], amount), st.sampled_from(sorted(EXACT)), amounts)
    return st.lists(claim, max_size=5)


steps = st.one_of(
    st.tuples(st.just("take"), some_claims(eighths)),
    st.tuples(st.just("take"), some_claims(eighths)),
    st.tuples(st.just("settle"), some_claims(signed)),
    st.tuples(st.just("advance"), st.one_of(st.integers(0, 200), st.integers(-460_800, 460_800))),
)


async def agrees(at: Lab, oracle: Oracle, sequence: list[tuple[str, Any]]) -> None:
    for step, operand in sequence:
        now = Fraction(at.steps, 64)
        match step:
            case "advance":
                at.steps += operand
            case "settle":
                await at.store.settle(operand)
                oracle.settle(operand, now)
            case "take":
                verdict, expected = await at.store.take(operand), oracle.take(operand, now)
                assert verdict.admitted is expected.admitted
                assert [Fraction(level.remaining) for level in verdict.levels] == expected.remaining
                if not verdict.admitted:
                    wait = math.inf if expected.wait is None else math.ceil(expected.wait * 1_000_000)
                    assert verdict.retry_after == wait / 1_000_000


@FAST
@given(st.lists(steps, max_size=40))
def test_memory_agrees_with_the_oracle(sequence: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        async with lab(None) as at:
            await agrees(at, Oracle(), sequence)

    asyncio.run(run())


@FAST
@given(sequence=st.lists(steps, max_size=40))
def test_redis_agrees_with_the_oracle(redis: RedisServer, sequence: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        async with lab(redis) as at:
            await agrees(at, Oracle(writes_only=True), sequence)

    asyncio.run(run())


capacities = st.one_of(st.integers(1, 50), st.integers(1, 10**9), st.integers(4, 400).map(lambda n: n / 4))
per_minute, per_day = st.integers(1, 10**6).map(lambda n: n / 60), st.integers(1, 10**5).map(lambda n: n / 86_400)
rates = st.one_of(st.floats(0.01, 1e6, allow_subnormal=False), per_minute, per_day)
limits = st.builds(Limit, capacities.map(float), rates).filter(lambda limit: limit.capacity / limit.rate < 1e9)
asks = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 8)), max_size=60)


def gaps_in(limit: Limit, asked: list[tuple[float, int]]) -> list[tuple[float, float]]:
    """(gap in seconds, amount): gaps about the time that the amount takes to refill."""
    return [
        (gap * amount * max(1, limit.capacity / 50) / limit.rate, amount * max(1, limit.capacity // 50))
        for gap, amount in asked
    ]


def no_window_admits_too_much(limit: Limit, admitted: list[tuple[Fraction, float]]) -> None:
    for first in range(len(admitted)):
        total = Fraction(0)
        for at, amount in admitted[first:]:
            total += Fraction(amount)
            assert total <= Fraction(limit.capacity) + Fraction(limit.rate) * (at - admitted[first][0])


@FAST
@given(limits, asks, st.floats(0, 1e6))
@example(Limit(1.0, 3.0), [(1.0, 1), (0.0, 1)], 0.0)  # refused within the microsecond in which the last was taken
def test_memory_never_admits_more_than_capacity_and_rate_allow_and_hardly_less(
    limit: Limit, asked: list[tuple[float, int]], start: float
) -> None:
    async def run() -> None:
        now = start
        store = MemoryStore(lambda: now)
        oracle, admitted = Oracle(), []
        for gap, amount in gaps_in(limit, asked):
            now += gap
            claim = Claim("k", limit, amount)
            verdict = await store.take([claim])
            if verdict.admitted:
                admitted.append((Fraction(now), amount))
                oracle.settle([claim], Fraction(now))
            elif amount <= limit.capacity:
                missing = Fraction(amount) - oracle.take([Claim("k", limit, 0)], Fraction(now)).remaining[0]
                assert missing > -Fraction(limit.capacity) / 1000 - Fraction(limit.rate) / 500_000
                now += verdict.retry_after  # what was promised is kept, whatever the clock's rounding
                assert (await store.take([claim])).admitted
                admitted.append((Fraction(now), amount))
                oracle.settle([claim], Fraction(now))
        no_window_admits_too_much(limit, admitted)

    asyncio.run(run())


@FAST
@given(limit=limits, asked=asks)
def test_redis_decides_as_memory_does(redis: RedisServer, limit: Limit, asked: list[tuple[float, int]]) -> None:
    async def run() -> None:
        async with lab(redis) as shared, lab(None) as local:
            admitted: list[tuple[Fraction, float]] = []
            for gap, amount in gaps_in(limit, asked):
                shared.steps += round(gap * 64)
                local.steps = shared.steps
                claims = [Claim("k", limit, amount)]
                verdict = await shared.store.take(claims)
                assert verdict == await local.store.take(claims)
                if verdict.admitted:
                    admitted.append((Fraction(shared.steps * STEP, 1_000_000), amount))
            no_window_admits_too_much(limit, admitted)

    asyncio.run(run())


@given(limits)
@settings(deadline=None, database=None, max_examples=300)
def test_a_limit_in_ticks_is_never_faster_and_at_most_a_thousandth_slower(limit: Limit) -> None:
    rule = rule_of(limit)
    refilled = Fraction(rule.pace * 1_000_000, rule.unit)
    assert Fraction(limit.rate) * Fraction(999, 1000) <= refilled <= Fraction(limit.rate)
    assert Fraction(rule.capacity, rule.unit) <= Fraction(limit.capacity)
    assert rule.cost(limit.capacity) == rule.capacity
    assert rule.capacity < 1 << 52


@pytest.mark.parametrize("amount", [0.1, 0.3, 1 / 3])
async def test_a_claim_of_the_whole_capacity_fits_whatever_the_rounding(amount: float) -> None:
    verdict = await MemoryStore(lambda: 0.0).take([Claim("k", Limit(amount, 1 / 7), amount)])
    assert verdict.admitted
