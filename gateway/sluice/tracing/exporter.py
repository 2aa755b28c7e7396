"""Sends spans to an OTLP receiver, in batches. At most `queue` spans wait; further ones are dropped and
counted. No call waits for a receiver."""

import asyncio
import random
from collections.abc import Callable, Sequence

from sluice.config.types import Tracing
from sluice.otlp.client import receiver_of
from sluice.otlp.receiver import TRACES, Exported, OtlpReceiver
from sluice.tracing.otlp import Span

BATCH = 512
"""Maximum spans of one request."""
DEADLINE = 10.0
"""Seconds for one request, and for all remaining spans when the process ends."""
BACKOFF, LONGEST, TRIES = 1.0, 30.0, 5

RESULTS = ("exported", "failed", "dropped")
"""The possible results of a span."""
Count = Callable[[str, int], object]


class Exporter:
    """Sends spans. `encode` makes a request's body of spans; `count` gets a result (one of RESULTS) and the
    number of spans."""

    def __init__(
        self,
        config: Tracing,
        encode: Callable[[Sequence[Span]], bytes],
        count: Count,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._interval = config.interval
        self._most = config.queue
        self._encode = encode
        self._count = count
        self._chance = chance
        self._waiting: list[Span] = []
        self._full = asyncio.Event()

    def add(self, spans: Sequence[Span]) -> None:
        if len(self._waiting) + len(spans) > self._most:
            self._count("dropped", len(spans))
            return
        self._waiting += spans
        if len(self._waiting) >= BATCH:
            self._full.set()

    async def run(self) -> None:
        """Sends waiting spans at intervals, or when there are enough for a batch, until it is cancelled; the
        rest then has DEADLINE."""
        async with receiver_of(self._config, TRACES, DEADLINE) as receiver:
            try:
                while True:
                    if len(self._waiting) < BATCH:
                        self._full.clear()
                        await _wait(self._full, self._interval)
                    if batch := self._take():
                        await self._send(receiver, batch)
            finally:
                await self._rest(receiver)

    def _take(self) -> list[Span]:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        return batch

    async def _rest(self, receiver: OtlpReceiver) -> None:
        """Sends the last batches, each once."""
        batch: list[Span] = []
        try:
            async with asyncio.timeout(DEADLINE):
                while batch := self._take():
                    self._settle(await receiver.export(self._encode(batch)), len(batch))
        except TimeoutError:
            self._count("failed", len(batch) + len(self._waiting))

    async def _send(self, receiver: OtlpReceiver, batch: list[Span]) -> None:
        body = self._encode(batch)
        wait = BACKOFF
        try:
            for tries in range(1, TRIES + 1):
                exported = await receiver.export(body)
                if exported.result != "again" or tries == TRIES:
                    self._settle(exported, len(batch))
                    batch = []
                    return
                wait = min(max(wait, exported.wait), LONGEST)
                await asyncio.sleep(wait * (1 + self._chance() / 5))
                wait *= 2
        finally:
            self._waiting = batch + self._waiting  # cancelled meanwhile: these spans are left to `_rest`

    def _settle(self, exported: Exported, spans: int) -> None:
        """Counts the result of a request that is not sent again."""
        accepted = max(0, spans - exported.rejected) if exported.result == "accepted" else 0
        for result, number in (("exported", accepted), ("failed", spans - accepted)):
            if number:
                self._count(result, number)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
