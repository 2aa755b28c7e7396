"""Calls that go on without their clients, to the end of the answer, for a bounded time."""

import asyncio
from collections.abc import Callable

from sluice.proxy.call import Call
from sluice.telemetry.records import Records


class Detached:
    """Keeps the tasks of calls whose clients have left. `records` logs each call when it ends."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.tasks: set[asyncio.Task[None]] = set()

    def outlives(
        self, call: Call, task: "asyncio.Task[None]", unread: Callable[[], float] | None = None
    ) -> None:
        """Keeps a call running without its client, for at most `finish_limit` seconds.

        `unread` returns the seconds for which nobody has read the answer; these are limited.
        """
        call.detached = True
        self.tasks.add(task)
        limit = float(call.route.config.finish_limit)
        loop = asyncio.get_running_loop()

        timer = loop.call_later(limit, lambda: look())

        def look() -> None:
            nonlocal timer
            left = limit - unread() if unread is not None else 0.0
            if left > 0:
                timer = loop.call_later(left, look)
            else:
                task.cancel()

        def ended(_: object) -> None:
            timer.cancel()
            self.tasks.discard(task)
            self._records.detached(call, None if task.cancelled() else task.exception())

        task.add_done_callback(ended)

    async def close(self) -> None:
        """Ends these calls now."""
        for task in (tasks := [*self.tasks]):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
