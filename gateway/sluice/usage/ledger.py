"""Counts every finished call once, and sends the sums to the store."""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import cast

import msgspec

from sluice.pricing.prices import nanos
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import Call
from sluice.usage import (
    BATCH,
    HOUR,
    KEPT_DAYS,
    TAG,
    Figures,
    Row,
    RowRefused,
    Subject,
    UsageBatch,
    UsageFailed,
    UsageStore,
    sound,
)
from sluice.usage.tags import OTHER, Values

EVERY = 1.0
"""Seconds between two batches."""
MAX_PENDING_ROWS = 20_000
"""Maximum rows that wait for the store; further subjects are counted under OTHER, so that sums stay right."""
LAST_WORDS = 5.0
"""Maximum seconds for the last batch when the process ends."""
DAY = 86400
HOUR_LONG = 3600
"""Seconds."""


class UsageLedger:
    """Counts finished calls.

    `wall` gives seconds since the epoch. `failed` is called for each batch that did not arrive (it is kept),
    `succeeded` when all did, `folded` for each call that is counted under OTHER, `put_aside` for each row
    that the store refuses: it is left out of the report, so that the other rows are in it. `hourly_days`:
    days for which usage is also kept by the hour; 0: it is not. `steady`: the
    clock for what is deleted by age; None: `wall`.
    """

    def __init__(
        self,
        store: UsageStore,
        *,
        wall: Callable[[], float],
        steady: Callable[[], float] | None = None,
        failed: Callable[[UsageFailed], object] = lambda error: None,
        succeeded: Callable[[], object] = lambda: None,
        folded: Callable[[], object] = lambda: None,
        put_aside: Callable[[Row], object] = lambda row: None,
        hourly_days: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        most: int = MAX_PENDING_ROWS,
    ) -> None:
        self.store = store
        self._wall = wall
        self._steady = steady if steady is not None else wall
        self._failed = failed
        self._succeeded = succeeded
        self._folded = folded
        self._put_aside = put_aside
        self._sleep = sleep
        self._most = most
        self._hourly_days = hourly_days
        self._rows: dict[Subject, Figures] = {}
        """By the hour, if hours are kept: a row of the day is then the sum of its hours."""
        self._tagged: dict[str, dict[Subject, Figures]] = {}
        """By the name of the tag."""
        self._values = Values()
        self._sending: deque[UsageBatch] = deque()
        self._writer = secrets.token_hex(8)
        self._number = 0
        self._began = 0.0
        self._day = ""
        self._hour = ""
        self._pruned = ""
        self._flushing = asyncio.Lock()

    # --- counting

    def add(self, call: Call, failed: bool) -> None:
        """Counts a finished call. `failed`: it ended in an error."""
        now = self._wall()
        if not 0 <= now - self._began < HOUR_LONG:
            self._begin(now)
        self._count(self._rows, self._hour, call, failed)
        if call.tags:
            for name, value in call.tags:
                self._count(self._tagged.setdefault(name, {}), value, call, failed)

    def apart(self, tag: str, value: str, most: int) -> str:
        """Returns the value that a call with this tag is counted under, if `most` values per day are counted
        separately."""
        now = self._wall()
        if not 0 <= now - self._began < HOUR_LONG:
            self._begin(now)
        return self._values.apart(self._day, tag, value, most)

    def _begin(self, now: float) -> None:
        """Begins another hour."""
        self._began = now // HOUR_LONG * HOUR_LONG
        self._day = _name(self._began)
        self._hour = f"{int(self._began % DAY) // HOUR_LONG:02}" if self._hourly_days else ""

    def _count(self, rows: dict[Subject, Figures], value: str, call: Call, failed: bool) -> None:
        """Counts the call in `rows`, under this value of their dimension."""
        answered = call.answered or (call.attempts[-1] if call.attempts else None)
        whole = self._figures(rows, value, call, answered)
        whole.requests += 1
        if failed:
            whole.errors += 1
        for attempt in call.attempts:
            used = attempt.used
            if not (used.input or used.output):
                continue
            figures = whole if attempt is answered else self._figures(rows, value, call, attempt)
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

    def _figures(
        self, rows: dict[Subject, Figures], value: str, call: Call, attempt: Attempt | None
    ) -> Figures:
        caller, model = call.principal, attempt.target.label if attempt is not None else ""
        # A Subject would work as a key, but is slower.
        fields = (self._day, caller.key_id, caller.tenant, call.route.name, model, value)
        found = rows.get(cast(Subject, fields))
        if found is None:
            if len(rows) >= self._most:
                self._folded()
                fields = (self._day, OTHER, OTHER, OTHER, OTHER, value)
            found = rows.setdefault(Subject(*fields), Figures())
        return found

    # --- sending

    async def run(self) -> None:
        """Sends a batch per second, until cancelled."""
        while True:
            await self._sleep(EVERY)
            await self.flush()

    async def flush(self) -> bool:
        """Sends everything that was counted so far. Returns False if the store did not take all of it: then
        it is kept."""
        async with self._flushing:
            try:
                if self._sending:  # these may have arrived: they are sent again unchanged
                    await self._send()
                self._sending.extend(self._batches())
                self._rows, self._tagged = {}, {}
                await self._send()
                await self._prune()
            except UsageFailed as error:
                self._failed(error)
                return False
            except Exception as crash:  # a fault of a store: the next batch must not wait for ever for the task that sends it
                self._failed(UsageFailed(type(crash).__name__))
                return False
            self._succeeded()
            return True

    async def close(self) -> None:
        """Sends the rest, within a bounded time, and closes the store."""
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
        """Replaces a batch by its halves, until the row that is refused is alone and is put aside.

        Nothing of the batch has arrived, and the batches after it were never sent, so all of them may get new
        numbers.
        """
        rows = refused.rows
        if len(rows) == 1:
            self._put_aside(rows[0])
            return
        half = len(rows) // 2
        waiting = [refused, msgspec.structs.replace(refused, rows=rows[half:]), *self._sending]
        waiting[0] = msgspec.structs.replace(refused, rows=rows[:half])
        self._sending = deque(msgspec.structs.replace(batch, number=self._next()) for batch in waiting)

    def _batches(self) -> Iterator[UsageBatch]:
        if self._hourly_days:
            yield from self._of_dimension("", _without_values(self._rows))
            yield from self._of_dimension(HOUR, self._rows, self._hourly_days)
        else:
            yield from self._of_dimension("", self._rows)
        for name, rows in self._tagged.items():
            yield from self._of_dimension(TAG + name, rows)

    def _of_dimension(
        self, dimension: str, rows: Mapping[Subject, Figures], kept: int = KEPT_DAYS
    ) -> Iterator[UsageBatch]:
        days: dict[str, list[Row]] = {}
        for row in rows.items():
            if sound(row):
                days.setdefault(row[0].day, []).append(row)
            else:
                self._put_aside(row)
        for day, of_day in days.items():
            for at in range(0, len(of_day), BATCH):
                yield UsageBatch(self._writer, self._next(), day, of_day[at : at + BATCH], dimension, kept)

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _prune(self) -> None:
        """Deletes old days, once per day."""
        now = self._steady()
        if self._day and self._pruned != (today := _name(now)):
            await self.store.prune(_name(now - KEPT_DAYS * DAY))
            await self.store.prune(_name(now - self._hourly_days * DAY), HOUR)
            self._pruned = today


def _name(midnight: float) -> str:
    return datetime.fromtimestamp(midnight, UTC).date().isoformat()


def _without_values(rows: Mapping[Subject, Figures]) -> dict[Subject, Figures]:
    """Returns the rows of the day: the sums of its hours."""
    found: dict[Subject, Figures] = {}
    for subject, figures in rows.items():
        day = subject._replace(value="")
        if (known := found.get(day)) is not None:
            known.add(figures)
        else:
            found[day] = msgspec.structs.replace(figures)
    return found
