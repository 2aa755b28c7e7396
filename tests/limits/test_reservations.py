"""What is reserved of a budget: charged when it is settled, once, and given back where nobody settles it.
Every store."""

import asyncio
import math

import msgspec
import pytest

from sluice.config.types import Budget, CallLimits
from sluice.config.types import Limit as RateLimit
from sluice.config.units import Rate
from sluice.limits import Balance, Claim, Limit, Slot
from sluice.limits.shared import SharedStore
from sluice.policies.budgets import budget_claims, budget_prefix
from sluice.policies.claims import View
from sluice.policies.left import left
from tests.limits.stores import EPOCH, LEASE, Lab

DOLLARS = Limit(capacity=20.0, rate=0.0)
END = EPOCH / 64 + 86_400.0


def reserving(amount: float, holder: str = "a", key: str = "budget", limit: Limit = DOLLARS) -> Claim:
    return Claim(key, limit, amount, "key", "budget", END, holder)


def settling(claim: Claim, used: float) -> Claim:
    return msgspec.structs.replace(claim, amount=used, held=claim.amount)


async def balance(at: Lab, claim: Claim) -> Balance:
    [found] = await at.store.balances([claim])
    return found


def repeats(at: Lab) -> bool:
    """Whether a settlement may come again: one that failed in the file was not done, and is never said to be
    another's."""
    return not isinstance(at.store, SharedStore)


def leases(at: Lab) -> bool:
    """Whether what a process holds can outlive it."""
    return at.store.lease < math.inf


async def test_an_amount_is_reserved_and_then_what_was_used_is_charged(at: Lab) -> None:
    claim = reserving(18.0)
    assert await balance(at, claim) == Balance(0.0, 0.0)
    verdict = await at.store.take([claim])
    assert (verdict.admitted, verdict.levels[0].remaining) == (True, 2.0)
    assert await balance(at, claim) == Balance(0.0, 18.0)
    assert not (await at.store.take([reserving(3.0, "b")])).admitted
    await at.store.settle([settling(claim, 0.25)])
    assert await balance(at, claim) == Balance(0.25, 0.0)
    assert (await at.store.take([reserving(19.75, "b")])).admitted


@pytest.mark.parametrize("used", [0.0, 5.0, 7.5, 30.0])
async def test_whatever_was_used_is_charged_less_as_much_or_more(at: Lab, used: float) -> None:
    claim = reserving(5.0)
    await at.store.take([claim])
    await at.store.settle([settling(claim, used)])
    assert await balance(at, claim) == Balance(used, 0.0)


async def test_reservations_of_several_calls_and_budgets_stand_beside_each_other(at: Lab) -> None:
    day, month = reserving(2.0, key="day"), reserving(2.0, key="month", limit=Limit(100.0, 0.0))
    other = [msgspec.structs.replace(claim, holder="b", amount=3.0) for claim in (day, month)]
    await at.store.take([day, month])
    await at.store.take(other)
    assert await at.store.balances([day, month]) == [Balance(0.0, 5.0)] * 2
    await at.store.settle([settling(claim, 1.0) for claim in (day, month)])
    assert await at.store.balances([day, month]) == [Balance(1.0, 3.0)] * 2
    await at.store.settle([settling(claim, 0.5) for claim in other])
    assert await at.store.balances([day, month]) == [Balance(1.5, 0.0)] * 2


async def test_a_refused_call_reserves_nothing(at: Lab) -> None:
    claim = reserving(5.0)
    assert not (await at.store.take([Claim("tokens", Limit(1.0, 1.0), 2.0), claim])).admitted
    assert not (await at.store.take([claim], [Slot("s", 0, "a")])).admitted
    assert await balance(at, claim) == Balance(0.0, 0.0)


