"""A bucket store as calls use it: what they took is settled whatever becomes of them.

Settling never waits and is never cancelled: it runs in a task of its own, which `close` waits for. Where the store's
slots are leases, one task renews those of all calls while there are any.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence

from gateway.errors import GatewayError
from gateway.limits import BucketStore, Claim, Slot, Verdict

CLOSING = 1.0
"""Seconds for which `close` waits for what is being settled."""


class Ledger:
    """`settled` is told the keys of buckets and slots that may have room again."""

    def __init__(self, store: BucketStore, settled: Callable[[Collection[str]], object] = lambda keys: None) -> None:
        self._store = store
        self._settled = settled
        self._held: dict[str, Sequence[Slot]] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    @property
    def settling(self) -> int:
        """Calls whose settling is under way."""
        return len(self._settling)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """All or none. The slots, of one holder, are kept until they are settled. Raises Unavailable."""
        if not slots:
            return await self._store.take(claims)
        verdict = await self._store.take(claims, slots)
        if verdict.admitted and self._store.lease < math.inf:
            self._held[slots[0].holder] = slots
            if self._renewing is None or self._renewing.done():
                self._renewing = asyncio.create_task(self._renew())
        return verdict

    def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), by: BucketStore | None = None) -> None:
        """Charge or refund, and give the slots back, in one call of the store that decided (`Verdict.by`)."""
        if not claims and not slots:
            return
        if slots:
            self._held.pop(slots[0].holder, None)
        task = asyncio.create_task(self._settle(by or self._store, claims, slots))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def undo(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), by: BucketStore | None = None) -> None:
        """As if they had never been taken."""
        refunds = [Claim(c.key, c.limit, -c.amount, c.scope, c.resource, c.expires) for c in claims]
        self.settle(refunds, slots, by)

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self._settling:
            await asyncio.wait(self._settling, timeout=CLOSING)

    async def _settle(self, store: BucketStore, claims: Sequence[Claim], slots: Sequence[Slot]) -> None:
        try:
            await store.settle(claims, slots)
        except Exception:
            if claims and slots:  # whatever is wrong with an amount, the places come back
                await store.settle((), slots)
            raise
        finally:
            self._settled({claim.key for claim in claims if claim.amount < 0} | {slot.key for slot in slots})

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(self._store.lease / 3)
            slots = [slot for held in self._held.values() for slot in held]
            try:
                await self._store.renew(slots)
            except GatewayError:
                continue  # the lease is three of these long
