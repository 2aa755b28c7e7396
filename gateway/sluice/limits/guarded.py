"""A bucket store with a circuit breaker: while the store is down, a local fallback decides.

After `failures` calls in a row without an answer the store counts as down; calls that were lost with the same
connection count as one failure. Calls that still wait for it then stop waiting, and further calls are decided
at once, by the fallback's own buckets (mode "open") or by refusing them ("closed"). The fallback's buckets are
this gateway's share of the limits: limits and budgets divided by the number of gateways. So an outage admits
at most the limit once more, over all gateways together; slots that are taken in the store come on top.
Meanwhile one task sends a probe every `probe_every` seconds; the
store is used again when it has answered and all pending settlements are done.

A call is settled in the store that decided it: in the fallback (`Verdict.by`), or in the store, where a
settlement is kept pending while the store is down. Budgets, which never refill, are also charged in the store
for calls that the fallback admitted, so that an outage hides no cost.

An error reply of the store concerns one call only, which the fallback decides; others still use the store. A
settlement that failed may have been done, so it is not repeated. One that ends reservations is: by them the
store sees whether it was done. Reservations of the fallback do not
exist in the store; each is made there under a name of its own before it is settled.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from sluice.errors import Unavailable
from sluice.limits import Balance, BucketStore, Claim, Dated, Limit, Remote, Slot, Verdict
from sluice.limits.faults import BucketStoreFailed
from sluice.storage import DOWN, Reason

Mode = Literal["open", "closed"]
T = TypeVar("T")
Decider = Literal["store", "fallback", "nobody"]

TIMEOUT = 0.05
"""Seconds that a call waits for the store by default."""
MAX_PATIENCE_SECONDS = 1.5
"""Seconds that a start, a stop and a question about balances wait for the store at most."""
MAX_PENDING = 10_000
"""Most pending settlements; beyond it the oldest are dropped."""
SETTLEMENTS_AT_A_TIME = 100
"""Pending settlements that are sent at a time."""
MIN_RETRY_SECONDS = 0.02
"""Minimum seconds until a failed settlement is sent again while the store is up; each further try waits
longer."""
TRIES = 20
"""Most attempts at a settlement that the store answers with an error."""


def _ignore(*_: object) -> None:
    return None


class _Settlement(msgspec.Struct):
    """A settlement that the store has not confirmed. `reserve`: its reservations have to be made in the store
    first. `again`: it was sent before and may have been done."""

    claims: Sequence[Claim]
    slots: Sequence[Slot] = ()
    again: bool = False
    reserve: bool = False
    tries: int = 0

    @property
    def repeatable(self) -> bool:
        return any(claim.holder for claim in self.claims)


class Guarded:
    """A BucketStore in front of another.

    `failed` gets the reason of each call that the store did not decide, `decided` who decided a call and
    after how many seconds, `switched` whether the store is down now. `replicas` gateways are expected to
    share the store. Times in seconds.
    """

    def __init__(
        self,
        store: BucketStore,
        fallback: BucketStore,
        mode: Mode = "open",
        *,
        replicas: int = 1,
        failures: int = 3,
        timeout: float = TIMEOUT,
        probe_every: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        failed: Callable[[Reason], object] = _ignore,
        decided: Callable[[Decider, float], object] = _ignore,
        switched: Callable[[bool], object] = _ignore,
    ) -> None:
        self.down = False
        self.lease = store.lease
        self.wall = store.wall if isinstance(store, Dated) else time.time
        self._store = store
        self._mode = mode
        self._failures = failures
        self._timeout = timeout
        self._probe_every = probe_every
        self._clock = clock
        self._sleep = sleep
        self._failed = failed
        self._decided = decided
        self._switched = switched
        self._streak = 0
        self._cause: BaseException | None = None
        """The cause of the last failure that was counted."""
        self._waiting: set[asyncio.Timeout] = set()
        self._probing: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._pending: deque[_Settlement] = deque(maxlen=MAX_PENDING)
        self._share = Share(fallback, replicas, self._charge)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Raises Unavailable if the store is down and the mode is closed."""
        began = self._clock()
        if not self.down:
            try:
                verdict = await self._ask(self._timeout, self._store.take, claims, slots)
            except BucketStoreFailed as error:
                self._note_failure(error)
            else:
                self._decided("store", self._clock() - began)
                return verdict
        if self._mode == "closed":
            self._decided("nobody", self._clock() - began)
            raise Unavailable("The limits cannot be checked now")
        verdict = await self._share.take(claims, slots)
        self._decided("fallback", self._clock() - began)
        return verdict

    async def greet(self) -> None:
        """Sends one request, so that a wrong configuration is reported at the start. Does not raise if the
        store is down."""
        if isinstance(self._store, Remote):
            try:
                await self._ask(MAX_PATIENCE_SECONDS, self._store.greet)
            except BucketStoreFailed as error:
                self._note_failure(error)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Does not raise if the store is down: the call that is settled has its answer already."""
        if self._share.holders and not self._share.holders.isdisjoint(_holders(claims, slots)):
            await self._share.settle(claims, slots)
        else:
            await self._settle(_Settlement(claims, slots, again))

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Does not raise if the store is down: a later renewal holds expired leases again.

        The first renewal after an outage also makes the fallback's reservations in the store.
        """
        others = self._share.holders
        held = [slot for slot in slots if slot.holder not in others]
        reserved = [_of_fallback(claim) if claim.holder in others else claim for claim in claims]
        if (held or reserved) and not self.down:
            try:
                await self._ask(
                    min(self.lease / 3, 10), self._store.renew, held, *([reserved] if reserved else [])
                )
            except BucketStoreFailed as error:
                self._note_failure(error)

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Returns the store's balances after all pending settlements. Raises Unavailable if it does not
        answer."""
        if self.down:
            raise Unavailable("The budgets cannot be read now")
        try:
            await self._settle_pending()
            return await self._ask(max(self._timeout, MAX_PATIENCE_SECONDS), self._store.balances, claims)
        except BucketStoreFailed as error:
            self._note_failure(error)
            raise Unavailable("The budgets cannot be read now") from error

    async def close(self) -> None:
        """Sends pending settlements while the store answers, for at most MAX_PATIENCE_SECONDS."""
        for task in (self._probing, self._settling):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._pending and not self.down:
            with contextlib.suppress(BucketStoreFailed, TimeoutError):
                async with asyncio.timeout(MAX_PATIENCE_SECONDS):
                    await self._settle_pending()
        await self._store.close()
        await self._share.close()

    async def _settle(self, settlement: _Settlement) -> None:
        """Settles in the store; keeps the settlement pending if the store does not answer."""
        if self.down:
            self._pending.append(settlement)
            return
        try:
            await self._settle_one(settlement)
        except BucketStoreFailed as error:
            self._note_failure(error)
            if settlement.repeatable:
                self._add_pending(settlement)
        else:
            if self._pending:
                self._schedule()

    async def _settle_one(self, settlement: _Settlement) -> None:
        """Raises BucketStoreFailed if it may not have been done; a repeatable settlement can then be sent
        again."""
        if settlement.reserve:
            reserved = [
                msgspec.structs.replace(claim, amount=claim.held, held=0.0) for claim in settlement.claims
            ]
            await self._ask(self._timeout, self._store.renew, (), reserved)
            settlement.reserve, settlement.again = False, True
        again = (True,) if settlement.again else ()
        settlement.again = settlement.repeatable  # should this fail, the next try says so
        await self._ask(self._timeout, self._store.settle, settlement.claims, settlement.slots, *again)

    def _charge(self, claims: Sequence[Claim]) -> None:
        """Charges the store for what the fallback decided about budgets. What is reserved is charged when its
        reservation ends."""
        if charges := [claim for claim in claims if not claim.holder]:
            self._add_pending(_Settlement(charges))
        if ended := [_of_fallback(claim) for claim in claims if claim.holder]:
            self._add_pending(_Settlement(ended, reserve=True))

    def _add_pending(self, settlement: _Settlement) -> None:
        self._pending.append(settlement)
        self._schedule()

    def _schedule(self) -> None:
        """Sends pending settlements in the background, unless the store is down: then `_recover` does."""
        if not self.down and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._settle_soon())

    async def _settle_soon(self) -> None:
        """Sends pending settlements, at first soon, in case only the reply was lost: if this process is
        killed, pending settlements are lost with it."""
        pause = min(MIN_RETRY_SECONDS, self._probe_every)
        while self._pending and not self.down:
            await self._sleep(pause)
            pause = min(2 * pause, self._probe_every)
            try:
                await self._settle_pending()
            except BucketStoreFailed as error:
                self._note_failure(error)

    async def _ask(self, timeout: float, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Calls the store. Raises BucketStoreFailed, also if the store is declared down meanwhile."""
        try:
            async with asyncio.timeout(timeout) as deadline:
                self._waiting.add(deadline)
                try:
                    answer = await operation(*arguments)
                finally:
                    self._waiting.discard(deadline)
        except TimeoutError as error:
            raise BucketStoreFailed("timeout") from error
        self._streak = 0
        return answer

    def _note_failure(self, error: BucketStoreFailed) -> None:
        """Counts a failure, and declares the store down after too many in a row. Calls that were lost with the
        same connection have one cause, and count as one."""
        self._failed(error.reason)
        if error.reason not in DOWN or self.down:
            return
        if self._streak and error.__cause__ is not None and error.__cause__ is self._cause:
            return
        self._cause = error.__cause__
        self._streak += 1
        if self._streak >= self._failures:
            self._declare_down()

    def _declare_down(self) -> None:
        self.down = True
        self._switched(True)
        for deadline in self._waiting:
            if not deadline.expired():
                deadline.reschedule(asyncio.get_running_loop().time())
        self._probing = asyncio.create_task(self._recover())

    async def _recover(self) -> None:
        while self.down:
            await self._sleep(self._probe_every)
            try:
                await self._ask(self._timeout, self._store.take, ())
                await self._settle_pending()
            except BucketStoreFailed as error:
                self._failed(error.reason)
            else:
                self.down = False
                self._switched(False)

    async def _settle_pending(self) -> None:
        """Sends all pending settlements. Raises BucketStoreFailed if the store does not answer.

        A settlement that was sent without a reply stays pending if it can be repeated; otherwise it may be
        lost.
        """
        left = len(self._pending)
        while left > 0 and self._pending:
            some = [
                self._pending.popleft() for _ in range(min(SETTLEMENTS_AT_A_TIME, left, len(self._pending)))
            ]
            left -= len(some)
            gone: BucketStoreFailed | None = None
            try:
                outcomes = await asyncio.gather(*map(self._settle_one, some), return_exceptions=True)
            except BaseException:
                self._pending.extendleft(settlement for settlement in reversed(some) if settlement.repeatable)
                raise
            for settlement, outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, BucketStoreFailed):
                    settlement.tries += outcome.reason == "reply"
                    if settlement.repeatable and settlement.tries < TRIES:
                        self._pending.append(settlement)
                    gone = outcome if outcome.reason in DOWN else gone
            if gone is not None:
                raise gone


