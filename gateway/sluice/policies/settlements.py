"""Takes claims from a bucket store and settles them, however the call ends.

Settling never blocks the call and is never cancelled: it runs in a task of its own, which `close` waits for.
Where the store's slots are leases, one task renews the leases of all calls.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence

from sluice.errors import GatewayError
from sluice.limits import BucketStore, Claim, Slot, Verdict

CLOSING = 1.0
"""Seconds for which `close` waits for settlements under way."""


class Settlements:
    """Wraps a bucket store. `settled` gets the keys of buckets and slots that may have capacity again."""

    def __init__(
        self, store: BucketStore, settled: Callable[[Collection[str]], object] = lambda keys: None
    ) -> None:
        self._store = store
        self._settled = settled
        self._held: dict[str, tuple[Sequence[Slot], Sequence[Claim]]] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None

    @property
    def settling(self) -> int:
        """The number of calls that are being settled."""
        return len(self._settling)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Takes all claims and slots, or none. Slots and reservations have one holder, and are renewed until
        they are settled.

        Claims that reserve come after all others. Raises Unavailable.
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

    def settle(
        self, claims: Sequence[Claim], slots: Sequence[Slot] = (), by: BucketStore | None = None
    ) -> None:
        """Charges or refunds, and releases the slots, in one call of the store that decided
        (`Verdict.by`)."""
        if not claims and not slots:
            return
        if holder := slots[0].holder if slots else claims[-1].holder:
            self._held.pop(holder, None)
        task = asyncio.create_task(self._settle(by or self._store, claims, slots))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def undo(
        self, claims: Sequence[Claim], slots: Sequence[Slot] = (), by: BucketStore | None = None
    ) -> None:
        """Refunds everything, as if it had never been taken."""
        refunds = [
            Claim(
                c.key,
                c.limit,
                0.0 if c.holder else -c.amount,
                c.scope,
                c.resource,
                c.expires,
                c.holder,
                c.amount,
            )
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
        except Exception:  # an unusable amount must not keep slots and reservations
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
                continue  # two more tries before the lease ends
