"""Keeps the table of dynamic keys up to date with the store, and changes both.

Every process polls the store for changes four times a second, so that a revoked key is refused everywhere
within a second; its own changes apply at once. While the store does not answer, known keys keep working and
nothing can be changed. If the store has lost data (a server that restarted empty, an older replica that took
over), this process writes the keys that it knows back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sluice.errors import Unavailable
from sluice.keystore import PAGE, KeyEntry, KeyStore, KeyStoreFailed, StoredKey
from sluice.keystore.table import KeyTable
from sluice.storage import Reason

EVERY = 0.25
"""Seconds between two polls."""
MAX_RESTORED = 3
"""Maximum times that one poll writes keys back; if the store is still incomplete then, the next poll
continues."""


def _ignore(*_: object) -> None:
    return None


class Follower:
    """`failed` gets the reason of each failed call of the store; `succeeded` is called for each other."""

    def __init__(
        self,
        store: KeyStore,
        table: KeyTable,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        failed: Callable[[Reason], Any] = _ignore,
        succeeded: Callable[[], Any] = _ignore,
    ) -> None:
        self.table = table
        self._reason: Reason | None = None  # of the last poll's failure
        self._store = store
        self._sleep = sleep
        self._failed = failed
        self._succeeded = succeeded
        self._seen = 0
        self._made = 0  # the latest generation that is this process's own work
        self._epoch = ""
        self._turn = asyncio.Lock()
        """One call at a time: a page that was read before a change must not be applied after it."""
        self._following: asyncio.Task[None] | None = None

    @property
    def down(self) -> bool:
        return self._reason is not None

    async def start(self) -> None:
        """Reads all keys, then follows until `close`. If the store does not answer, the keys are read when it
        does."""
        await self.follow()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        try:
            if self._following is not None:
                self._following.cancel()
                await asyncio.wait([self._following])
        finally:
            await self._store.close()

    async def follow(self) -> None:
        """Polls once for changes. Never raises."""
        async with self._turn:
            try:
                await self._read()
            except Exception as error:  # of any kind: known keys keep working until the next poll
                self._reason = error.reason if isinstance(error, KeyStoreFailed) else "reply"
                self._failed(self._reason)
            else:
                self._reason = None
                self._succeeded()

    async def put(self, key: StoredKey, revision: int) -> bool:
        """Stores `key` in place of `revision` (0: it is new). Returns False if another process has changed
        the key; the table then has that change. Raises Unavailable if the store does not answer."""
        async with self._changing():
            made = await self._store.put(key, revision)
            if made is not None:
                self._made = made
                self.table.put(KeyEntry(key.id, made, key))
                return True
        await self.follow()
        return False

    async def delete(self, id: str, revision: int) -> bool:
        """Like `put`."""
        async with self._changing():
            if await self._store.delete(id, revision):
                self.table.drop(id)
                return True
        await self.follow()
        return False

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        async with self._turn:
            try:
                if self._reason is not None:  # known from the last poll: no need to wait for a timeout
                    raise KeyStoreFailed(self._reason)
                yield
            except KeyStoreFailed as error:
                self._failed(error.reason)
                raise Unavailable("The key store does not answer now") from error

    # --- following

    async def _follow(self) -> None:
        while True:
            await self._sleep(EVERY)
            await self.follow()

    async def _read(self) -> None:
        restored = 0
        while True:
            changes = await self._store.changes(self._seen)
            another = bool(self._epoch) and changes.epoch != self._epoch
            if another or changes.generation < max(self._seen, self._made):
                if restored == MAX_RESTORED:  # such as a generation below zero, which nobody of ours writes
                    raise KeyStoreFailed("reply")
                restored += 1
                await self._restore(changes.generation, another)
                continue
            self._epoch = changes.epoch
            if changes.generation == self._seen:
                return
            for entry in changes.entries:
                self.table.put(entry)
            self._seen = changes.generation
            if len(changes.entries) < PAGE:
                if changes.total != len(self.table):
                    await self._forget()
                return

    async def _forget(self) -> None:
        """Removes keys that the store no longer has."""
        ids = await self._store.ids()
        for entry in self.table.entries:
            if entry.id not in ids:
                self.table.drop(entry.id)

    async def _restore(self, generation: int, another: bool) -> None:
        """Writes back the keys that the store has lost, then reads all of it again, including those that
        others wrote back. It has lost the changes after `generation`, or with `another` epoch everything."""
        stored = await self._all()
        for entry in self.table.entries:
            revision = stored.get(entry.id, 0)
            missing = revision == 0 if another else entry.revision > generation
            if missing and entry.key is not None:
                await self._store.put(entry.key, revision)
        self._epoch, self._seen, self._made = "", 0, 0

    async def _all(self) -> dict[str, int]:
        """Returns the revision of each key in the store."""
        found: dict[str, int] = {}
        since = 0
        while True:
            page = await self._store.changes(since)
            found |= {entry.id: entry.revision for entry in page.entries}
            if len(page.entries) < PAGE:
                return found
            since = page.generation
