"""A store that fails, hangs and comes back: who decides meanwhile, and who has to wait."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from sluice.errors import Unavailable
from sluice.limits import Claim, Limit, Slot, Verdict
from sluice.limits.faults import BucketStoreFailed, Reason
from sluice.limits.guarded import MAX_PENDING, Guarded, Mode
from sluice.limits.memory import MemoryStore

CLAIMS = [Claim("k", Limit(capacity=100, rate=1))]
TOKENS = Claim("t", Limit(capacity=1000, rate=1), 600)
REFUND = msgspec.structs.replace(TOKENS, amount=-500.0)
BUDGET = Claim("b", Limit(capacity=100, rate=0), 30, expires=2.0**40)
SLOT = Slot("s", 4, "holder")
FOREVER = 3600.0


class Store(MemoryStore):
    """Works, fails (`fault`) or hangs (`hanging`)."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.fault: Reason | None = None
        self.hanging = False
        self.asked = 0
        self.settled: list[Claim] = []
        self.renewed: list[Slot] = []

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        await self._asked()
        return await super().take(claims, slots)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> None:
        await self._asked()
        self.settled += claims
        await super().settle(claims, slots)

    async def renew(self, slots: Sequence[Slot]) -> None:
        await self._asked()
        self.renewed += slots

    async def left(self, claim: Claim) -> float:
        """What its bucket holds."""
        verdict = await super().take([msgspec.structs.replace(claim, amount=0.0)])
        return verdict.levels[0].remaining

    async def places(self, slot: Slot) -> float:
        """How many are left under its key."""
        verdict = await super().take([Claim("never", Limit(1, 1), 2)], [slot])
        return verdict.levels[1].remaining

    async def _asked(self) -> None:
        self.asked += 1
        if self.hanging:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise BucketStoreFailed(self.fault)


class Guard:
    """A guarded store, all that it told, and a turn of its probing whenever the test says so."""

    def __init__(self, mode: Mode = "open", *, timeout: float = FOREVER, replicas: int = 1) -> None:
        self.store, self.fallback = Store(), Store()
        self.told: list[Any] = []
        self._turns = asyncio.Semaphore(0)
        self._turned = asyncio.Event()
        self.guarded = Guarded(
            self.store, self.fallback, mode, timeout=timeout, replicas=replicas, clock=lambda: 0.0, sleep=self._sleep,
            failed=self.told.append, decided=lambda who, _: self.told.append(who), switched=self._switched,
        )  # fmt: skip

    async def take(self) -> Verdict:
        return await self.guarded.take(CLAIMS)

    async def break_down(self) -> None:
        self.store.fault = "connection"
        for number in range(3):
            await self.guarded.settle([Claim(f"breaks{number}", Limit(1, 1))])
        assert self.guarded.down

    async def recover(self) -> None:
        self.store.fault = None
        await self.probe()
        assert not self.guarded.down

    async def probe(self) -> None:
        """Let it ask once, and see that through."""
        await self._turned.wait()
        self._turned.clear()
        self._turns.release()
        if self.guarded.down:
            await self._turned.wait()

    async def _sleep(self, seconds: float) -> None:
        assert seconds == 0.5
        self._turned.set()
        await self._turns.acquire()

    def _switched(self, down: bool) -> None:
        self.told.append("down" if down else "up")
        if not down:
            self._turned.set()


async def test_the_store_decides_while_it_is_well() -> None:
    guard = Guard()
    assert (await guard.take()).levels[0].remaining == 99
    assert guard.told == ["store"]
    assert guard.fallback.asked == 0


@pytest.mark.parametrize("fault", ["timeout", "connection"])
async def test_three_failures_in_a_row_and_it_is_left_alone(fault: Reason) -> None:
    guard = Guard()
    guard.store.fault = fault
    for _ in range(5):
        assert (await guard.take()).admitted
    assert guard.store.asked == 3
    assert guard.told == [fault, "fallback"] * 2 + [fault, "down"] + ["fallback"] * 3
    await guard.guarded.close()


async def test_failures_that_are_not_in_a_row_do_not_count_together() -> None:
    guard = Guard()
    for fault in ("timeout", "timeout", None) * 4:
        guard.store.fault = fault  # type: ignore[assignment]
        await guard.take()
    assert not guard.guarded.down


