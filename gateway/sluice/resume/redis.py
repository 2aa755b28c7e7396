"""Journals in Redis (5.0 or newer), for readers in any process.

A stream is one Redis stream: its entry 1 is the head; each further entry holds the frames that came during
the last write (`XADD`; one write per stream is in progress at a time), with their numbers as fields. The
entry's id is its last frame's number and 2, so that a reader finds its position at once. Further keys:
`alive` (a lease of its writer), `read` (a lease of its readers), and `unresumable` (the head of a stream that
cannot be resumed any more). All keys expire. Readers wait with `XREAD BLOCK`, on connections of their own.
After a failure a stream continues for its client without a journal; the failure is reported once per outage,
and the store is not used for LEFT_ALONE seconds.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from sluice.errors import NotResumable, Unavailable
from sluice.resume import BATCH, MAX_STREAM, Found, FrameBatch, StreamHead
from sluice.storage import LEAVE, Reason
from sluice.storage.address import address_of
from sluice.storage.redis import RedisClient, RedisFailed

LEASE = 15.0
"""Seconds without renewal after which a writer is assumed dead; it renews its lease three times within them.
"""
PENDING = 1 << 20
"""Maximum bytes that wait for a write."""
TIMEOUT = 2.0
"""Seconds for one call of the store."""
LEFT_ALONE = 5.0
"""Seconds after a failure during which no stream is opened."""
MIN_SECONDS_AFTER_END = 1.0
"""Minimum seconds for which a stream exists after its end, because its readers need its last frames."""
WRITERS = 64
READERS = 512
ENTRIES = 4
"""Maximum entries that one read returns."""
HEAD = "1-0"

_head = msgspec.json.Decoder(StreamHead).decode
_json = msgspec.json.Encoder().encode


def entry_of(number: int) -> str:
    """Returns the id of the entry whose last frame has this number; the entry that ends a stream counts as
    one more frame."""
    return f"{number + 2}-0"


class StreamKeys:
    """The names of one stream's keys; all are in one slot of a cluster."""

    __slots__ = ("alive", "log", "read", "unresumable")

    def __init__(self, prefix: str, stream: str) -> None:
        self.log = f"{prefix}:resume:{{{stream}}}"
        self.alive = f"{self.log}:alive"
        self.read = f"{self.log}:read"
        self.unresumable = f"{self.log}:lost"


