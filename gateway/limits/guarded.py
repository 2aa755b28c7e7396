"""A store that may be down, made safe to wait for.

After `failures` calls in a row without an answer the store is left alone: everyone who still waits for it is let go,
and further calls are decided at once, by the fallback's own buckets (mode "open") or by refusing them ("closed").
The fallback's buckets are this gateway's share of the limits: they are divided by the number of gateways.
Meanwhile one task asks the store every `probe_every` seconds and ends when it has answered.

An error that the store answers with concerns that call alone, which is decided without it; others go on asking.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

import msgspec

from gateway.errors import Unavailable
from gateway.limits import BucketStore, Claim, Limit, Verdict
from gateway.limits.faults import Reason, StoreFailed

Mode = Literal["open", "closed"]
T = TypeVar("T")
Decider = Literal["store", "fallback", "nobody"]


def _ignore(*_: object) -> None:
    return None


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
        timeout: float = 0.05,
        probe_every: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        failed: Callable[[Reason], object] = _ignore,
        decided: Callable[[Decider, float], object] = _ignore,
        switched: Callable[[bool], object] = _ignore,
    ) -> None:
        self.down = False
        self._store = store
        self._fallback = fallback
        self._mode = mode
        self._replicas = replicas
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

    async def take(self, claims: Sequence[Claim]) -> Verdict:
        """Raises Unavailable where the store is down and the mode is closed."""
        began = self._clock()
        if not self.down:
            try:
                verdict = await self._ask(self._store.take, claims)
            except StoreFailed as error:
                self._count(error.reason)
            else:
                self._decided("store", self._clock() - began)
                return verdict
        if self._mode == "closed":
            self._decided("nobody", self._clock() - began)
            raise Unavailable("The limits cannot be checked now")
        verdict = await self._fallback.take(share_of(claims, self._replicas))
        self._decided("fallback", self._clock() - began)
        return verdict

    async def settle(self, claims: Sequence[Claim]) -> None:
        """Never raises for a store that is down: the call it belongs to has been answered."""
        if not self.down:
            try:
                return await self._ask(self._store.settle, claims)
            except StoreFailed as error:
                self._count(error.reason)
        if self._mode == "open":
            await self._fallback.settle(share_of(claims, self._replicas))

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self._store.close()
        await self._fallback.close()

    async def _ask(self, operation: Callable[[Sequence[Claim]], Awaitable[T]], claims: Sequence[Claim]) -> T:
        """Raises StoreFailed, also where everyone who waits is let go."""
        try:
            async with asyncio.timeout(self._timeout) as deadline:
                self._waiting.add(deadline)
                try:
                    answer = await operation(claims)
                finally:
                    self._waiting.discard(deadline)
        except TimeoutError as error:
            raise StoreFailed("timeout") from error
        self._streak = 0
        return answer

    def _count(self, reason: Reason) -> None:
        self._failed(reason)
        if reason == "reply" or self.down:
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
                await self._ask(self._store.take, ())
            except StoreFailed as error:
                self._failed(error.reason)
            else:
                self.down = False
                self._switched(False)


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
