"""Runs one turn at a time per conversation, in the order of their arrival, within this process; if processes
share a file of conversations, one at a time over all of them."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sluice.errors import Unavailable

if TYPE_CHECKING:
    from sluice.conversations.turn_locks import TurnLocks

Key = tuple[str, str]
"""A conversation: its tenant and session."""
MAX_WAITING = 256
"""Maximum turns that wait for one session; the next one is refused instead of being kept for minutes."""


class Turnstile:
    """The turns of all sessions of this process.

    `waiting` gets +1 and -1 as turns begin and end to wait. Sessions without turns are forgotten. `locks`:
    those that other processes respect too.
    """

    def __init__(
        self, waiting: Callable[[int], Any] = lambda _: None, locks: "TurnLocks | None" = None
    ) -> None:
        self._waiting = waiting
        self._locks = locks
        self._queues: dict[Key, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def turn(self, tenant: str, session: str, waiting: Callable[[int], Any] | None = None) -> "TurnPlace":
        """Waits for the turn before it. Safe to cancel at any point. `waiting` is called in place of the
        turnstile's own. Raises Unavailable if too many are waiting."""
        return TurnPlace(self, (tenant, session), waiting or self._waiting)

    async def enter(self, key: Key, waiting: Callable[[int], Any]) -> None:
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
        else:
            await self._wait(key, queue, waiting)
        if self._locks is not None:
            try:
                await self._locks.take(*key, waiting)
            except BaseException:
                self._pass_on(key)
                raise

    def leave(self, key: Key) -> None:
        if self._locks is not None:
            self._locks.give_back(*key)
        self._pass_on(key)

    def _pass_on(self, key: Key) -> None:
        if not self._call_next(self._queues[key]):
            del self._queues[key]

    async def _wait(
        self, key: Key, queue: deque[asyncio.Future[None]], waiting: Callable[[int], Any]
    ) -> None:
        if len(queue) >= MAX_WAITING:
            raise Unavailable("Too many turns of this session are waiting")
        called = asyncio.get_running_loop().create_future()
        queue.append(called)
        waiting(1)
        try:
            await called
        except BaseException:
            if (
                called.done() and not called.cancelled()
            ):  # called and cancelled at the same time: the next turn is called
                self._pass_on(key)
            elif called in queue:  # otherwise a turn that left meanwhile has removed it
                queue.remove(called)
            raise
        finally:
            waiting(-1)

    def _call_next(self, queue: deque[asyncio.Future[None]]) -> bool:
        while queue:
            called = queue.popleft()
            if not called.done():
                called.set_result(None)
                return True
        return False


class TurnPlace:
    """One turn's place in its conversation's queue, for the time of the `async with`."""

    __slots__ = ("_key", "_turnstile", "_waiting")

    def __init__(self, turnstile: Turnstile, key: Key, waiting: Callable[[int], Any]) -> None:
        self._turnstile = turnstile
        self._key = key
        self._waiting = waiting

    async def __aenter__(self) -> None:
        await self._turnstile.enter(self._key, self._waiting)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        self._turnstile.leave(self._key)
