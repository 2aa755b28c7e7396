"""In place of an immediate 429: calls of an alias wait for room, fairly by key.

`FairQueue` is pure: self-clocked fair queueing (Golestani 1994). Each key has a line, first in, first out. The head of a
line has a virtual finish time, 1/weight behind that of the one before it, or behind the one that was served last if its
line is new; the earliest is served first. So a key's flood waits behind itself, and keys that always have someone
waiting are served in proportion to their weights.

`WaitingRoom` asks the store for the heads, in that order. A head that is kept back by its own key's or tenant's limits
is passed over; one that is kept back by what all share keeps its place, and nobody overtakes it. It is asked again when
a call has given something back that it needs, or when the store said that it would be admitted.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from sluice.config.types import Queue
from sluice.errors import GatewayError
from sluice.limits import SLOT_WAIT, Claim, Level, Slot, Verdict
from sluice.policies.claims import amounted, denied_of
from sluice.policies.ledger import Ledger

T = TypeVar("T")
OWN = frozenset({"key", "tenant"})
"""Scopes that say nothing about the calls of others."""
TIMER = 0.001
"""Seconds: the event loop's clock is no finer."""


class Line(Generic[T]):
    """Those of one key who wait. `until`, and by which bucket's fault, the head cannot be admitted; `own`: of the key's own."""

    __slots__ = ("blocked_by", "finish", "items", "key", "own", "until", "weight")

    def __init__(self, key: str, weight: float, finish: float) -> None:
        self.key = key
        self.weight = weight
        self.finish = finish
        self.items: deque[T] = deque()
        self.unblock()

    def unblock(self) -> None:
        self.until = 0.0
        self.blocked_by = ""
        self.own = False


class FairQueue(Generic[T]):
    """Lines of those who wait, and the virtual time: the finish time of the one served last."""

    def __init__(self) -> None:
        self._lines: dict[str, Line[T]] = {}
        self._virtual = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def join(self, key: str, weight: float, item: T) -> Line[T]:
        """The end of the key's line."""
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line(key, weight, self._virtual + 1 / weight)
        line.items.append(item)
        self._count += 1
        return line

    def lines(self) -> list[Line[T]]:
        """Whose head is served first comes first; of the same finish time, whose line is the oldest."""
        return sorted(self._lines.values(), key=lambda line: line.finish)

    def serve(self, line: Line[T]) -> T:
        """Its head goes."""
        self._virtual = max(self._virtual, line.finish)
        line.finish = self._virtual + 1 / line.weight
        item = line.items.popleft()
        self._gone(line)
        return item

    def leave(self, line: Line[T], item: T) -> None:
        """Somebody waits no longer. Raises ValueError where nobody did."""
        head = line.items[0] is item if line.items else False
        line.items.remove(item)
        self._gone(line, head=head)

    def _gone(self, line: Line[T], *, head: bool = True) -> None:
        self._count -= 1
        if head:
            line.unblock()
        if not line.items:
            del self._lines[line.key]
        if not self._lines:
            self._virtual = 0.0


class _Waiter:
    """`answer` is the verdict, None when the time is up."""

    __slots__ = ("answer", "claims", "slots")

    def __init__(self, claims: Sequence[Claim], slots: Sequence[Slot], answer: "asyncio.Future[Verdict | None]") -> None:
        self.claims = claims
        self.slots = slots
        self.answer = answer


