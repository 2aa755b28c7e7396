"""What every bucket store does, asked of the one in memory and of one in a real Redis."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from gateway.limits import Claim, Limit
from tests.limits.stores import Lab, lab

TEN = Limit(capacity=10, rate=2)
NOTHING_LEFT = Claim("k", TEN, 10)


@pytest.fixture(params=["memory", "redis"])
async def at(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    async with lab(request.getfixturevalue("redis") if request.param == "redis" else None) as opened:
        yield opened


async def test_a_new_bucket_is_full(at: Lab) -> None:
    verdict = await at.store.take([Claim("k", TEN)])
    assert verdict.admitted
    assert (verdict.retry_after, verdict.denied) == (0.0, -1)
    assert (verdict.levels[0].remaining, verdict.levels[0].reset) == (9.0, 0.5)


async def test_admits_the_capacity_at_once_and_then_at_the_rate(at: Lab) -> None:
    assert [(await at.store.take([Claim("k", TEN)])).admitted for _ in range(12)] == [True] * 10 + [False] * 2
    at.advance(1)
    assert [(await at.store.take([Claim("k", TEN)])).admitted for _ in range(3)] == [True, True, False]


async def test_an_idle_bucket_holds_no_more_than_its_capacity(at: Lab) -> None:
    await at.store.take([NOTHING_LEFT])
    at.advance(86_400)
    assert (await at.store.take([NOTHING_LEFT])).admitted
    assert not (await at.store.take([Claim("k", TEN)])).admitted


async def test_buckets_do_not_touch_each_other(at: Lab) -> None:
    await at.store.take([NOTHING_LEFT])
    assert (await at.store.take([Claim("other", TEN)])).levels[0].remaining == 9


async def test_a_refusal_takes_nothing_from_any_bucket(at: Lab) -> None:
    await at.store.take([Claim("b", TEN, 8)])
    verdict = await at.store.take([Claim("a", TEN, 3), Claim("b", TEN, 3), Claim("c", TEN, 3)])
    assert not verdict.admitted
    assert verdict.denied == 1
    assert [level.remaining for level in verdict.levels] == [10, 2, 10]
    assert (await at.store.take([Claim("a", TEN, 10), Claim("c", TEN, 10)])).admitted


async def test_names_the_claim_that_must_wait_longest(at: Lab) -> None:
    slow = Limit(capacity=10, rate=0.5)
    await at.store.take([Claim("a", TEN, 10), Claim("b", slow, 10), Claim("c", TEN, 10)])
    verdict = await at.store.take([Claim("a", TEN, 4), Claim("b", slow, 2), Claim("c", TEN, 6)])
    assert (verdict.denied, verdict.retry_after) == (1, 4.0)


@pytest.mark.parametrize(
    ("amounts", "admitted", "remaining"),
    [((4, 6), True, 0), ((6, 6), False, 10), ((10, 0), True, 0), ((0.5, 0.25), True, 9.25), ((4, 4, 4), False, 10)],
)
async def test_one_bucket_may_be_claimed_twice_in_a_call(
    at: Lab, amounts: tuple[float, ...], admitted: bool, remaining: float
) -> None:
    verdict = await at.store.take([Claim("k", TEN, amount) for amount in amounts])
    assert verdict.admitted is admitted
    assert [level.remaining for level in verdict.levels] == [remaining] * len(amounts)


async def test_the_same_call_is_admitted_when_it_was_told_and_no_earlier(at: Lab) -> None:
    claims = [Claim("a", TEN, 7.5), Claim("b", Limit(capacity=4, rate=0.25), 3), Claim("a", TEN, 1)]
    assert (await at.store.take(claims)).admitted
    verdict = await at.store.take(claims)
    assert verdict.retry_after == 8.0
    at.advance(8 - 1 / 64)
    early = await at.store.take(claims)
    assert (early.admitted, early.retry_after) == (False, 1 / 64)
    at.advance(1 / 64)
    assert (await at.store.take(claims)).admitted


@pytest.mark.parametrize("claims", [[Claim("k", TEN, 10.5)], [Claim("a", TEN), Claim("k", TEN, 6), Claim("k", TEN, 6)]])
async def test_what_exceeds_the_capacity_is_never_admitted(at: Lab, claims: list[Claim]) -> None:
    verdict = await at.store.take(claims)
    assert (verdict.admitted, verdict.retry_after, verdict.denied) == (False, math.inf, len(claims) - 1)
    assert all(level.remaining == 10 for level in verdict.levels)


async def test_settling_may_go_into_debt_that_is_paid_before_anything_is_admitted(at: Lab) -> None:
    await at.store.take([Claim("k", TEN, 4)])
    await at.store.settle([Claim("k", TEN, 16)])
    verdict = await at.store.take([Claim("k", TEN)])
    assert (verdict.admitted, verdict.levels[0].remaining, verdict.retry_after) == (False, -10, 5.5)
    assert not (await at.store.take([Claim("k", TEN, 0)])).admitted
    at.advance(5.5)
    assert (await at.store.take([Claim("k", TEN)])).admitted


async def test_a_refund_never_fills_beyond_the_capacity(at: Lab) -> None:
    await at.store.take([Claim("k", TEN, 4)])
    await at.store.settle([Claim("k", TEN, -1000), Claim("untouched", TEN, -5)])
    assert (await at.store.take([Claim("k", TEN, 0), Claim("untouched", TEN, 0)])).levels[0].remaining == 10
    assert not (await at.store.take([Claim("k", TEN, 11)])).admitted


async def test_a_reservation_is_settled_to_what_was_used(at: Lab) -> None:
    await at.store.take([Claim("k", TEN, 8)])
    await at.store.settle([Claim("k", TEN, 3 - 8)])
    assert (await at.store.take([Claim("k", TEN, 0)])).levels[0].remaining == 7


async def test_debt_beyond_all_measure_is_still_debt(at: Lab) -> None:
    for _ in range(3):
        await at.store.settle([Claim("k", TEN, 1e300)])
    assert (await at.store.take([Claim("k", TEN)])).levels[0].remaining < -1000


async def test_a_clock_that_steps_back_mints_nothing_and_refilling_goes_on(at: Lab) -> None:
    await at.store.take([NOTHING_LEFT])
    at.advance(-7200)
    verdict = await at.store.take([Claim("k", TEN)])
    assert (verdict.admitted, verdict.levels[0].remaining, verdict.retry_after) == (False, 0, 0.5)
    at.advance(0.5)
    assert (await at.store.take([Claim("k", TEN)])).admitted
    assert not (await at.store.take([Claim("k", TEN)])).admitted


async def test_what_was_used_counts_against_a_changed_limit(at: Lab) -> None:
    await at.store.take([Claim("k", TEN, 6)])
    assert (await at.store.take([Claim("k", Limit(capacity=100, rate=50), 0)])).levels[0].remaining == 94
    verdict = await at.store.take([Claim("k", Limit(capacity=5, rate=1), 1)])
    assert (verdict.admitted, verdict.retry_after) == (False, 2.0)
    assert verdict.levels[0].remaining == -1


async def test_a_call_without_claims_is_admitted(at: Lab) -> None:
    verdict = await at.store.take([])
    assert (verdict.admitted, verdict.levels) == (True, ())
    await at.store.settle([])


@pytest.mark.parametrize("key", ["", " ", "a\nb", "}{", "ключ", "\x00", "\ud800", "k" * 4096], ids=lambda key: ascii(key[:8]))
async def test_any_text_names_a_bucket(at: Lab, key: str) -> None:
    assert (await at.store.take([Claim(key, TEN, 10)])).admitted
    assert not (await at.store.take([Claim(key, TEN)])).admitted


@pytest.mark.parametrize(
    "claims",
    [
        [Claim("k", TEN, -1)],
        [Claim("k", TEN, math.nan)],
        [Claim("k", TEN), Claim("a", TEN, -1)],
        [Claim("k", TEN), Claim("k", Limit(capacity=20, rate=2))],
        [Claim("k", Limit(capacity=0, rate=1))],
        [Claim("k", Limit(capacity=10, rate=-1))],
        [Claim("k", Limit(capacity=math.inf, rate=1))],
        [Claim("k", Limit(capacity=math.nan, rate=1))],
        [Claim("k", Limit(capacity=1, rate=1e-10))],
    ],
    ids=repr,
)
async def test_claims_that_make_no_sense_are_refused_and_take_nothing(at: Lab, claims: list[Claim]) -> None:
    with pytest.raises(ValueError):
        await at.store.take(claims)
    assert (await at.store.take([Claim("k", TEN, 0)])).levels[0].remaining == 10


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
async def test_only_finite_amounts_are_settled(at: Lab, amount: float) -> None:
    with pytest.raises(ValueError):
        await at.store.settle([Claim("a", TEN), Claim("k", TEN, amount)])
    assert (await at.store.take([Claim("a", TEN, 0)])).levels[0].remaining == 10


async def test_concurrent_calls_share_out_exactly_the_capacity(at: Lab) -> None:
    limit = Limit(capacity=57, rate=1)
    verdicts = await asyncio.gather(*(at.store.take([Claim("k", limit), Claim(f"own{n}", TEN)]) for n in range(200)))
    assert sum(verdict.admitted for verdict in verdicts) == 57
    assert sorted(verdict.levels[0].remaining for verdict in verdicts if verdict.admitted) == list(range(57))
