"""A store that fails, hangs and comes back: who decides meanwhile, and who has to wait."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.errors import Unavailable
from gateway.limits import Claim, Limit, Verdict
from gateway.limits.faults import Reason, StoreFailed
from gateway.limits.guarded import Guarded, Mode
from gateway.limits.memory import MemoryStore

CLAIMS = [Claim("k", Limit(capacity=100, rate=1))]
FOREVER = 3600.0


class Store(MemoryStore):
    """Works, fails (`fault`) or hangs (`hanging`)."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.fault: Reason | None = None
        self.hanging = False
        self.asked = 0
        self.settled: list[Claim] = []

    async def take(self, claims: Sequence[Claim]) -> Verdict:
        await self._asked()
        return await super().take(claims)

    async def settle(self, claims: Sequence[Claim]) -> None:
        await self._asked()
        self.settled += claims

    async def _asked(self) -> None:
        self.asked += 1
        if self.hanging:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise StoreFailed(self.fault)


class Guard:
    """A guarded store, all that it told, and a turn of its probing whenever the test says so."""

    def __init__(self, mode: Mode = "open", *, timeout: float = FOREVER) -> None:
        self.store, self.fallback = Store(), Store()
        self.told: list[Any] = []
        self._turns = asyncio.Semaphore(0)
        self._turned = asyncio.Event()
        self.guarded = Guarded(
            self.store, self.fallback, mode, timeout=timeout, clock=lambda: 0.0, sleep=self._sleep,
            failed=self.told.append, decided=lambda who, _: self.told.append(who), switched=self._switched,
        )  # fmt: skip

    async def take(self) -> Verdict:
        return await self.guarded.take(CLAIMS)

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
async def test_settling_never_raises_for_a_store_that_is_down(mode: Mode) -> None:
    guard = Guard(mode)
    guard.store.fault = "timeout"
    for _ in range(4):
        await guard.guarded.settle(CLAIMS)
    assert len(guard.fallback.settled) == (4 if mode == "open" else 0)
    assert guard.told.count("timeout") == 3
    await guard.guarded.close()


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
        await guard.guarded.take([Claim("k", Limit(capacity=1, rate=0))])
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
