"""Queues the calls of an alias that are over a limit, fairly by key, instead of an immediate 429.

`FairQueue` is pure: self-clocked fair queueing (Golestani 1994). Each key's next call has a virtual finish
time, 1/weight after that of the one before it, or after the one that was served last if nothing of the key
waited; the earliest is served first. So a key's burst delays its own calls only, and keys that always have
calls waiting are served in proportion to their weights. Each end user of a key has a line of its own, first
in, first out; the lines of a key are served in turn, within the key's share.

`AliasQueue` takes the claims of the heads from the store, in that order. A head that is blocked by a limit
that not all calls of the alias share (its end user's, key's, tenant's or team's) is skipped; one that is
blocked by a shared limit keeps its place, and none overtakes it. It is tried again when a call has released
capacity that it needs, or at the time that the store computed.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar

from sluice.config.resources import PER_CALL
from sluice.config.types import Queue
from sluice.errors import GatewayError
from sluice.limits import SLOT_WAIT, Claim, Level, Slot, Verdict
from sluice.policies.claims import amounted, denied_of
from sluice.policies.settlements import Settlements

T = TypeVar("T")
SHARED = frozenset({"alias", "overall"})
"""Scopes that all calls of an alias share."""
_NEVER_REFUNDED = frozenset(resource.name for resource in PER_CALL)
TIMER = 0.001
"""Least seconds of a timer: the event loop's clock is no finer."""


class KeyShare(Generic[T]):
    """The waiting calls of one key: the virtual finish time of the next, and a line for each end user."""

    __slots__ = ("finish", "key", "lines", "weight")

    def __init__(self, key: str, weight: float, finish: float) -> None:
        self.key = key
        self.weight = weight
        self.finish = finish
        self.lines: dict[str, WaitingLine[T]] = {}  # the one that was served last is last


class WaitingLine(Generic[T]):
    """Waiting calls of one end user of a key, or of those that name none. The head is blocked `until` a time
    by the bucket `blocked_by`, which all calls share or which is the caller's `own`."""

    __slots__ = ("blocked_by", "items", "own", "share", "until", "user")

    def __init__(self, share: KeyShare[T], user: str) -> None:
        self.share = share
        self.user = user
        self.items: deque[T] = deque()
        self.unblock()

    @property
    def key(self) -> str:
        return self.share.key

    @property
    def weight(self) -> float:
        return self.share.weight

    def unblock(self) -> None:
        self.until = 0.0
        self.blocked_by = ""
        self.own = False


class FairQueue(Generic[T]):
    """Lines of waiting calls, and the virtual time: the finish time of the one served last."""

    def __init__(self) -> None:
        self._shares: dict[str, KeyShare[T]] = {}
        self._virtual = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def join(self, key: str, weight: float, item: T, user: str = "") -> WaitingLine[T]:
        """Appends to the line of the key's end user, and returns the line."""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = KeyShare(key, weight, self._virtual + 1 / weight)
        line = share.lines.get(user)
        if line is None:
            line = share.lines[user] = WaitingLine(share, user)
        line.items.append(item)
        self._count += 1
        return line

    def lines(self) -> list[WaitingLine[T]]:
        """Returns all lines in the order of service; of equal finish times the oldest key first."""
        shares = sorted(self._shares.values(), key=lambda share: share.finish)
        return [line for share in shares for line in share.lines.values()]

    def serve(self, line: WaitingLine[T]) -> T:
        """Removes and returns the line's head."""
        share = line.share
        self._virtual = max(self._virtual, share.finish)
        share.finish = self._virtual + 1 / share.weight
        item = line.items.popleft()
        share.lines[line.user] = share.lines.pop(line.user)
        self._gone(line)
        return item

    def leave(self, line: WaitingLine[T], item: T) -> None:
        """Removes an item anywhere in the line. Raises ValueError if it is not there."""
        head = line.items[0] is item if line.items else False
        line.items.remove(item)
        self._gone(line, head=head)

    def _gone(self, line: WaitingLine[T], *, head: bool = True) -> None:
        self._count -= 1
        if head:
            line.unblock()
        if not line.items:
            del line.share.lines[line.user]
        if not line.share.lines:
            del self._shares[line.key]
        if not self._shares:
            self._virtual = 0.0