async def test_an_error_that_was_answered_concerns_one_call_only() -> None:
    guard = Guard()
    guard.store.fault = "reply"
    for _ in range(10):
        await guard.take()
    assert guard.store.asked == 10
    assert not guard.guarded.down


async def test_closed_refuses_what_the_store_cannot_decide() -> None:
    guard = Guard("closed")
    guard.store.fault = "connection"
    for _ in range(4):
        with pytest.raises(Unavailable):
            await guard.take()
    assert guard.fallback.asked == 0
    assert guard.told[-1] == "nobody"
    await guard.guarded.close()


async def test_a_store_that_hangs_is_waited_for_within_the_deadline() -> None:
    guard = Guard(timeout=0.001)
    guard.store.hanging = True
    assert (await guard.take()).admitted
    assert guard.told == ["timeout", "fallback"]


async def test_everyone_who_waits_is_let_go_when_it_is_left_alone() -> None:
    guard = Guard()
    guard.store.hanging = True
    waiting = [asyncio.create_task(guard.take()) for _ in range(50)]
    while guard.store.asked < 50:
        await asyncio.sleep(0)
    guard.store.hanging, guard.store.fault = False, "timeout"
    for _ in range(3):
        await guard.take()
    assert all(verdict.admitted for verdict in await asyncio.gather(*waiting))
    assert guard.told.count("down") == 1
    await guard.guarded.close()


async def test_it_is_asked_again_until_it_answers_and_then_decides_again() -> None:
    guard = Guard()
    guard.store.fault = "connection"
    for _ in range(3):
        await guard.take()
    await guard.probe()
    assert guard.guarded.down
    guard.store.fault = None
    await guard.probe()
    assert not guard.guarded.down
    assert (await guard.take()).levels[0].remaining == 99
    assert guard.told[-3:] == ["connection", "up", "store"]
    guard.store.fault = "connection"  # and it may fail again
    for _ in range(3):
        await guard.take()
    assert guard.guarded.down
    await guard.guarded.close()


@pytest.mark.parametrize("mode", ["open", "closed"])
async def test_settling_and_renewing_never_raise_for_a_store_that_is_down(mode: Mode) -> None:
    guard = Guard(mode)
    guard.store.fault = "timeout"
    for _ in range(4):
        await guard.guarded.settle(CLAIMS)
        await guard.guarded.renew([SLOT])
    assert guard.fallback.asked == 0
    assert guard.told.count("timeout") == 3
    await guard.guarded.close()


async def test_what_the_store_admitted_is_settled_there_when_it_is_back() -> None:
    guard = Guard()
    verdict = await guard.guarded.take([TOKENS], [SLOT])
    assert verdict.by is None
    await guard.break_down()
    await guard.guarded.settle([REFUND], [SLOT])
    assert (
        await guard.fallback.left(TOKENS),
        await guard.store.left(TOKENS),
        await guard.store.places(SLOT),
    ) == (1000, 400, 3)
    await guard.recover()
    assert (
        await guard.fallback.left(TOKENS),
        await guard.store.left(TOKENS),
        await guard.store.places(SLOT),
    ) == (1000, 900, 4)


@pytest.mark.parametrize("recovered", [False, True])
@pytest.mark.parametrize("slots", [[], [SLOT]])
async def test_what_the_fallback_admitted_is_settled_there_whatever_has_become_of_the_store(
    recovered: bool, slots: list[Slot]
) -> None:
    guard = Guard()
    await guard.break_down()
    verdict = await guard.guarded.take([TOKENS], slots)
    assert verdict.by is not None
    assert await guard.fallback.places(SLOT) == 4 - len(slots)
    if recovered:
        await guard.recover()
    await (guard.guarded if slots else verdict.by).settle([REFUND], slots)
    assert (await guard.fallback.left(TOKENS), await guard.fallback.places(SLOT)) == (900, 4)
    if not recovered:
        await guard.recover()
    assert (await guard.store.left(TOKENS), await guard.store.places(SLOT)) == (1000, 4)


async def test_a_refusal_of_the_fallback_holds_nothing() -> None:
    guard = Guard()
    await guard.break_down()
    assert not (await guard.guarded.take([Claim("k", Limit(1, 1), 2)], [SLOT])).admitted
    await guard.recover()
    await guard.guarded.take([], [SLOT])
    await guard.guarded.settle([], [SLOT])
    assert await guard.store.places(SLOT) == 4