async def test_a_settlement_that_comes_again_is_charged_once(at: Lab) -> None:
    claim, tokens = reserving(5.0), Claim("tokens", Limit(1000.0, 1.0), 0.0)
    await at.store.take([claim])
    settlement = [msgspec.structs.replace(tokens, amount=7.0), settling(claim, 2.0)]
    await at.store.settle(settlement)
    for _ in range(3 if repeats(at) else 0):
        await at.store.settle(settlement, (), True)
    assert await balance(at, claim) == Balance(2.0, 0.0)
    assert (await at.store.take([tokens])).levels[0].remaining == 993.0


async def test_a_first_try_that_is_done_after_the_second_charges_nothing_more(at: Lab) -> None:
    """A server that was stopped finds both in its sockets, in any order; and a renewal as well."""
    claim, tokens = reserving(5.0), Claim("tokens", Limit(1000.0, 1.0), 7.0)
    await at.store.take([claim])
    await at.store.settle([tokens, settling(claim, 2.0)], (), True)
    if at.redis is not None:
        await at.store.settle([tokens, settling(claim, 2.0)], [Slot("s", 1, "a")])
        await at.store.renew([], [claim])
    assert await balance(at, claim) == Balance(2.0, 0.0)
    assert (await at.store.take([msgspec.structs.replace(tokens, amount=0.0)])).levels[0].remaining == 993.0


async def test_a_settlement_that_was_never_done_is_done_when_it_comes_again(at: Lab) -> None:
    claim = reserving(5.0)
    await at.store.take([claim], [Slot("s", 1, "a")])
    await at.store.settle([settling(claim, 2.0)], [Slot("s", 1, "a")], True)
    assert await balance(at, claim) == Balance(2.0, 0.0)
    assert (await at.store.take([], [Slot("s", 1, "b")])).admitted


async def test_what_nobody_settles_is_given_back_when_its_lease_ends(at: Lab) -> None:
    claim = reserving(18.0)
    await at.store.settle([msgspec.structs.replace(claim, amount=0.02, holder="")])
    await at.store.take([claim])
    at.advance(LEASE)
    if not leases(at):
        assert (await balance(at, claim)).reserved == 18.0
        return
    assert (await balance(at, claim)).reserved == 0.0
    assert (await balance(at, claim)).spent == pytest.approx(0.02)
    verdict = await at.store.take([reserving(19.0, "b")])
    assert (verdict.admitted, verdict.levels[0].remaining) == (True, pytest.approx(0.98))


async def test_what_is_left_of_a_budget_has_in_it_what_a_lease_gave_back(at: Lab) -> None:
    wall, budget = EPOCH / 64, Budget(day=20.0, month=50.0)
    requests = RateLimit(rate=Rate(1.0), burst=7.0)
    view = View("key", "web", CallLimits(requests=requests, streams=3, budget=budget))
    claims = budget_claims(budget_prefix("key", "web"), budget, wall, 18.0, holder="dead")
    assert (await at.store.take(claims, [Slot("key:web:streams", 3, "dead")])).admitted

    async def remaining() -> list[float]:
        return [one["remaining"] for one in await left(at.store, [view], wall)]

    assert await remaining() == [7, 2, 2, 32]
    at.advance(LEASE)
    assert await remaining() == ([7, 3, 20, 50] if leases(at) else [7, 2, 2, 32])
    assert (
        await at.store.take([msgspec.structs.replace(claims[0], amount=20.0, holder="next")])
    ).admitted == leases(at)


async def test_a_call_that_goes_on_keeps_what_it_reserved(at: Lab) -> None:
    claim = reserving(18.0)
    await at.store.take([claim])
    for _ in range(10):
        at.advance(LEASE / 2)
        await at.store.renew([], [claim])
        assert not (await at.store.take([reserving(3.0, "b")])).admitted
    await at.store.settle([settling(claim, 1.0)])
    assert await balance(at, claim) == Balance(1.0, 0.0)


