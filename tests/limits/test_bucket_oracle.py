"""Any sequence of takes, settlings, renewals, crashes and passing time, in every store, against exact
arithmetic."""

import asyncio
import math
import os
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sluice.limits import Claim, Limit, Slot
from sluice.limits.bucket import rule_of
from sluice.limits.memory import MemoryStore
from tests.limits.stores import EPOCH, STEP, TRACELESS, Lab, Oracle, lab
from tests.servers import RedisServer

FULL = os.environ.get("SLUICE_FULL") == "1"
FAST = settings(
    deadline=None, database=None, max_examples=2_000 if FULL else 60, suppress_health_check=list(HealthCheck)
)

# limits whose unit is a whole number of ticks: nothing is rounded, so the oracle must agree to the last digit
EXACT = {
    "a": Limit(capacity=1, rate=1),
    "b": Limit(capacity=10, rate=2.5),
    "c": Limit(capacity=2.5, rate=1000),
    "d": Limit(capacity=1_000_000, rate=0.0625),
    "e": Limit(capacity=40, rate=1 << 20),
    "f": Limit(capacity=50, rate=0),
    "g": Limit(capacity=0.5, rate=0),
}
PERIOD_ENDS = EPOCH / 64 + 1e9
PLACES = {"x": 1, "y": 3}
HOLDERS = [
    Slot(key, capacity, f"holder{number}")
    for key, capacity in PLACES.items()
    for number in range(capacity + 2)
]
HOURS = 2 * 3600 * 64
eighths = st.integers(0, 96).map(lambda n: n / 8)
signed = st.integers(-160, 400).map(lambda n: n / 8)
some_slots = st.lists(st.sampled_from(HOLDERS), max_size=3, unique=True)


def claim_of(key: str, amount: float) -> Claim:
    return Claim(key, EXACT[key], amount, expires=0.0 if EXACT[key].rate else PERIOD_ENDS)


def some_claims(amounts: st.SearchStrategy[float]) -> st.SearchStrategy[list[Claim]]:
    return st.lists(st.builds(claim_of, st.sampled_from(sorted(EXACT)), amounts), max_size=5)


steps = st.one_of(
    st.tuples(st.just("take"), some_claims(eighths), some_slots),
    st.tuples(st.just("take"), some_claims(eighths), some_slots),
    st.tuples(st.just("settle"), some_claims(signed), some_slots),
    st.tuples(st.just("renew"), st.just(()), some_slots),
    st.tuples(
        st.just("advance"),
        st.one_of(st.integers(0, 200), st.integers(0, 40 * 64), st.integers(-HOURS, HOURS)),
        st.just(()),
    ),
)


async def agrees(at: Lab, oracle: Oracle, sequence: list[tuple[str, Any, list[Slot]]]) -> None:
    """A holder that is not settled and not renewed any more has crashed."""
    for step, operand, slots in sequence:
        now = Fraction(at.steps, 64)
        match step:
            case "advance":
                if (
                    operand < 0
                ):  # what a store makes of a lease that ended in what is the future again is its own affair
                    await at.store.settle((), list(oracle.lapsed(now)))
                    oracle.settle((), now, list(oracle.lapsed(now)))
                at.steps += operand
                if operand < 0:
                    await renew(at, oracle, list(oracle.held(now)))
            case "renew":
                await renew(at, oracle, [slot for slot in slots if slot in oracle.held(now)])
            case "settle":
                await at.store.settle(operand, slots)
                oracle.settle(operand, now, slots)
            case "take":
                verdict, expected = await at.store.take(operand, slots), oracle.take(operand, now, slots)
                assert verdict.admitted is expected.admitted
                assert [Fraction(level.remaining) for level in verdict.levels] == expected.remaining
                if not verdict.admitted:
                    wait = math.inf if expected.wait is None else math.ceil(expected.wait * 1_000_000)
                    assert verdict.retry_after == wait / 1_000_000


async def renew(at: Lab, oracle: Oracle, slots: list[Slot]) -> None:
    await at.store.renew(slots)
    oracle.renew(slots, Fraction(at.steps, 64))


@FAST
@given(sequence=st.lists(steps, max_size=40))
def test_every_store_agrees_with_the_oracle(
    kind: str, server: RedisServer | None, sequence: list[tuple[str, Any, list[Slot]]]
) -> None:
    async def run() -> None:
        async with lab(kind, server) as at:
            await agrees(at, Oracle(writes_only=kind in TRACELESS, lease=at.store.lease), sequence)

    asyncio.run(run())


capacities = st.one_of(st.integers(1, 50), st.integers(1, 10**9), st.integers(4, 400).map(lambda n: n / 4))
per_minute, per_day = (
    st.integers(1, 10**6).map(lambda n: n / 60),
    st.integers(1, 10**5).map(lambda n: n / 86_400),
)
rates = st.one_of(st.floats(0.01, 1e6, allow_subnormal=False), per_minute, per_day)
limits = st.builds(Limit, capacities.map(float), rates).filter(
    lambda limit: limit.capacity / limit.rate < 1e9
)
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
@example(
    Limit(1.0, 3.0), [(1.0, 1), (0.0, 1)], 0.0
)  # refused within the microsecond in which the last was taken
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
def test_every_store_decides_as_memory_does(
    kind: str, server: RedisServer | None, limit: Limit, asked: list[tuple[float, int]]
) -> None:
    async def run() -> None:
        async with lab(kind, server) as shared, lab("memory", None) as local:
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