class _Waiter:
    """A waiting call. `answer` is set to the verdict, or to None at the timeout."""

    __slots__ = ("answer", "claims", "slots")

    def __init__(
        self, claims: Sequence[Claim], slots: Sequence[Slot], answer: "asyncio.Future[Verdict | None]"
    ) -> None:
        self.claims = claims
        self.slots = slots
        self.answer = answer


class AliasQueue:
    """The queue of one alias. `waiting` is called with +1 and -1 as calls enter and leave. `clock` in
    seconds, monotonic."""

    def __init__(
        self,
        config: Queue,
        settlements: Settlements,
        waiting: Callable[[int], Any],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._settlements = settlements
        self._waiting = waiting
        self._clock = clock
        self._queue: FairQueue[_Waiter] = FairQueue()
        self._serving: asyncio.Task[None] | None = None
        self._again = False
        self._wakes = 0  # a verdict from before the last one may be out of date
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._queue)

    async def admit(
        self, key: str, weight: float, claims: Sequence[Claim], slots: Sequence[Slot], *, user: str = ""
    ) -> Verdict:
        """Waits for admission, or for the timeout's refusal. `user`: the owner of its end user's limits. Safe
        to cancel at any point. Raises Unavailable."""
        verdict, wakes = None, self._wakes
        if not self._queue:
            verdict = await self._settlements.take(claims, slots)
            if verdict.admitted or not self._may_wait(verdict, denied_of(claims, slots, verdict)):
                return verdict
        if len(self._queue) >= self._config.size:
            return await self._peek(claims, slots)
        waiter = _Waiter(claims, slots, asyncio.get_running_loop().create_future())
        line = self._queue.join(key, weight, waiter, user)
        if verdict is not None and line.items[0] is waiter and wakes == self._wakes:
            self._block(line, verdict)
        answer = await self._answer(line, waiter)
        return answer if answer is not None else await self._peek(claims, slots)

    def wake(self, keys: Collection[str]) -> None:
        """Tries waiting calls again: these buckets and slots may have capacity."""
        self._wakes += 1
        for line in self._queue.lines():
            if line.blocked_by in keys:
                line.unblock()
                self._serve_soon()

    async def _answer(self, line: WaitingLine[_Waiter], waiter: _Waiter) -> Verdict | None:
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
                self._settlements.undo(
                    waiter.claims, waiter.slots, verdict.by
                )  # admitted and cancelled at once
            raise
        finally:
            self._waiting(-1)
            timer.cancel()

    def _expire(self, line: WaitingLine[_Waiter], waiter: _Waiter) -> None:
        if not waiter.answer.done():
            waiter.answer.set_result(None)
            self._leave(line, waiter)

    def _leave(self, line: WaitingLine[_Waiter], waiter: _Waiter) -> None:
        if waiter in line.items:
            self._queue.leave(line, waiter)
            self._serve_soon()

    def _may_wait(self, verdict: Verdict, denied: Claim | Slot) -> bool:
        """Returns whether waiting can help: taken requests are never refunded, metered amounts partly are."""
        if verdict.retry_after == math.inf or denied.scope == "address":
            return False
        return denied.resource not in _NEVER_REFUNDED or verdict.retry_after <= self._config.timeout

    def _block(self, line: WaitingLine[_Waiter], verdict: Verdict) -> None:
        waiter = line.items[0]
        denied = denied_of(waiter.claims, waiter.slots, verdict)
        line.until = self._clock() + verdict.retry_after
        line.blocked_by = denied.key
        line.own = denied.scope not in SHARED

    def _serve_soon(self) -> None:
        self._again = True
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        """Admits heads while there is capacity, and sets the timer for the next attempt."""
        due = math.inf
        while self._again:
            self._again, due = False, math.inf
            for line in self._queue.lines():
                if not line.items:
                    continue
                if line.until <= self._clock() and not await self._try_head(line):
                    self._again = True  # another head, and so another order
                    break
                due = min(due, line.until)
                if not line.own:
                    break
        self._arm(due)

    async def _try_head(self, line: WaitingLine[_Waiter]) -> bool:
        """Tries to admit the line's head. Returns whether it stays blocked; False: it was admitted, refused
        for good or has left, or is to be tried again at once.
        """
        waiter, wakes = line.items[0], self._wakes
        if waiter.answer.done():  # cancelled, but its task has not run yet
            self._queue.leave(line, waiter)
            return False
        try:
            verdict = await self._settlements.take(waiter.claims, waiter.slots)
        except GatewayError as error:
            if not waiter.answer.done():
                self._queue.serve(line)
                waiter.answer.set_exception(error)
            return False
        if waiter.answer.done():  # cancelled or timed out meanwhile
            if verdict.admitted:
                self._settlements.undo(waiter.claims, waiter.slots, verdict.by)
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
            self._timer = asyncio.get_running_loop().call_later(
                max(TIMER, due - self._clock()), self._serve_soon
            )

    async def _peek(self, claims: Sequence[Claim], slots: Sequence[Slot]) -> Verdict:
        """Returns a refusal with the present levels, and takes nothing, because waiting calls come first.

        Whether a slot is free is unknown here. A slot counts as the reason if a waiting call is blocked by
        it, or if no bucket is the reason.
        """
        found = await self._settlements.take([amounted(claim, 0.0) for claim in claims])
        waits = [_wait(claim, level) for claim, level in zip(claims, found.levels, strict=True)]
        blocking = {line.blocked_by for line in self._queue.lines()}
        waits += [SLOT_WAIT if slot.key in blocking else 0.0 for slot in slots]
        before = next((line for line in self._queue.lines() if not line.own), None)
        ahead, shared = (before.until - self._clock(), before.blocked_by) if before is not None else (0.0, "")
        wanted: list[Claim | Slot] = [*claims, *slots]
        denied = max(
            range(len(wanted)),
            key=lambda at: (
                waits[at],
                wanted[at].key == shared,
                wanted[at].scope != "address",
                at >= len(claims),
            ),
        )
        return Verdict(
            False, (*found.levels, *[Level(0.0, 0.0)] * len(slots)), max(waits[denied], ahead, TIMER), denied
        )


