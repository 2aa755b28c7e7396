"""Claims that are taken, settled and renewed, however a call ends."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from sluice.limits import Claim, Limit, Slot, Verdict
from sluice.policies.settlements import Settlements

BUDGET = Limit(100.0, 0.0)


class Store:
    """Admits everything; a settlement may fail."""

    def __init__(self, lease: float = float("inf")) -> None:
        self.lease = lease
        self.settled: list[tuple[list[float], int]] = []
        self.renewed = asyncio.Event()
        self.fails = 0

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        return Verdict(True, ())

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        if self.fails:
            self.fails -= 1
            raise ValueError("an amount that is not finite")
        self.settled.append(([claim.amount for claim in claims], len(slots)))

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        self.renewed.set()


def made(store: Any) -> tuple[Settlements, list[Collection[str]]]:
    freed: list[Collection[str]] = []
    return Settlements(store, freed.append), freed


def reserved(amount: float, held: float = 10.0) -> Claim:
    return Claim("budget", BUDGET, amount, holder="call", held=held)


async def test_what_was_reserved_and_not_used_may_be_taken_by_others() -> None:
    settlements, freed = made(store := Store())
    settlements.settle([reserved(4.0)], [Slot("streams", 5, "call")])
    assert settlements.settling == 1
    await settlements.close()
    assert store.settled == [([4.0], 1)]
    assert [set(keys) for keys in freed] == [{"budget", "streams"}]


async def test_undoing_a_reservation_charges_nothing_and_other_claims_are_refunded() -> None:
    settlements, _ = made(store := Store())
    settlements.undo([Claim("requests", Limit(5.0, 1.0), 1.0), reserved(10.0)])
    await settlements.close()
    assert store.settled == [([-1.0, 0.0], 0)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_amount_that_cannot_be_charged_keeps_no_slot() -> None:
    settlements, freed = made(store := Store())
    store.fails = 1
    settlements.settle([reserved(float("nan"))], [Slot("streams", 5, "call")])
    await settlements.close()
    assert store.settled == [([], 1)]
    assert {*freed[0]} == {"streams"}


async def test_nothing_to_settle_makes_no_task() -> None:
    settlements, _ = made(Store())
    settlements.settle([])
    assert settlements.settling == 0


async def test_leases_are_renewed_while_a_call_runs_and_not_longer() -> None:
    settlements, _ = made(store := Store(lease=0.003))
    slots = [Slot("streams", 5, "call")]
    await settlements.take([], slots)
    async with asyncio.timeout(60):
        await store.renewed.wait()
    settlements.settle([], slots)
    renewing = settlements._renewing
    assert renewing is not None
    async with asyncio.timeout(60):
        await asyncio.wait([renewing])
    await settlements.close()
