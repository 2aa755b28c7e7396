"""Counts every finished call, once, and brings the sums to the store."""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import cast

from sluice.pricing.prices import nanos
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import Call
from sluice.usage import BATCH, KEPT_DAYS, Figures, Row, RowRefused, Subject, UsageBatch, UsageFailed, UsageStore, sound

EVERY = 1.0
"""Seconds between two batches."""
MOST = 20_000
"""Most rows pending for the store; further subjects count under OTHER, so that sums stay right."""
OTHER = "other"
LAST_WORDS = 5.0
"""Seconds that the last batch may take when the process ends."""
DAY = 86400


class UsageLedger:
    """Counts finished calls. `wall` gives seconds since the epoch. `failed` is called for each batch that did not arrive
    (it is kept), `succeeded` when all did, `folded` for each call counted under OTHER, `put_aside` for each row that the
    store refuses: it is left out of the report, so that the others are in it."""

    def __init__(
        self,
        store: UsageStore,
        *,
        wall: Callable[[], float],
        failed: Callable[[UsageFailed], object] = lambda error: None,
        succeeded: Callable[[], object] = lambda: None,
        folded: Callable[[], object] = lambda: None,
        put_aside: Callable[[Row], object] = lambda row: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        most: int = MOST,
    ) -> None:
        self.store = store
        self._wall = wall
        self._failed = failed
        self._succeeded = succeeded
        self._folded = folded
        self._put_aside = put_aside
        self._sleep = sleep
        self._most = most
        self._rows: dict[Subject, Figures] = {}
        self._sending: deque[UsageBatch] = deque()
        self._writer = secrets.token_hex(8)
        self._number = 0
        self._midnight = 0.0
        self._day = ""
        self._pruned = ""
        self._flushing = asyncio.Lock()

    # --- counting

    def add(self, call: Call, failed: bool) -> None:
        """A call has ended, whichever way. `failed`: in an error."""
        now = self._wall()
        if not 0 <= now - self._midnight < DAY:
            self._midnight = now // DAY * DAY
            self._day = _name(self._midnight)
        answered = call.answered or (call.attempts[-1] if call.attempts else None)
        whole = self._figures(call, answered)
        whole.requests += 1
        if failed:
            whole.errors += 1
        for attempt in call.attempts:
            used = attempt.used
            if not (used.input or used.output):
                continue
            figures = whole if attempt is answered else self._figures(call, attempt)
            figures.input += used.input
            figures.output += used.output
            if used.cached_input:
                figures.cached_input += used.cached_input
            if used.reasoning:
                figures.reasoning += used.reasoning
            if attempt.usage is None:
                figures.estimated += 1
            if attempt.cost is not None:
                figures.nanos += nanos(attempt.cost)

    def _figures(self, call: Call, attempt: Attempt | None) -> Figures:
        caller, model = call.principal, attempt.target.label if attempt is not None else ""
        fields = (self._day, caller.key_id, caller.tenant, call.route.name, model)  # a Subject is as good a key, but dearer
        found = self._rows.get(cast(Subject, fields))
        if found is None:
            if len(self._rows) >= self._most:
                self._folded()
                fields = (self._day, OTHER, OTHER, OTHER, OTHER)
            found = self._rows.setdefault(Subject(*fields), Figures())
        return found

    # --- bringing

    async def run(self) -> None:
        """Bring a batch a second; until cancelled."""
        while True:
            await self._sleep(EVERY)
            await self.flush()

    async def flush(self) -> bool:
        """Bring everything that was counted so far. False where the store did not take all of it: then it is kept."""
        async with self._flushing:
            try:
                if self._sending:  # these may have arrived: they are brought again as they were
                    await self._send()
                self._sending.extend(self._batches())
                self._rows = {}
                await self._send()
                await self._prune()
            except UsageFailed as error:
                self._failed(error)
                return False
            except Exception as crash:  # a fault of a store's: the next batch must not wait for ever for who brings it
                self._failed(UsageFailed(type(crash).__name__))
                return False
            self._succeeded()
            return True

    async def close(self) -> None:
        """Bring what is left, within a bounded time, and close the store."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS):
                    await self.flush()
        finally:
            await self.store.close()

    async def _send(self) -> None:
        while self._sending:
            try:
                await self.store.add(self._sending[0])
            except RowRefused:
                self._divide(self._sending.popleft())
            else:
                self._sending.popleft()

    def _divide(self, refused: UsageBatch) -> None:
        """Bring the halves of a batch in its place, until the row that is refused stands alone and is put aside.

        Nothing of the batch has arrived, and what waits behind it was never brought: all of it may get new numbers.
        """
        rows = refused.rows
        if len(rows) == 1:
            self._put_aside(rows[0])
            return
        half = len(rows) // 2
        waiting = [(refused.day, rows[:half]), (refused.day, rows[half:])]
        waiting += [(batch.day, batch.rows) for batch in self._sending]
        self._sending = deque(self._batch(day, rows) for day, rows in waiting)

    def _batches(self) -> Iterator[UsageBatch]:
        days: dict[str, list[Row]] = {}
        for row in self._rows.items():
            if sound(row):
                days.setdefault(row[0].day, []).append(row)
            else:
                self._put_aside(row)
        for day, rows in days.items():
            for at in range(0, len(rows), BATCH):
                yield self._batch(day, rows[at : at + BATCH])

    def _batch(self, day: str, rows: Sequence[Row]) -> UsageBatch:
        self._number += 1
        return UsageBatch(self._writer, self._number, day, rows)

    async def _prune(self) -> None:
        """Once a day."""
        if self._day and self._pruned != self._day:
            await self.store.prune(_name(self._midnight - KEPT_DAYS * DAY))
            self._pruned = self._day


def _name(midnight: float) -> str:
    return datetime.fromtimestamp(midnight, UTC).date().isoformat()