async def test_what_is_owed_to_the_store_is_bounded_and_paid_before_it_decides_again() -> None:
    guard = Guard()
    await guard.break_down()
    for _ in range(MAX_PENDING + 50):
        await guard.guarded.settle(CLAIMS)
    guard.store.fault = None
    await guard.probe()
    assert guard.told[-1] == "up"
    assert len(guard.store.settled) == MAX_PENDING


async def test_a_store_that_fails_again_while_it_is_paid_stays_left_alone() -> None:
    guard = Guard()
    await guard.break_down()
    await guard.guarded.settle(
        [Claim("bad", Limit(1, 1), math.nan)]
    )  # a caller's mistake keeps nobody else from it
    await guard.guarded.settle([TOKENS])
    settle = guard.store.settle

    async def fails(claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> None:
        raise BucketStoreFailed("timeout")

    guard.store.fault, guard.store.settle = None, fails  # type: ignore[method-assign]
    await guard.probe()
    assert guard.guarded.down
    guard.store.settle = settle  # type: ignore[method-assign]
    await guard.probe()
    assert not guard.guarded.down
    assert await guard.store.left(TOKENS) == 1000  # it may have been done, so it was not sent twice


@pytest.mark.parametrize(("replicas", "places"), [(1, 4), (2, 2), (3, 1), (9, 1)])
async def test_slots_are_divided_by_the_number_of_gateways_and_one_is_always_left(
    replicas: int, places: int
) -> None:
    guard = Guard(replicas=replicas)
    await guard.break_down()
    verdicts = [await guard.guarded.take([], [Slot("s", 4, str(number))]) for number in range(6)]
    assert sum(verdict.admitted for verdict in verdicts) == places


async def test_only_slots_of_the_store_are_renewed_in_it() -> None:
    guard = Guard()
    mine = Slot("s", 4, "mine")
    await guard.guarded.take([], [mine])
    await guard.break_down()
    await guard.guarded.take([], [SLOT])
    await guard.guarded.renew([mine, SLOT])
    await guard.recover()
    await guard.guarded.renew([mine, SLOT])
    assert guard.store.renewed == [mine]


async def test_a_budget_is_charged_in_the_store_for_what_the_fallback_admitted() -> None:
    guard = Guard(replicas=2)
    await guard.break_down()
    verdict = await guard.guarded.take([TOKENS, BUDGET])
    assert verdict.levels[1].remaining == 50 - 30
    assert not (await guard.guarded.take([BUDGET])).admitted
    assert verdict.by is not None
    await verdict.by.settle([REFUND, msgspec.structs.replace(BUDGET, amount=-10.0)])
    await guard.recover()
    assert (await guard.store.left(TOKENS), await guard.store.left(BUDGET)) == (1000, 80)


async def test_a_cancelled_call_is_no_failure() -> None:
    guard = Guard()
    guard.store.hanging = True
    for _ in range(5):
        taking = asyncio.create_task(guard.take())
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait([taking])
        assert taking.cancelled()
    assert guard.told == []


async def test_nonsense_is_the_callers_fault_not_the_stores() -> None:
    guard = Guard()
    with pytest.raises(ValueError):
        await guard.guarded.take([Claim("k", Limit(capacity=0, rate=1))])
    assert guard.told == []


async def test_closing_ends_the_probing() -> None:
    guard = Guard()
    guard.store.fault = "timeout"
    for _ in range(3):
        await guard.take()
    before = asyncio.all_tasks()
    assert len(before) == 2
    await guard.guarded.close()
    assert len(asyncio.all_tasks()) == 1


async def test_calls_that_one_lost_connection_cut_off_are_one_failure() -> None:
    guard = Guard()
    lost = ConnectionResetError()

    async def cut(*_: object) -> Verdict:
        raise BucketStoreFailed("connection") from lost

    guard.store.take = cut  # type: ignore[method-assign,assignment]
    for _ in range(5):
        await guard.take()
    assert not guard.guarded.down
    lost = ConnectionResetError()
    await guard.take()
    lost = ConnectionResetError()
    await guard.take()
    assert guard.guarded.down
    await guard.guarded.close()