class RedisJournal:
    """The writer of one stream: frames wait in `_pending` until the current write has ended."""

    def __init__(
        self, store: "RedisJournals", keys: StreamKeys, head: StreamHead, *, unresumable: bool
    ) -> None:
        self.unresumable = unresumable
        self._store = store
        self._keys = keys
        self._head = head
        self._pending: list[bytes] = []
        self._waiting = 0
        self._size = 0
        self._next = 0  # the number of the first pending frame
        self._ended = self._closed = self._too_long = False
        self._read_at = -math.inf
        self._news = asyncio.Event()

    @property
    def unread(self) -> float:
        return time.monotonic() - self._read_at

    def append(self, frames: Sequence[bytes], *, last: bool = False) -> None:
        if self.unresumable or self._over:
            return
        size = sum(map(len, frames))
        self._size += size
        self._waiting += size
        if self._size > self._store.stream_bytes or self._waiting > PENDING:
            self.unresumable = self._too_long = True
            self._pending = []
        else:
            self._pending += frames
            self._ended = last
        self._news.set()

    def close(self) -> None:
        self._closed = True
        self._news.set()

    async def write(self) -> None:
        """Writes until the end. To be run as a task."""
        try:
            while not self._too_long and not (self._over and not self._pending):
                await self._frames_or_renewal()
                await self._flush()
            await self._finish()
        except RedisFailed as error:
            self.unresumable = True
            self._pending = []
            self._store.failed(error)

    @property
    def _over(self) -> bool:
        return self._ended or self._closed

    async def _frames_or_renewal(self) -> None:
        """Waits for frames, or until the lease has to be renewed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._store.lease / 3):
                await self._news.wait()
        self._news.clear()

    async def _flush(self) -> None:
        store, keys = self._store, self._keys
        pending, self._pending, self._waiting = self._pending, [], 0
        async with store.asking() as raw, raw.pipeline(transaction=False) as pipe:
            for entry in _entries(pending):
                pipe.xadd(
                    keys.log, dict(enumerate(entry, self._next)), id=entry_of(self._next + len(entry) - 1)
                )
                self._next += len(entry)
            store.keep(pipe, keys, self._head)
            pipe.exists(keys.read)
            *_, read = await pipe.execute()
        if read:
            self._read_at = time.monotonic()

    async def _finish(self) -> None:
        """Writes the last entry; or deletes a stream that became too long or never began."""
        store, keys = self._store, self._keys
        window = int(max(self._head.window, MIN_SECONDS_AFTER_END) * 1000)
        async with store.asking() as raw, raw.pipeline(transaction=True) as pipe:
            if self._too_long:
                pipe.set(keys.unresumable, _json(self._head), px=window)
            if self._too_long or not self._next:
                pipe.delete(keys.log, keys.alive, keys.read)
            else:
                pipe.xadd(keys.log, {"end" if self._ended else "cut": 1}, id=entry_of(self._next))
                pipe.pexpire(keys.log, window)
                pipe.delete(keys.alive)
            await pipe.execute()


class RedisJournals:
    """Opens and reads streams. `url`: see `storage.address`. `failed` gets the reason of each failure;
    `succeeded` is called for each new stream. `lease` in seconds."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "sluice",
        failed: Callable[[Reason], object] = lambda _: None,
        succeeded: Callable[[], object] = lambda: None,
        lease: float = LEASE,
        stream_bytes: int = MAX_STREAM,
    ) -> None:
        self.lease = lease
        self.stream_bytes = stream_bytes
        address = address_of(url)
        self._timeout = address.timeout or TIMEOUT
        self._writing = RedisClient(address, connections=WRITERS, wait=self._timeout)
        self._reading = RedisClient(address, connections=READERS, wait=self._timeout)
        self._prefix = prefix
        self._report = failed
        self._succeeded = succeeded
        self._left_alone_until = -math.inf
        self._writers: dict[asyncio.Task[None], RedisJournal] = {}

    async def open(self, stream: str, head: StreamHead) -> RedisJournal:
        keys = StreamKeys(self._prefix, stream)
        journal = RedisJournal(self, keys, head, unresumable=not await self._opened(keys, head))
        if not journal.unresumable:
            task = asyncio.create_task(journal.write())
            self._writers[task] = journal
            task.add_done_callback(lambda done: self._writers.pop(done, None))
        return journal

    async def _opened(self, keys: StreamKeys, head: StreamHead) -> bool:
        if time.monotonic() < self._left_alone_until:
            return False
        try:
            async with self.asking() as raw, raw.pipeline(transaction=True) as pipe:
                pipe.xadd(keys.log, {"head": _json(head)}, id=HEAD)
                self.keep(pipe, keys, head)
                await pipe.execute()
        except RedisFailed as error:
            self.failed(error)
            return False
        self._succeeded()
        return True

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Any]:
        """Yields redis-py's client for one call. Raises RedisFailed. If it leaves its server, readers do as
        well."""
        try:
            async with self._writing.asking(self._timeout) as raw:
                yield raw
        except RedisFailed as error:
            if error.reason in LEAVE:
                await self._reading.leave()
            raise

    def keep(self, pipe: Any, keys: StreamKeys, head: StreamHead) -> None:
        """Renews the writer's lease."""
        pipe.pexpire(keys.log, int((head.window + self.lease) * 1000))
        pipe.set(keys.alive, 1, px=int(self.lease * 1000))

    def failed(self, error: RedisFailed) -> None:
        self._report(error.reason)
        self._left_alone_until = time.monotonic() + LEFT_ALONE

    async def find(self, stream: str) -> Found | None:
        keys = StreamKeys(self._prefix, stream)
        try:
            async with self.asking() as raw, raw.pipeline(transaction=False) as pipe:
                pipe.delete(
                    f"{keys.log}:none"
                )  # a write that changes nothing: a master that was demoted refuses it
                pipe.xrange(keys.log, HEAD, HEAD)
                pipe.xrevrange(keys.log, count=1)
                pipe.get(keys.unresumable)
                _, first, newest, unresumable = await pipe.execute()
                return _found(first, newest, unresumable)
        except RedisFailed as error:
            self._report(error.reason)
            raise Unavailable("Streams cannot be resumed now") from error

    async def read(self, stream: str, after: int, patience: float | None) -> AsyncGenerator[FrameBatch, None]:
        keys = StreamKeys(self._prefix, stream)
        found = await self.find(stream)
        if found is None or found.unresumable:
            raise NotResumable("The stream is not kept any more")
        cursor: str | bytes = entry_of(min(after, found.newest))
        wait = self.lease / 3 if patience is None else min(patience, self.lease / 3)
        alive, look = True, -math.inf
        while True:
            if (now := time.monotonic()) >= look:
                alive, look = await self._look(keys), now + self.lease / 3
            entries = await self._following(keys, cursor, wait if alive else None)
            if not entries and not alive:
                raise NotResumable("The stream's writer is gone")
            data = b"".join([_after(after, fields) for _, fields in entries])
            if entries:
                cursor, fields = entries[-1]
                if b"cut" in fields:
                    if data:
                        yield FrameBatch(data)
                    raise NotResumable("The stream was cut")
                if b"end" in fields:
                    yield FrameBatch(data, last=True)
                    return
            if data or (patience is not None and not entries):
                yield FrameBatch(data)

    async def _look(self, keys: StreamKeys) -> bool:
        """Renews the readers' lease. Returns whether the writer's exists."""
        try:
            async with self.asking() as raw, raw.pipeline(transaction=False) as pipe:
                pipe.exists(keys.alive)
                pipe.set(keys.read, 1, px=int(self.lease * 1000))
                alive, _ = await pipe.execute()
        except RedisFailed as error:
            self._report(error.reason)
            raise Unavailable("The stream cannot be read now") from error
        return bool(alive)

    async def _following(
        self, keys: StreamKeys, cursor: Any, wait: float | None
    ) -> list[tuple[bytes, dict[bytes, bytes]]]:
        try:
            async with self._reading.asking((wait or 0) + self._timeout) as raw:
                block = max(1, int(wait * 1000)) if wait is not None else None
                found = await raw.xread({keys.log: cursor}, count=ENTRIES, block=block)
        except RedisFailed as error:
            self._report(error.reason)
            raise Unavailable("The stream cannot be read now") from error
        return found[0][1] if found else []

    async def close(self) -> None:
        for journal in self._writers.values():
            journal.close()
        if self._writers:
            await asyncio.wait(list(self._writers), timeout=TIMEOUT)
        for task in list(self._writers):
            task.cancel()
        await self._writing.close()
        await self._reading.close()


def _entries(frames: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Splits frames into portions of one write each."""
    entry: list[bytes] = []
    size = 0
    for frame in frames:
        if entry and size + len(frame) > BATCH:
            yield entry
            entry, size = [], 0
        entry.append(frame)
        size += len(frame)
    if entry:
        yield entry


def _after(number: int, fields: dict[bytes, bytes]) -> bytes:
    """Returns an entry's frames after frame `number`."""
    return b"".join([frame for field, frame in fields.items() if field.isdigit() and int(field) > number])


def _number(id: bytes) -> int:
    return int(id.partition(b"-")[0]) - 2


def _found(first: Any, newest: Any, unresumable: Any) -> Found | None:
    """Returns what is known of a stream, from the first and the newest entry of its log and the mark of one that
    cannot be resumed."""
    if unresumable is not None:
        return Found(_head(unresumable), unresumable=True)
    if not first or not newest:
        return None
    id, fields = newest[0]
    over = b"end" in fields or b"cut" in fields
    return Found(_head(first[0][1][b"head"]), _number(id) - over, b"end" in fields)