@pytest.mark.parametrize("looked", [False, True])
async def test_who_settles_after_the_lease_has_ended_pays_all_the_same(at: Lab, looked: bool) -> None:
    claim = reserving(5.0)
    await at.store.take([claim])
    at.advance(LEASE * 2)
    if looked:
        await at.store.take([reserving(1.0, "b")])
        await at.store.settle([settling(reserving(1.0, "b"), 0.0)])
    await at.store.settle([settling(claim, 2.0)])
    if repeats(at):
        await at.store.settle([settling(claim, 2.0)], (), True)
    assert await balance(at, claim) == Balance(2.0, 0.0)


async def test_a_settlement_that_is_sent_again_after_the_lease_has_ended_is_charged_once(at: Lab) -> None:
    claim = reserving(5.0)
    await at.store.take([claim])
    at.advance(LEASE * 2)
    await at.store.take([reserving(1.0, "b")])
    await at.store.settle([settling(reserving(1.0, "b"), 0.0)])
    for _ in range(3 if repeats(at) else 1):
        await at.store.settle([settling(claim, 2.0)], (), True)
    assert await balance(at, claim) == Balance(2.0, 0.0)


async def test_what_was_given_back_too_early_is_reserved_again_by_a_renewal(at: Lab) -> None:
    claim = reserving(5.0)
    await at.store.take([claim])
    at.advance(LEASE * 2)
    await at.store.take([reserving(1.0, "b")])
    await at.store.renew([], [claim])
    assert (await balance(at, claim)).reserved == 6.0
    await at.store.settle([settling(claim, 2.0)])
    assert await balance(at, claim) == Balance(2.0, 1.0)


async def test_a_reservation_outlives_a_change_of_its_limit(at: Lab) -> None:
    small, large = reserving(5.0), reserving(5.0, limit=Limit(5000.0, 0.0))
    await at.store.take([small])
    await at.store.take([msgspec.structs.replace(large, holder="b")])
    found = await balance(at, large)
    assert (found.spent, found.reserved) == (pytest.approx(0.0, abs=1e-6), pytest.approx(10.0))
    await at.store.settle([settling(small, 1.0)])
    await at.store.settle([settling(msgspec.structs.replace(large, holder="b"), 1.0)])
    found = await balance(at, large)
    assert (found.spent, found.reserved) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-6))


async def test_leases_that_began_on_a_clock_that_stepped_back_end_all_the_same(at: Lab) -> None:
    claim = reserving(5.0)
    at.advance(100_000)
    await at.store.take([claim])
    at.advance(-99_000)
    await at.store.take([reserving(1.0, "b")])
    at.advance(98_000 + LEASE * 3)
    if leases(at):
        assert await balance(at, claim) == Balance(0.0, 0.0)


async def test_one_call_does_not_reserve_twice_of_one_budget(at: Lab) -> None:
    with pytest.raises(ValueError, match="reserve"):
        await at.store.take([reserving(1.0), reserving(2.0)])


async def test_what_is_reserved_at_random_adds_up(at: Lab) -> None:
    """Everybody who reserved either settles, or does not and is forgotten: what is spent is what was
    settled."""
    spent, amounts = 0.0, [0.25 * (number % 7 + 1) for number in range(60)]
    for number, amount in enumerate(amounts):
        claim = reserving(amount, f"h{number}", limit=Limit(10_000.0, 0.0))
        await at.store.take([claim], [Slot("s", 1000, f"h{number}")])
        if number % 3:
            await at.store.settle([settling(claim, amount / 2)], [Slot("s", 1000, f"h{number}")])
            spent += amount / 2
        at.advance(1)
    at.advance(LEASE * 2)
    found = await balance(at, claim)
    forgotten = sum(amounts[::3])
    assert found == (Balance(spent, 0.0) if leases(at) else Balance(spent, forgotten))


async def test_who_gives_up_while_a_store_decides_has_reserved_nothing(at: Lab) -> None:
    claim = reserving(5.0)
    task = asyncio.create_task(at.store.take([claim]))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        await at.store.settle([settling(claim, 0.0)])
    while (await balance(at, claim)).reserved:
        await at.store.take([Claim("other", DOLLARS, 0.0)])
    assert await balance(at, claim) == Balance(0.0, 0.0)
