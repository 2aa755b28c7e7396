"""What every bucket store does."""

import asyncio
import math

import msgspec
import pytest

from sluice.limits import SLOT_WAIT, Claim, Limit, Slot
from sluice.policies.left import NEVER
from tests.limits.stores import EPOCH, LEASE, Lab

TEN = Limit(capacity=10, rate=2)
NOTHING_LEFT = Claim("k", TEN, 10)


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
    [
        ((4, 6), True, 0),
        ((6, 6), False, 10),
        ((10, 0), True, 0),
        ((0.5, 0.25), True, 9.25),
        ((4, 4, 4), False, 10),
    ],
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


@pytest.mark.parametrize(
    "claims", [[Claim("k", TEN, 10.5)], [Claim("a", TEN), Claim("k", TEN, 6), Claim("k", TEN, 6)]]
)
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


@pytest.mark.parametrize(
    "key", ["", " ", "a\nb", "}{", "ключ", "\x00", "\ud800", "k" * 4096], ids=lambda key: ascii(key[:8])
)
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
    verdicts = await asyncio.gather(
        *(at.store.take([Claim("k", limit), Claim(f"own{n}", TEN)]) for n in range(200))
    )
    assert sum(verdict.admitted for verdict in verdicts) == 57
    assert sorted(verdict.levels[0].remaining for verdict in verdicts if verdict.admitted) == list(range(57))


BUDGET = Limit(capacity=50, rate=0)
MIDNIGHT = EPOCH / 64 + 86_400


def budget(amount: float) -> Claim:
    return Claim("day", BUDGET, amount, expires=MIDNIGHT)


async def test_a_budget_never_refills(at: Lab) -> None:
    verdict = await at.store.take([budget(45)])
    assert (verdict.levels[0].remaining, verdict.levels[0].reset) == (5, math.inf)
    at.advance(80_000)
    verdict = await at.store.take([Claim("k", TEN), budget(6)])
    assert (verdict.admitted, verdict.retry_after, verdict.denied) == (False, math.inf, 1)
    assert (verdict.levels[1].remaining, verdict.levels[1].reset) == (5, math.inf)
    await at.store.settle([budget(-45)])
    verdict = await at.store.take([budget(0)])
    assert (verdict.levels[0].remaining, verdict.levels[0].reset) == (50, 0)


async def test_a_budget_goes_into_debt_and_is_raised(at: Lab) -> None:
    await at.store.take([budget(50)])
    await at.store.settle([budget(30.5)])
    verdict = await at.store.take([Claim("day", Limit(capacity=100, rate=0), 19.5, expires=MIDNIGHT)])
    assert (verdict.admitted, verdict.levels[0].remaining) == (True, 0)


def slot(holder: str, key: str = "s", capacity: int = 2) -> Slot:
    return Slot(key, capacity, holder)


async def test_as_many_hold_a_slot_as_there_are(at: Lab) -> None:
    verdicts = [await at.store.take([], [slot(holder)]) for holder in "abc"]
    assert [verdict.admitted for verdict in verdicts] == [True, True, False]
    assert [verdict.levels[0].remaining for verdict in verdicts] == [1, 0, 0]
    assert (verdicts[2].retry_after, verdicts[2].denied, verdicts[2].levels[0].reset) == (SLOT_WAIT, 0, 0)
    await at.store.settle([], [slot("a")])
    assert (await at.store.take([], [slot("c")])).admitted
    assert (await at.store.take([], [slot("c", "other")])).levels[0].remaining == 1


async def test_without_a_slot_nothing_is_taken_from_any_bucket_and_the_other_way_round(at: Lab) -> None:
    await at.store.take([Claim("empty", TEN, 10)], [slot("a"), slot("a", "full", 1)])
    verdict = await at.store.take([Claim("k", TEN)], [slot("b"), slot("b", "full", 1)])
    assert (verdict.admitted, verdict.denied) == (False, 2)
    assert [level.remaining for level in verdict.levels] == [10, 1, 0]
    verdict = await at.store.take([Claim("k", TEN), Claim("empty", TEN, 4)], [slot("b")])
    assert (verdict.admitted, verdict.denied, verdict.retry_after) == (False, 1, 2.0)
    assert [level.remaining for level in verdict.levels] == [10, 0, 1]
    assert (await at.store.take([Claim("k", TEN, 10)], [slot("b")])).levels[1].remaining == 0


