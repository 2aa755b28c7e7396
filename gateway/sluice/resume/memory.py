"""Journals of one process. Bounded in streams, in bytes per stream and in bytes altogether.

At a bound, the streams that ended first are deleted, then the oldest running ones become `unresumable`.
"""

import asyncio
import heapq
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence

from sluice.errors import NotResumable
from sluice.resume import BATCH, MAX_STREAM, Found, FrameBatch, StreamHead

MAX_STREAMS = 4_096
MAX_BYTES = 256 << 20
FRAME = 64
"""Estimated overhead of a frame, in bytes."""


class MemoryJournal:
    """One stream. `grown` gets the bytes that were added (or freed); `ended` is called once it will not grow
    any more."""

    def __init__(
        self,
        head: StreamHead,
        limit: int,
        clock: Callable[[], float],
        grown: Callable[[int], None],
        ended: Callable[[], None],
    ) -> None:
        self.head = head
        self.frames: list[bytes] = []
        self.size = 0
        self.unresumable = False
        self.ended = False
        self.cut = False
        self._limit = limit
        self._clock = clock
        self._grown = grown
        self._ended = ended
        self._readers: set[asyncio.Event] = set()
        self._read_at = -math.inf

    def append(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        if self.unresumable or self.over:
            return
        size = sum(map(len, frames)) + FRAME * len(frames)
        if self.size + size > self._limit:
            return self.drop_frames()
        self.frames += frames
        self.size += size
        self.ended = last
        self._grown(size)
        self._notify()
        if last:
            self._ended()

    def close(self) -> None:
        if not self.over:
            self.cut = True
            self._notify()
            self._ended()

    def drop_frames(self) -> None:
        """Free the frames: the stream is not resumable any more."""
        if not self.unresumable:
            self.unresumable = True
            self._grown(-self.size)
            self.size = 0
            self.frames = []
            self._notify()

    @property
    def over(self) -> bool:
        return self.ended or self.cut

    @property
    def unread(self) -> float:
        return 0.0 if self._readers else self._clock() - self._read_at

    async def read(self, after: int, patience: float | None) -> AsyncGenerator[FrameBatch, None]:
        news = asyncio.Event()
        self._readers.add(news)
        position = after + 1
        try:
            while True:
                news.clear()
                batch = self._batch(position)
                if batch:
                    position += len(batch)
                last = self.ended and position >= len(self.frames)
                if batch or last:
                    yield FrameBatch(b"".join(batch), last)
                    if last:
                        return
                elif self.cut:
                    raise NotResumable("The stream was cut")
                elif not await _within(news, patience):
                    yield FrameBatch(b"")
        finally:
            self._readers.discard(news)
            self._read_at = self._clock()

    def _batch(self, position: int) -> list[bytes]:
        if self.unresumable:
            raise NotResumable("The stream is not kept any more")
        batch: list[bytes] = []
        left = BATCH
        while position < len(self.frames) and (not batch or len(self.frames[position]) <= left):
            batch.append(self.frames[position])
            left -= len(self.frames[position])
            position += 1
        return batch

    def _notify(self) -> None:
        for news in self._readers:
            news.set()


class MemoryJournals:
    """`clock` gives seconds and should be monotonic."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        streams: int = MAX_STREAMS,
        stream_bytes: int = MAX_STREAM,
        all_bytes: int = MAX_BYTES,
    ) -> None:
        self._clock = clock
        self._max_streams = streams
        self._max_stream = stream_bytes
        self._max_bytes = all_bytes
        self._kept: OrderedDict[str, MemoryJournal] = OrderedDict()
        self._over: OrderedDict[str, None] = OrderedDict()  # ended or cut, in order of their end
        self._expiries: list[tuple[float, str]] = []
        self._bytes = 0

    async def open(self, stream: str, head: StreamHead) -> MemoryJournal:
        self._expire()
        journal = MemoryJournal(
            head, self._max_stream, self._clock, self._grown, lambda: self._ended(stream, head.window)
        )
        self._kept[stream] = journal
        self._evict()
        return journal

    async def find(self, stream: str) -> Found | None:
        self._expire()
        journal = self._kept.get(stream)
        if journal is None:
            return None
        return Found(journal.head, len(journal.frames) - 1, journal.ended, journal.unresumable)

    def read(self, stream: str, after: int, patience: float | None) -> AsyncGenerator[FrameBatch, None]:
        journal = self._kept.get(stream)
        if journal is None:
            raise NotResumable("The stream is not kept any more")
        return journal.read(after, patience)

    async def close(self) -> None:
        for journal in list(self._kept.values()):
            journal.close()

    def _grown(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            self._evict()

    def _ended(self, stream: str, window: float) -> None:
        if stream in self._kept:
            self._over[stream] = None
            heapq.heappush(self._expiries, (self._clock() + window, stream))

    def _expire(self) -> None:
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            self._forget(heapq.heappop(self._expiries)[1])

    def _evict(self) -> None:
        while self._bytes > self._max_bytes or len(self._kept) > self._max_streams:
            self._forget(next(iter(self._over or self._kept)))

    def _forget(self, stream: str) -> None:
        self._over.pop(stream, None)
        journal = self._kept.pop(stream, None)
        if journal is None:
            return
        if journal.over:
            self._bytes -= journal.size  # its readers may finish
        else:
            journal.drop_frames()


async def _within(news: asyncio.Event, patience: float | None) -> bool:
    """Returns whether there was news within `patience` seconds."""
    try:
        async with asyncio.timeout(patience):
            await news.wait()
    except TimeoutError:
        return False
    return True