class WaitingRoom:
    """One alias's. `waiting` is told +1 and -1 as calls begin and end to wait. `clock` in seconds, monotonic."""

    def __init__(self, config: Queue, ledger: Ledger, waiting: Callable[[int], Any], clock: Callable[[], float]) -> None:
        self._config = config
        self._ledger = ledger
        self._waiting = waiting
        self._clock = clock
        self._queue: FairQueue[_Waiter] = FairQueue()
        self._serving: asyncio.Task[None] | None = None
        self._again = False
        self._wakes = 0  # a verdict from before the last one may be out of date
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._queue)

    async def admit(self, key: str, weight: float, claims: Sequence[Claim], slots: Sequence[Slot]) -> Verdict:
        """The verdict, when it is an admission or the time is up. Safe to cancel at any point. Raises Unavailable."""
        verdict, wakes = None, self._wakes
        if not self._queue:
            verdict = await self._ledger.take(claims, slots)
            if verdict.admitted or not self._may_wait(verdict, denied_of(claims, slots, verdict)):
                return verdict
        if len(self._queue) >= self._config.size:
            return await self._peek(claims, slots)
        waiter = _Waiter(claims, slots, asyncio.get_running_loop().create_future())
        line = self._queue.join(key, weight, waiter)
        if verdict is not None and line.items[0] is waiter and wakes == self._wakes:
            self._block(line, verdict)
        answer = await self._answer(line, waiter)
        return answer if answer is not None else await self._peek(claims, slots)

    def wake(self, keys: Collection[str]) -> None:
        """These buckets and slots may have room again."""
        self._wakes += 1
        for line in self._queue.lines():
            if line.blocked_by in keys:
                line.unblock()
                self._serve_soon()

    async def _answer(self, line: Line[_Waiter], waiter: _Waiter) -> Verdict | None:
        answer = waiter.answer
        timer = asyncio.get_running_loop().call_later(self._config.timeout, self._expire, line, waiter)
        self._waiting(1)
        self._serve_soon()
        try:
            return await answer
        except BaseException:
            if not answer.done() or answer.cancelled():
                self._leave(line, waiter)
            elif answer.exception() is None and (verdict := answer.result()) is not None and verdict.admitted:
                self._ledger.undo(waiter.claims, waiter.slots, verdict.by)  # admitted and cancelled at once
            raise
        finally:
            self._waiting(-1)
            timer.cancel()

    def _expire(self, line: Line[_Waiter], waiter: _Waiter) -> None:
        if not waiter.answer.done():
            waiter.answer.set_result(None)
            self._leave(line, waiter)

    def _leave(self, line: Line[_Waiter], waiter: _Waiter) -> None:
        if waiter in line.items:
            self._queue.leave(line, waiter)
            self._serve_soon()

    def _may_wait(self, verdict: Verdict, denied: Claim | Slot) -> bool:
        """Whether waiting can help: what was taken of requests never comes back, of tokens and money some may."""
        if verdict.retry_after == math.inf or denied.scope == "address":
            return False
        return denied.resource != "requests" or verdict.retry_after <= self._config.timeout

    def _block(self, line: Line[_Waiter], verdict: Verdict) -> None:
        waiter = line.items[0]
        denied = denied_of(waiter.claims, waiter.slots, verdict)
        line.until = self._clock() + verdict.retry_after
        line.blocked_by = denied.key
        line.own = denied.scope in OWN

    def _serve_soon(self) -> None:
        self._again = True
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        """Admit whom there is room for, and come back when there may be for the next."""
        due = math.inf
        while self._again:
            self._again, due = False, math.inf
            for line in self._queue.lines():
                if not line.items:
                    continue
                if line.until <= self._clock() and not await self._ask(line):
                    self._again = True  # the head has gone, and with it the order
                    break
                due = min(due, line.until)
                if not line.own:
                    break
        self._arm(due)

    async def _ask(self, line: Line[_Waiter]) -> bool:
        """Whether the head of the line has to wait: not where it was admitted, refused for good, has left, or may be asked."""
        waiter, wakes = line.items[0], self._wakes
        if waiter.answer.done():  # it was cancelled, and has not yet had its turn of the loop
            self._queue.leave(line, waiter)
            return False
        try:
            verdict = await self._ledger.take(waiter.claims, waiter.slots)
        except GatewayError as error:
            if not waiter.answer.done():
                self._queue.serve(line)
                waiter.answer.set_exception(error)
            return False
        if waiter.answer.done():  # while the store was asked
            if verdict.admitted:
                self._ledger.undo(waiter.claims, waiter.slots, verdict.by)
            return False
        if verdict.admitted or not self._may_wait(verdict, denied_of(waiter.claims, waiter.slots, verdict)):
            self._queue.serve(line)
            waiter.answer.set_result(verdict)
            return False
        if wakes != self._wakes:
            return False
        self._block(line, verdict)
        return True

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(TIMER, due - self._clock()), self._serve_soon)

    async def _peek(self, claims: Sequence[Claim], slots: Sequence[Slot]) -> Verdict:
        """A refusal as things stand: nothing is taken, for those who wait come first. How many slots are free is not known."""
        found = await self._ledger.take([amounted(claim, 0.0) for claim in claims])
        waits = [_wait(claim, level) for claim, level in zip(claims, found.levels, strict=True)]
        waits += [SLOT_WAIT] * len(slots)
        before = next((line for line in self._queue.lines() if not line.own), None)
        ahead, shared = (before.until - self._clock(), before.blocked_by) if before is not None else (0.0, "")
        asked: list[Claim | Slot] = [*claims, *slots]
        denied = max(range(len(asked)), key=lambda at: (waits[at], asked[at].key == shared, asked[at].scope != "address"))
        return Verdict(False, (*found.levels, *[Level(0.0, 0.0)] * len(slots)), max(waits[denied], ahead, TIMER), denied)


def _wait(claim: Claim, level: Level) -> float:
    """Seconds until the bucket has what is claimed of it."""
    missing = claim.amount - level.remaining
    if missing <= 0:
        return 0.0
    return missing / claim.limit.rate if claim.limit.rate and claim.amount <= claim.limit.capacity else math.inf