class AliasQueues:
    """The queues of all aliases that have one. Limiters with the same `settlements` share them: a queue
    outlives a limiter."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queues: dict[tuple[str, Queue], AliasQueue] = {}

    def __len__(self) -> int:
        """The number of waiting calls in all queues."""
        return sum(map(len, self._queues.values()))

    def queue(
        self, alias: str, config: Queue, settlements: Settlements, waiting: Callable[[int], Any]
    ) -> AliasQueue:
        """Returns the queue of this alias with this configuration; `waiting` as AliasQueue's, the same for
        all queues of an alias.
        """
        queue = self._queues.get((alias, config))
        if queue is None:
            queue = self._queues[alias, config] = AliasQueue(config, settlements, waiting, self._clock)
        return queue

    def keep(self, needed: Collection[tuple[str, Queue]]) -> None:
        """Forgets the queues of all other aliases and configurations."""
        self._queues = {name: queue for name, queue in self._queues.items() if name in needed}

    def wake(self, keys: Collection[str]) -> None:
        """Tries waiting calls again: these buckets and slots may have capacity."""
        for queue in self._queues.values():
            queue.wake(keys)


def _wait(claim: Claim, level: Level) -> float:
    """Returns the seconds until the bucket has the claimed amount."""
    missing = claim.amount - level.remaining
    if missing <= 0:
        return 0.0
    return (
        missing / claim.limit.rate if claim.limit.rate and claim.amount <= claim.limit.capacity else math.inf
    )