async def test_a_slot_is_waited_for_where_the_buckets_would_be_there_earlier(at: Lab) -> None:
    await at.store.take([NOTHING_LEFT], [slot("a", capacity=1)])
    verdict = await at.store.take([Claim("k", TEN)], [slot("b", capacity=1)])
    assert (verdict.denied, verdict.retry_after) == (1, SLOT_WAIT)


async def test_a_holder_has_one_place_under_a_key(at: Lab) -> None:
    for _ in range(5):
        assert (await at.store.take([Claim("k", TEN)], [slot("a"), slot("a")])).admitted
    assert (await at.store.take([], [slot("b")])).levels[0].remaining == 0
    assert (await at.store.take([], [slot("a")])).admitted
    assert [level.remaining for level in (await at.store.take([], [slot("c"), slot("d")])).levels] == [0, 0]


async def test_giving_back_what_is_not_held_is_no_error(at: Lab) -> None:
    await at.store.take([], [slot("a")])
    for _ in range(2):
        await at.store.settle([Claim("k", TEN, 1)], [slot("a"), slot("stranger"), slot("a", "unheard-of")])
    verdict = await at.store.take([Claim("k", TEN, 0)], [slot("b")])
    assert [level.remaining for level in verdict.levels] == [8, 1]


async def test_a_slot_is_held_as_long_as_it_is_renewed_and_a_crashed_holders_comes_back_after_its_lease(
    at: Lab,
) -> None:
    await at.store.take([], [slot("alive"), slot("crashed")])
    for _ in range(3):
        at.advance(LEASE / 3 - 1)
        await at.store.renew([slot("alive")])
        assert not (await at.store.take([], [slot("next")])).admitted
    at.advance(3)
    crashed = at.store.lease < math.inf
    assert (await at.store.take([], [slot("next")])).admitted is crashed
    await at.store.settle([], [slot("crashed")])
    assert (await at.store.take([], [slot("third")])).admitted is not crashed


async def test_a_clock_that_steps_back_holds_a_slot_no_longer_than_a_lease_from_when_it_is_asked_for(
    at: Lab,
) -> None:
    await at.store.take([], [slot("crashed", capacity=1)])
    at.advance(-7200)
    assert not (await at.store.take([], [slot("next", capacity=1)])).admitted
    at.advance(LEASE)
    assert (await at.store.take([], [slot("next", capacity=1)])).admitted is (at.store.lease < math.inf)


async def test_concurrent_calls_never_hold_one_slot_too_many(at: Lab) -> None:
    verdicts = await asyncio.gather(
        *(at.store.take([Claim("k", TEN, 0.01)], [slot(str(n), capacity=7)]) for n in range(100))
    )
    assert sum(verdict.admitted for verdict in verdicts) == 7
    assert (await at.store.take([Claim("k", TEN, 0)])).levels[0].remaining == pytest.approx(9.93)


async def test_a_call_that_can_never_be_admitted_tells_all_levels_and_takes_nothing(at: Lab) -> None:
    """What `sluice.policies.left` relies on."""
    rate, budgeted = Claim("r", Limit(10.0, 1.0), 4.0), msgspec.structs.replace(budget(3.0), holder="h")
    assert (await at.store.take([rate, budgeted], [slot("h")])).admitted
    for claims in ([rate, budget(0.0), NEVER], [budget(0.0), rate, NEVER]):
        asked = [
            msgspec.structs.replace(claim, amount=0.0) if claim is not NEVER else claim for claim in claims
        ]
        verdict = await at.store.take(asked, [slot(""), slot("", key="free")])
        assert not verdict.admitted
        levels = dict(zip([claim.key for claim in claims] + ["s", "free"], verdict.levels, strict=True))
        assert levels["r"].remaining == 6
        assert levels["r"].reset == 4
        assert levels[budgeted.key].remaining == budgeted.limit.capacity - 3
        assert (levels["s"].remaining, levels["free"].remaining) == (1, 2)
    assert (await at.store.take([], [slot("other")])).admitted  # the second place was not taken
    assert not (await at.store.take([], [slot("third")])).admitted
