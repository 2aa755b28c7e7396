"""Journals in Redis (5.0 or newer), for readers in any process.

A stream is one Redis stream: its entry 1 is the head, then each entry holds the frames that came during the last write
(`XADD`; there is one write under way per stream), field by number. The entry's id is its last frame's number and 2, so
that a reader finds its place at once. Beside it stand, with a lease each, `alive` (its writer is) and `read` (somebody
is reading it), and `lost` (the head of a stream that cannot be resumed any more). Everything expires by itself.

Readers wait with `XREAD BLOCK`, on connections of their own. A failure costs a stream its journal, never its client:
it is reported once per outage, and the store is left alone for a while.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.errors import NotResumable, Unavailable
from gateway.resume import BATCH, MAX_STREAM, Batch, Found, Head

LEASE = 15.0
"""Seconds after which a writer that says nothing is taken for dead; it says so three times in between."""
PENDING = 1 << 20
"""Bytes that may wait for a write."""
TIMEOUT = 1.0
"""Seconds for one write."""
LEFT_ALONE = 5.0
"""Seconds after a failure during which no stream is opened."""
SHORTEST = 1.0
"""Seconds for which a stream is there after its end, however short its window: its readers need its last frames."""
WRITERS = 64
READERS = 512
ENTRIES = 16
FAILURES = (RedisError, OSError, TimeoutError)

_head = msgspec.json.Decoder(Head).decode
_json = msgspec.json.Encoder().encode


def entry_of(number: int) -> str:
    """The id of the entry whose last frame has this number."""
    return f"{number + 2}-0"


class Keys:
    """The names of one stream's keys; they are in one slot of a cluster."""

    __slots__ = ("alive", "log", "lost", "read")

    def __init__(self, prefix: str, stream: str) -> None:
        self.log = f"{prefix}:resume:{{{stream}}}"
        self.alive = f"{self.log}:alive"
        self.read = f"{self.log}:read"
        self.lost = f"{self.log}:lost"


class RedisJournal:
    """One stream's writer: frames wait in `_pending` until the write that is under way has ended."""

    def __init__(self, store: "RedisJournals", keys: Keys, head: Head, *, lost: bool) -> None:
        self.lost = lost
        self._store = store
        self._keys = keys
        self._head = head
        self._pending: list[bytes] = []
        self._waiting = 0
        self._size = 0
        self._next = 0
        self._ended = self._closed = self._too_long = False
        self._read_at = -math.inf
        self._news = asyncio.Event()

    @property
    def unread(self) -> float:
        return time.monotonic() - self._read_at

    def append(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        if self.lost or self._ended or self._closed:
            return
        size = sum(map(len, frames))
        self._size += size
        self._waiting += size
        if self._size > self._store.stream_bytes or self._waiting > PENDING:
            self.lost = self._too_long = True
            self._pending = []
        else:
            self._pending += frames
            self._ended = last
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    async def write(self) -> None:
        """Write until the end. To be run as a task."""
        try:
            while not (self._too_long or (self._over and not self._pending)):
                await self._heard()
                async with asyncio.timeout(TIMEOUT):
                    await self._flush()
            if not self._ended:
                async with asyncio.timeout(TIMEOUT):
                    await self._give_up()
        except FAILURES as error:
            self.lost = True
            self._pending = []
            self._store.failed(error)

    @property
    def _over(self) -> bool:
        return self._ended or self._closed

    async def _heard(self) -> None:
        """Waits for something to write, or for the lease to be renewed."""
        try:
            async with asyncio.timeout(self._store.lease / 3):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def _flush(self) -> None:
        store, keys = self._store, self._keys
        now = time.monotonic()
        pending, self._pending, self._waiting = self._pending, [], 0
        async with store.writing.pipeline(transaction=False) as pipe:
            for entry in _entries(pending):
                fields: dict[Any, Any] = {self._next + offset: frame for offset, frame in enumerate(entry)}
                self._next += len(entry)
                if self._ended and self._next == self._first_of(pending) + len(pending):
                    fields["end"] = 1
                pipe.xadd(keys.log, fields, id=entry_of(self._next - 1))
            self._keep(pipe)
            pipe.get(keys.read)
            *_, read = await pipe.execute()
        if read is not None:
            self._read_at = now

    def _keep(self, pipe: Any) -> None:
        window = max(self._head.window, SHORTEST)
        if self._ended:
            pipe.pexpire(self._keys.log, int(window * 1000))
        else:
            pipe.pexpire(self._keys.log, int((window + self._store.lease) * 1000))
            pipe.set(self._keys.alive, 1, px=int(self._store.lease * 1000))
