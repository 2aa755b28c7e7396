"""A store that may be down, made safe to wait for.

After `failures` calls in a row without an answer the store is left alone: everyone who still waits for it is let go,
and further calls are decided at once, by the fallback's own buckets (mode "open") or by refusing them ("closed").
The fallback's buckets are this gateway's share of the limits: they are divided by the number of gateways, budgets too.
So an outage admits one limit more, over all gateways together. Slots that the store had given are not counted in it.
Meanwhile one task asks the store every `probe_every` seconds and ends when it has answered and been paid.

A call is settled where it was decided: one that the fallback admitted there (`Verdict.by`), whatever has become of the
store; one that the store admitted in the store, and while that is left alone it is noted and settled when it is back.
Budgets, which never refill, are charged in the store as well for what the fallback admitted: an outage hides no money.

An error that the store answers with concerns that call alone, which is decided without it; others go on asking.
A settlement that fails is not tried again, for it may have been done, unless it ends reservations: by these the store knows
whether it was done, so it is tried until the store has answered. What the fallback reserved has no reservation in the store;
it is given one, under a name of its own, before it is settled there.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from sluice.errors import Unavailable
from sluice.limits import Balance, BucketStore, Claim, Limit, Remote, Slot, Verdict
from sluice.limits.faults import StoreFailed
from sluice.storage import DOWN, Reason

Mode = Literal["open", "closed"]
T = TypeVar("T")
Decider = Literal["store", "fallback", "nobody"]

TIMEOUT = 0.05
"""Seconds that a call waits for the store, where nobody says otherwise."""
GREETING = 1.5
"""Seconds that a start waits for the store at most."""
OWED = 10_000
"""Settlements noted while the store is left alone; the oldest are dropped beyond it."""
TOGETHER = 100
"""Of them on their way at a time."""
TRIES = 20
"""Times that a settlement is tried that the store answers with an error of its own."""


def _ignore(*_: object) -> None:
    return None


class _Debt(msgspec.Struct):
    """A settlement that the store has not confirmed. `reserve`: its reservations are not known to be there yet."""

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

    `failed` is told the reason of each call that the store did not decide, `decided` who decided a call and how many
    seconds that took, `switched` whether the store is now left alone. `replicas` gateways are expected to share the
    store. Times in seconds.
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
        self._waiting: set[asyncio.Timeout] = set()
        self._probing: asyncio.Task[None] | None = None
        self._paying: asyncio.Task[None] | None = None
        self._owed: deque[_Debt] = deque(maxlen=OWED)
        self._share = Share(fallback, replicas, self._charge)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Raises Unavailable where the store is down and the mode is closed."""
        began = self._clock()
        if not self.down:
            try:
                verdict = await self._ask(self._timeout, self._store.take, claims, slots)
            except StoreFailed as error:
                self._count(error.reason)
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
        """Ask the store once, so that what is wrong with it is said at the start. Never raises for a store that is down."""
        if isinstance(self._store, Remote):
            try:
                await self._ask(GREETING, self._store.greet)
            except StoreFailed as error:
                self._count(error.reason)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Never raises for a store that is down: the call it belongs to has been answered."""
        if self._share.holders and not self._share.holders.isdisjoint(_holders(claims, slots)):
            await self._share.settle(claims, slots)
        else:
            await self._pay(_Debt(claims, slots, again))

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Never raises for a store that is down: what was lost is held again by a later renewal.

        What the fallback reserved is reserved in the store, too, from the first renewal after an outage on.
        """
        others = self._share.holders
        held = [slot for slot in slots if slot.holder not in others]
        reserved = [_of_fallback(claim) if claim.holder in others else claim for claim in claims]
        if (held or reserved) and not self.down:
            try:
                await self._ask(min(self.lease / 3, 10), self._store.renew, held, *([reserved] if reserved else []))
            except StoreFailed as error:
                self._count(error.reason)

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """As the store has them, when what is owed to it is paid. Raises Unavailable where it does not answer."""
        if self.down:
            raise Unavailable("The budgets cannot be read now")
        try:
            await self._settle_debts()
            return await self._ask(max(self._timeout, GREETING), self._store.balances, claims)
        except StoreFailed as error:
            self._count(error.reason)
            raise Unavailable("The budgets cannot be read now") from error

    async def close(self) -> None:
        """Pays what is owed while the store answers, for GREETING at most."""
        for task in (self._probing, self._paying):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._owed and not self.down:
            with contextlib.suppress(StoreFailed, TimeoutError):
                async with asyncio.timeout(GREETING):
                    await self._settle_debts()
        await self._store.close()
        await self._share.close()

    async def _pay(self, debt: _Debt) -> None:
        """Settle in the store; or note it, for when the store is back or answers."""
        if self.down:
            self._owed.append(debt)
            return
        try:
            await self._settle_one(debt)
        except StoreFailed as error:
            self._count(error.reason)
            if debt.repeatable:
                self._note(debt)
        else:
            if self._owed:
                self._pay_soon()

    async def _settle_one(self, debt: _Debt) -> None:
        """Raises StoreFailed where it is not known to have been done; then it may be tried again, if it is repeatable."""
        if debt.reserve:
            reserved = [msgspec.structs.replace(claim, amount=claim.held, held=0.0) for claim in debt.claims]
            await self._ask(self._timeout, self._store.renew, (), reserved)
            debt.reserve, debt.again = False, True
        again = (True,) if debt.again else ()
        debt.again = debt.repeatable
        await self._ask(self._timeout, self._store.settle, debt.claims, debt.slots, *again)

    def _charge(self, claims: Sequence[Claim]) -> None:
        """What the fallback has decided about budgets."""
        if plain := [claim for claim in claims if not claim.holder]:
            self._note(_Debt(plain))
        if ended := [_of_fallback(claim) for claim in claims if claim.holder]:
            self._note(_Debt(ended, reserve=True))

    def _note(self, debt: _Debt) -> None:
        self._owed.append(debt)
        self._pay_soon()

    def _pay_soon(self) -> None:
        """Pay what is owed to a store that answers; where it is left alone it is paid when it is back."""
        if not self.down and (self._paying is None or self._paying.done()):
            self._paying = asyncio.create_task(self._pay_up())

    async def _pay_up(self) -> None:
        while self._owed and not self.down:
            await self._sleep(self._probe_every)
            try:
                await self._settle_debts()
            except StoreFailed as error:
                self._count(error.reason)

    async def _ask(self, timeout: float, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Raises StoreFailed, also where everyone who waits is let go."""
        try:
            async with asyncio.timeout(timeout) as deadline:
                self._waiting.add(deadline)
                try:
                    answer = await operation(*arguments)
                finally:
                    self._waiting.discard(deadline)
        except TimeoutError as error:
            raise StoreFailed("timeout") from error
        self._streak = 0
        return answer

    def _count(self, reason: Reason) -> None:
        self._failed(reason)
        if reason not in DOWN or self.down:
            return
        self._streak += 1
        if self._streak >= self._failures:
            self._leave_alone()

    def _leave_alone(self) -> None:
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
                await self._settle_debts()
            except StoreFailed as error:
                self._failed(error.reason)
            else:
                self.down = False
                self._switched(False)

    async def _settle_debts(self) -> None:
        """Pay all that is owed now. Raises StoreFailed where the store is gone again.

        Those that were on their way are then owed still if they can be repeated, else they may be lost.
        """
        left = len(self._owed)
        while left > 0 and self._owed:
            some = [self._owed.popleft() for _ in range(min(TOGETHER, left, len(self._owed)))]
            left -= len(some)
            gone: StoreFailed | None = None
            try:
                outcomes = await asyncio.gather(*map(self._settle_one, some), return_exceptions=True)
            except BaseException:
                self._owed.extendleft(debt for debt in reversed(some) if debt.repeatable)
                raise
            for debt, outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, StoreFailed):
                    debt.tries += outcome.reason == "reply"
                    if debt.repeatable and debt.tries < TRIES:
                        self._owed.append(debt)
                    gone = outcome if outcome.reason in DOWN else gone
            if gone is not None:
                raise gone


class Share:
    """A BucketStore for one of `replicas` gateways that decides alone: capacities and rates are divided by their number.

    `charge` is given what was taken from or settled in buckets that never refill, reservations when they end. `holders` have
    slots or reservations here.
    """

    lease = float("inf")

    def __init__(self, store: BucketStore, replicas: int, charge: Callable[[Sequence[Claim]], object]) -> None:
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
        return [msgspec.structs.replace(slot, capacity=max(1, slot.capacity // self._replicas)) for slot in slots]

    def _charge_budgets(self, claims: Sequence[Claim]) -> None:
        if budgets := [claim for claim in claims if not claim.limit.rate]:
            self._charge(budgets)


def _holders(claims: Sequence[Claim], slots: Sequence[Slot]) -> set[str]:
    return {claim.holder for claim in claims if claim.holder} | {slot.holder for slot in slots}


def _of_fallback(claim: Claim) -> Claim:
    """The claim as the store gets it that did not decide about it: it may hold a reservation of the same holder, unheard of."""
    return msgspec.structs.replace(claim, holder=f"{claim.holder}~")


def share_of(claims: Sequence[Claim], replicas: int) -> Sequence[Claim]:
    """The claims as one of `replicas` gateways decides them alone: capacity and rate are divided by their number.

    What one call asks of a bucket still fits it, if it fits the whole one: else large calls could never be admitted.
    """
    if replicas <= 1:
        return claims
    asked: dict[str, float] = {}
    for claim in claims:
        asked[claim.key] = asked.get(claim.key, 0.0) + claim.amount
    return [msgspec.structs.replace(claim, limit=_share(claim.limit, replicas, asked[claim.key])) for claim in claims]


def _share(limit: Limit, replicas: int, asked: float) -> Limit:
    return Limit(max(limit.capacity / replicas, min(limit.capacity, asked)), limit.rate / replicas)
