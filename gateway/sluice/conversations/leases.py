"""Keeps the turns of a session in order over several hosts: takes, renews and gives back a lease for each
turn."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sluice.conversations import LEASE, Begun, ConversationsFailed, Lease, SharedConversations, Turn
from sluice.errors import Unavailable
from sluice.storage import DOWN
from sluice.storage.again import stored

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.01, 0.25
"""Seconds between two requests for a lease that another turn has: more each time."""
MAX_LEASE_WAIT_SECONDS = 600.0
"""Maximum seconds that a turn waits for its lease."""
RENEWALS = LEASE / 3
"""Seconds between two renewals of all leases."""
PRUNED = 3600.0
"""Seconds between two prunings of the store's leases."""


class Leases:
    """The leases of this process's turns.

    `failed` gets the operation and the error of failed renewals and of leases that could not be given back.
    `sleep` is asyncio's; `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        store: SharedConversations,
        failed: Callable[[str, Exception], Any],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._failed = failed
        self._sleep = sleep
        self._clock = clock
        self._held: dict[str, Lease] = {}
        self._asking: dict[str, asyncio.Task[Begun | None]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._pruned = clock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._down: ConversationsFailed | None = None
        self._trying = False

    async def begin(
        self, tenant: str, session: str, limit: int, waiting: Callable[[int], Any]
    ) -> tuple[Lease, Begun]:
        """Waits for the session's lease. Returns it, and the last `limit` messages. Safe to cancel.

        `waiting` gets +1 and -1 around the time that another turn has it. Raises ConversationsFailed,
        Unavailable.
        """
        lease = Lease(tenant, session, secrets.token_urlsafe(16))
        try:
            begun = await self._ask(lease, limit) or await self._wait(lease, limit, waiting)
        except BaseException:  # it may have been taken all the same
            self.leave(lease)
            raise
        self._held[lease.holder] = lease
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew())
        return lease, begun

    async def _wait(self, lease: Lease, limit: int, waiting: Callable[[int], Any]) -> Begun:
        pause, until = MIN_RETRY_SECONDS, self._clock() + MAX_LEASE_WAIT_SECONDS
        waiting(1)
        try:
            while self._clock() < until:
                await self._sleep(pause * (0.75 + secrets.randbelow(500) / 1000))
                if (begun := await self._ask(lease, limit)) is not None:
                    return begun
                pause = min(pause * 1.5, MAX_RETRY_SECONDS)
        finally:
            waiting(-1)
        raise Unavailable("A turn of this session is still running elsewhere")

    async def _ask(self, lease: Lease, limit: int) -> Begun | None:
        """While the store is down, only one call at a time tries it; the others do not wait."""
        if self._down is not None and self._trying:
            raise ConversationsFailed(self._down.reason)
        self._trying = self._down is not None
        # In a task of its own: if it ended with its cancelled caller, it could be done after the lease was given back.
        asking = self._asking[lease.holder] = asyncio.create_task(self._begin(lease, limit))
        asking.add_done_callback(lambda _: self._asking.pop(lease.holder, None))
        try:
            begun = await asyncio.shield(asking)
        except ConversationsFailed as error:
            self._down = error if error.reason in DOWN else None
            raise
        else:
            self._down = None
            return begun
        finally:
            self._trying = False

    async def _begin(self, lease: Lease, limit: int) -> Begun | None:
        return await self._store.begin(lease, limit)

    async def finish(self, lease: Lease, id: str, turns: Sequence[Turn]) -> None:
        """Stores the turn and gives the lease back; sent again while the store is down
        (`sluice.storage.again`). Raises TurnSuperseded, ConversationsFailed, OSError."""
        try:
            await stored(lambda: self._store.finish(lease, id, turns), sleep=self._sleep, clock=self._clock)
        finally:
            self._held.pop(lease.holder, None)

    def leave(self, lease: Lease) -> "asyncio.Task[None]":
        """Gives the lease back without a turn, in a task of its own, because the caller may have been
        cancelled."""
        self._held.pop(lease.holder, None)
        task = asyncio.create_task(self._leave(lease))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return task

    async def close(self) -> None:
        """Returns when the last lease has been given back, or at the store's timeout. Leases that are still
        held run out."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        if self._leaving:
            await asyncio.wait(list(self._leaving))

    async def _leave(self, lease: Lease) -> None:
        if (asking := self._asking.get(lease.holder)) is not None:
            await asyncio.wait([asking])
        try:
            await self._store.leave(lease)
        except OSError as error:  # it runs out
            self._failed("leave", error)

    async def _renew(self) -> None:
        """Renews all leases, until there are none."""
        while self._held:
            await self._sleep(RENEWALS)
            for lease in [*self._held.values()]:
                try:
                    await self._store.renew(lease)
                except OSError as error:
                    self._failed("renew", error)
                    break  # the others would wait as long; the next round follows soon
            if self._clock() - self._pruned > PRUNED:
                self._pruned = self._clock()
                await self._prune()

    async def _prune(self) -> None:
        try:
            await self._store.prune()
        except OSError as error:
            self._failed("prune", error)
