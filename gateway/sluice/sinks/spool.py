"""The records that wait for one sink, and the task that sends them in batches.

The number of waiting records is bounded; further ones are dropped and counted. A batch that the sink does not
accept is stored on disk if there is a directory for it, otherwise it waits in memory; it is tried again with
growing waits for as long as it takes. Batches on disk are sent first, and outlive the process. A batch whose
response was lost is sent twice: delivery is at least once.
"""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

from sluice.config.types import Records
from sluice.sinks.delivery import Delivered, Delivery, RecordBatch
from sluice.sinks.record import Draft
from sluice.sinks.spill import Claimed, Spill

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds until a sink that has failed is tried again; the wait doubles."""
LAST = 10.0
"""Seconds for the last batches when the process ends."""
LOOK = 60.0
"""Seconds between two searches for batches that other processes have left on disk."""
MAX_BATCH_BYTES = 4 << 20
"""Approximate maximum bytes of a batch."""

Result = Literal["delivered", "refused", "dropped", "spilled"]
T = TypeVar("T")


class Spool:
    """`count` gets results and numbers of records; `failed` the reason why a batch was not accepted, or not
    whole; `switched` each change of that reason ("" when batches are accepted again); `lost` the number of
    records that are lost with the process, whose metrics are not scraped any more. `clock` is monotonic,
    `wall` since the epoch. Raises OSError if the spill directory cannot be used."""

    def __init__(
        self,
        config: Records,
        delivery: Delivery,
        *,
        count: Callable[[Result, int], object],
        switched: Callable[[str], object],
        failed: Callable[[str], object],
        lost: Callable[[int], object],
        clock: Callable[[], float],
        wall: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._delivery = delivery
        self._count = count
        self._switched = switched
        self._failed = failed
        self._lost = lost
        self._clock = clock
        self._wall = wall
        self._chance = chance
        self._waiting: deque[Draft] = deque()
        self._size = 0
        self._full = asyncio.Event()
        self._stuck: RecordBatch | None = (
            None  # taken from the waiting records, and neither delivered nor on disk
        )
        self._stuck_size = 0
        self._sending: asyncio.Task[Delivered] | None = None  # of `_stuck`
        self._failures = 0
        self._reason = ""
        self._retry_at = 0.0
        self._spill = Spill(config.spill, config.name, config.spill_max) if config.spill else None
        self._look_at = 0.0  # when to search for batches on disk, of this process or left by others
        self._number = 0
        self._origin = f"{os.uname().nodename[:32]}-{os.getpid()}"
        self._thread = ThreadPoolExecutor(1, "sink")

    def __len__(self) -> int:
        """Records in memory."""
        return len(self._waiting) + (len(self._stuck.lines) if self._stuck is not None else 0)

    def add(self, draft: Draft) -> None:
        """Adds a record. Never waits, and never raises."""
        if self._size + draft.size > self._config.buffer:
            self._count("dropped", 1)
            return
        self._waiting.append(draft)
        self._size += draft.size
        if len(self._waiting) >= self._config.batch:
            self._full.set()

    async def run(self) -> None:
        """Sends until it is cancelled. The rest then has LAST seconds; what is not delivered by then is
        stored on disk."""
        try:
            async with self._delivery:
                try:
                    while True:
                        await self._due()
                        await self._safely()
                finally:
                    await self._rest()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _safely(self) -> None:
        """Does a round. A fault of the gateway, or a directory that cannot be read, is treated like a sink
        that fails: it is tried again later."""
        try:
            await self.round()
        except Exception as fault:
            self._failures += 1
            self._retry_at = self._clock() + LONGEST_WAIT
            self._say(type(fault).__name__)

    async def round(self) -> None:
        """Sends what is waiting, or stores it on disk while the sink fails."""
        if self._clock() < self._retry_at:
            await self._keep_safe(self._config.batch)
            return
        if await self._send_spilled():
            while await self._send_next():
                if len(self._waiting) < self._config.batch:
                    return
        await self._keep_safe(1)

    async def _due(self) -> None:
        """Waits for a batch, or for the time of the next one. While nothing can be stored only the next try
        helps."""
        away = max(0.0, self._retry_at - self._clock())
        if away and (self._spill is None or self._stuck is not None):
            await asyncio.sleep(away)
        elif len(self._waiting) < self._config.batch or away:
            self._full.clear()
            await _wait(self._full, away or self._config.interval)

    # --- sending

    async def _send_next(self) -> bool:
        """Returns whether there was a batch that needs no further try."""
        batch = await self._take()
        if batch is None:
            return False
        if not self._settled(batch, await self._delivered(batch)):
            return False
        self._release(batch)
        return True

    async def _delivered(self, batch: RecordBatch) -> Delivered:
        """Lets a running request continue if its spool is cancelled: if it were sent again, its records would
        arrive twice."""
        if self._sending is None:
            self._sending = asyncio.create_task(self._delivery.deliver(batch))
        try:
            delivered = await asyncio.shield(self._sending)
        except Exception:
            self._sending = None  # if it failed by a fault, the batch is sent anew instead of raising the same fault again
            raise
        self._sending = None
        return delivered

    async def _send_spilled(self) -> bool:
        """Sends the batches on disk. Returns whether the sink accepted them."""
        spill = self._spill
        if spill is None or self._clock() < self._look_at:
            return True
        for name in await self._beside(spill.oldest):
            claimed = await self._beside(spill.claim, name)
            if claimed is not None and not await self._send_claimed(claimed):
                return False
        self._look_at = self._clock() + LOOK
        return True

    async def _send_claimed(self, claimed: Claimed) -> bool:
        with claimed:
            settled = self._settled(claimed.batch, await self._delivery.deliver(claimed.batch))
            if settled:
                await self._beside(claimed.done)
            return settled

    def _settled(self, batch: RecordBatch, delivered: Delivered) -> bool:
        """Counts the result of a batch, and determines when to try again."""
        if delivered.reason:
            self._failed(delivered.reason)
        if delivered.outcome == "again":
            self._failures += 1
            wait = min(FIRST_WAIT * 2 ** min(self._failures - 1, 16), LONGEST_WAIT)
            wait = max(wait * (0.5 + self._chance() / 2), min(delivered.wait, LONGEST_WAIT))
            self._retry_at = self._clock() + wait
            self._say(delivered.reason)
            return False
        self._failures, self._retry_at = 0, 0.0
        self._say(delivered.reason)
        refused = len(batch.lines) if delivered.outcome == "refused" else delivered.refused
        if len(batch.lines) > refused:
            self._count("delivered", len(batch.lines) - refused)
        if refused:
            self._count("refused", refused)
        return True

    def _say(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._switched(reason)

    # --- waiting records

    async def _take(self) -> RecordBatch | None:
        """Returns the batch that could not be sent or stored before, else the oldest waiting records."""
        if self._stuck is not None:
            return self._stuck
        drafts: list[Draft] = []
        size = 0
        while self._waiting and len(drafts) < self._config.batch and size < MAX_BATCH_BYTES:
            drafts.append(self._waiting.popleft())
            size += drafts[-1].size
        if not drafts:
            return None
        self._number += 1
        name = f"{int(self._wall() * 1000):013d}-{self._origin}-{self._number}"
        rendered: list[Draft] | None = drafts
        try:
            lines = await self._beside(_rendered, drafts)
            rendered = None
        finally:
            if rendered is not None:  # cancelled: the lines are left to `_rest`
                self._waiting.extendleft(reversed(rendered))
        self._stuck = RecordBatch(name, drafts[0].at, lines)
        self._stuck_size = size
        return self._stuck

    def _release(self, batch: RecordBatch) -> None:
        """Counts the batch as no longer in memory."""
        if batch is self._stuck:
            self._stuck = None
            self._size -= self._stuck_size

    async def _keep_safe(self, least: int) -> None:
        """Stores waiting records on disk if there are at least `least`."""
        spill = self._spill
        while (
            spill is not None and self._failures and (self._stuck is not None or len(self._waiting) >= least)
        ):
            batch = await self._take()
            if batch is None or not await self._to_disk(spill, batch):
                return

    async def _to_disk(self, spill: Spill, batch: RecordBatch) -> bool:
        try:
            await self._beside(spill.keep, batch)
        except OSError:
            return False  # it waits in memory, as all further ones do
        self._look_at = 0.0
        self._count("spilled", len(batch.lines))
        self._release(batch)
        return True

    async def _rest(self) -> None:
        """Sends the last batches: each is tried once, and stored on disk if it is not accepted. The remaining
        records are lost, and counted."""
        try:
            async with asyncio.timeout(LAST):
                if not self._failures:
                    while await self._send_next():
                        pass
        except TimeoutError:
            if self._sending is not None:
                self._sending.cancel()
        except Exception as fault:  # the remaining ones are stored or counted all the same
            self._say(type(fault).__name__)
        self._failures += bool(len(self))
        await self._keep_safe(1)
        if len(self):
            self._count("dropped", len(self))
            self._lost(len(self))

    async def _beside(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)


def _rendered(drafts: list[Draft]) -> list[bytes]:
    return [draft.line() for draft in drafts]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
