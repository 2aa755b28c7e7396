"""One turn at a time per conversation: whoever comes first goes first, within this process."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gateway.errors import Unavailable

MAX_WAITING = 256
"""Turns that may wait for one session; the next is refused rather than kept for minutes."""


class Turnstile:
    """`waiting` is told +1 and -1 as turns begin and end to wait. Sessions with nobody in them are forgotten."""

    def __init__(self, waiting: Callable[[int], Any] = lambda _: None) -> None:
        self._waiting = waiting
        self._queues: dict[tuple[str, str], deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    @asynccontextmanager
    async def turn(self, tenant: str, session: str, waiting: Callable[[int], Any] | None = None) -> AsyncIterator[None]:
        """Waits for the turn before it. Raises Unavailable where too many wait already. Safe to cancel at any point.

        `waiting` is told in place of the turnstile's own.
        """
        key = (tenant, session)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
        else:
            await self._wait(key, queue, waiting or self._waiting)
        try:
            yield
        finally:
            self._leave(key)

    async def _wait(self, key: tuple[str, str], queue: deque[asyncio.Future[None]], waiting: Callable[[int], Any]) -> None:
        if len(queue) >= MAX_WAITING:
            raise Unavailable("Too many turns of this session are waiting")
        called = asyncio.get_running_loop().create_future()
        queue.append(called)
        waiting(1)
        try:
            await called
        except BaseException:
            if called.done() and not called.cancelled():  # called and cancelled at once: the turn goes on to the next
                self._leave(key)
            elif called in queue:  # else whoever left meanwhile has passed it over
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

    def _leave(self, key: tuple[str, str]) -> None:
        if not self._call_next(self._queues[key]):
            del self._queues[key]