class Share:
    """A BucketStore for one of `replicas` gateways, which decides locally: capacities and rates are divided
    by their number.

    `charge` gets the amounts taken from or settled in buckets that never refill (reservations when they end).
    `holders`: those that have slots or reservations here.
    """

    lease = float("inf")

    def __init__(
        self, store: BucketStore, replicas: int, charge: Callable[[Sequence[Claim]], object]
    ) -> None:
        self.holders: set[str] = set()
        self._store = store
        self._replicas = replicas
        self._charge = charge

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        verdict = await self._store.take(share_of(claims, self._replicas), self._places(slots))
        if verdict.admitted:
            self.holders |= _holders(claims, slots)
            self._charge_budgets([claim for claim in claims if not claim.holder])
        return msgspec.structs.replace(verdict, by=self)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        self.holders -= _holders(claims, slots)
        await self._store.settle(share_of(claims, self._replicas), self._places(slots))
        self._charge_budgets(claims)

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        await self._store.renew(slots, claims)

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        return await self._store.balances(claims)

    async def close(self) -> None:
        await self._store.close()

    def _places(self, slots: Sequence[Slot]) -> Sequence[Slot]:
        return [
            msgspec.structs.replace(slot, capacity=max(1, slot.capacity // self._replicas)) for slot in slots
        ]

    def _charge_budgets(self, claims: Sequence[Claim]) -> None:
        if budgets := [claim for claim in claims if not claim.limit.rate]:
            self._charge(budgets)


def _holders(claims: Sequence[Claim], slots: Sequence[Slot]) -> set[str]:
    return {claim.holder for claim in claims if claim.holder} | {slot.holder for slot in slots}


def _of_fallback(claim: Claim) -> Claim:
    """Returns the claim with a holder's name of its own, because the store may already have a reservation of
    the same holder."""
    return msgspec.structs.replace(claim, holder=f"{claim.holder}~")


def share_of(claims: Sequence[Claim], replicas: int) -> Sequence[Claim]:
    """Returns the claims with capacity and rate divided by `replicas`. A call that fits the full capacity
    still fits its share, because otherwise large calls could never be admitted."""
    if replicas <= 1:
        return claims
    needed: dict[str, float] = {}
    for claim in claims:
        needed[claim.key] = needed.get(claim.key, 0.0) + claim.amount
    return [
        msgspec.structs.replace(claim, limit=_share(claim.limit, replicas, needed[claim.key]))
        for claim in claims
    ]


def _share(limit: Limit, replicas: int, needed: float) -> Limit:
    return Limit(max(limit.capacity / replicas, min(limit.capacity, needed)), limit.rate / replicas)
