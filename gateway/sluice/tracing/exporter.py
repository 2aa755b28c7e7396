"""Sends spans to an OTLP receiver over HTTP, in batches (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

At most `queue` spans wait; what comes beyond them is dropped, and counted. No call ever waits for a receiver.
"""

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import aiohttp

from sluice.config.types import Tracing
from sluice.tracing.otlp import Span

BATCH = 512
"""Spans of one request."""
DEADLINE = 10.0
"""Seconds for one request, and for all that is left when the process ends."""
BACKOFF, LONGEST, TRIES = 1.0, 30.0, 5
AGAIN = frozenset({429, 502, 503, 504})
"""Statuses after which OTLP has a request sent again."""

Count = Callable[[str, int], object]


def traces_url(endpoint: str) -> str:
    """Returns the URL for traces at a receiver with the base URL `endpoint`; an address with their path is
    unchanged."""
    return endpoint if urlsplit(endpoint).path.endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"


class Exporter:
    """`encode` makes a request's body of spans; `count` is told a result (exported, dropped, failed) and of
    how many spans."""

    def __init__(self, config: Tracing, encode: Callable[[Sequence[Span]], bytes], count: Count) -> None:
        self._url = traces_url(config.endpoint)
        self._headers = {name: value.reveal() for name, value in config.headers.items()}
        self._headers["content-type"] = "application/x-protobuf"
        self._interval = config.interval
        self._most = config.queue
        self._encode = encode
        self._count = count
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
        """Send what waits, every so often or when there is a batch of it, until it is cancelled; the rest
        then has DEADLINE."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
            try:
                while True:
                    if len(self._waiting) < BATCH:
                        self._full.clear()
                        await _wait(self._full, self._interval)
                    if batch := self._take():
                        await self._send(session, batch)
            finally:
                await self._rest(session)

    def _take(self) -> list[Span]:
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        return batch

    async def _rest(self, session: aiohttp.ClientSession) -> None:
        """The last batches, each tried once."""
        try:
            async with asyncio.timeout(DEADLINE):
                while batch := self._take():
                    self._count(await self._once(session, self._encode(batch)) or "failed", len(batch))
        except TimeoutError:
            self._count("failed", len(self._waiting))

    async def _send(self, session: aiohttp.ClientSession, batch: list[Span]) -> None:
        body = self._encode(batch)
        wait = BACKOFF
        try:
            for _ in range(TRIES):
                result = await self._once(session, body)
                if result:
                    self._count(result, len(batch))
                    batch = []
                    return
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST)
            self._count("failed", len(batch))
            batch = []
        finally:
            self._waiting = batch + self._waiting  # cancelled meanwhile: what was not sent is the rest's

    async def _once(self, session: aiohttp.ClientSession, body: bytes) -> str:
        """Returns the result of a request: exported or failed; "": it may be sent again."""
        try:
            async with session.post(
                self._url, data=body, headers=self._headers, allow_redirects=False
            ) as answer:
                if answer.status // 100 == 2:
                    return "exported"
                return "" if answer.status in AGAIN else "failed"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return ""


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
