"""A bucket store as calls use it: what they took is settled whatever becomes of them.

Settling never waits and is never cancelled: it runs in a task of its own, which `close` waits for. Where the store's
slots are leases, one task renews those of all calls while there are any.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence

from sluice.errors import GatewayError
from sluice.limits import BucketStore, Claim, Slot, Verdict

CLOSING = 1.0
"""Seconds for which `close` waits for what is being settled."""


class Ledger:
    """`settled` is told the keys of buckets and slots that may have room again."""

    def __init__(self, store: BucketStore, settled: Callable[[Collection[str]], object] = lambda keys: None) -> None:
        self._store = store
        self._settled = settled
        self._held: dict[str, tuple[Sequence[Slot], Sequence[Claim]]] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    @property
    def settling(self) -> int:
        """Calls whose settling is under way."""
        return len(self._settling)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """All or none. Slots and reservations, of one holder, are kept until they are settled. Raises Unavailable.

        Claims that reserve stand behind all others.
        """
        holder = slots[0].holder if slots else claims[-1].holder if claims else ""
        if not holder:
            return await self._store.take(claims)
        verdict = await self._store.take(claims, slots)
        if verdict.admitted and self._store.lease < math.inf:
            self._held[holder] = slots, [claim for claim in claims if claim.holder]
            if self._renewing is None or self._renewing.done():
                self._renewing = asyncio.create_task(self._renew())
        return verdict

    def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), by: BucketStore | None = None) -> None:
        """Charge or refund, and give the slots back, in one call of the store that decided (`Verdict.by`)."""
        if not claims and not slots:
            return
        if holder := slots[0].holder if slots else claims[-1].holder:
            self._held.pop(holder, None)
        task = asyncio.create_task(self._settle(by or self._store, claims, slots))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def undo(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), by: BucketStore | None = None) -> None:
        """As if they had never been taken."""
        refunds = [
            Claim(c.key, c.limit, 0.0 if c.holder else -c.amount, c.scope, c.resource, c.expires, c.holder, c.amount)
            for c in claims
        ]
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
        except Exception:  # whatever is wrong with an amount, places and reservations come back
            held = [claim for claim in claims if claim.holder and math.isfinite(claim.amount)]
            if slots or held:
                await store.settle(held, slots)
            raise
        finally:
            freed = {claim.key for claim in claims if claim.amount < (claim.held if claim.holder else 0.0)}
            self._settled(freed | {slot.key for slot in slots})

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(self._store.lease / 3)
            slots = [slot for held, _ in self._held.values() for slot in held]
            claims = [claim for _, reserved in self._held.values() for claim in reserved]
            try:
                await self._store.renew(slots, *([claims] if claims else []))
            except GatewayError:
                continue  # the lease is three of these long
