"""Deadlines of many similar waits, with one timer for all of them.

A timer of the event loop costs a request more than its parsing. Waits of the same length end in the order in
which they began, so one queue per length is enough, and its oldest entry shows when to check next.
"""

import asyncio
from typing import Protocol


class Waiting(Protocol):
    def too_late(self) -> None: ...


class Deadlines:
    """Calls `too_late` of a wait that was passed to `expect`, not before its seconds have passed, unless it
    is passed to `forget` before."""

    __slots__ = ("_loop", "_queues", "_timers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[float, dict[Waiting, float]] = {}
        self._timers: dict[float, asyncio.TimerHandle] = {}

    def expect(self, waiting: Waiting, seconds: float) -> None:
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = {}
        queue[waiting] = due = self._loop.time() + seconds
        if seconds not in self._timers:
            self._timers[seconds] = self._loop.call_at(due, self._look, seconds)

    def forget(self, waiting: Waiting, seconds: float) -> None:
        queue = self._queues.get(seconds)
        if queue is not None:
            queue.pop(waiting, None)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _look(self, seconds: float) -> None:
        del self._timers[seconds]
        queue, now = self._queues[seconds], self._loop.time()
        late = [waiting for waiting, due in queue.items() if due <= now]
        for waiting in late:
            del queue[waiting]
            waiting.too_late()
        if queue:
            self._timers[seconds] = self._loop.call_at(next(iter(queue.values())), self._look, seconds)
        else:
            del self._queues[seconds]
