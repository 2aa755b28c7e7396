"""An event loop with virtual time: when nothing is ready to run, its clock jumps to the next timer.

Code that takes its time from the loop (`call_later`, `asyncio.sleep`, `asyncio.timeout`, futures) works
unchanged, and an hour passes as fast as its events can be handled. Sockets are not watched, and threads must
not be waited for.
"""

import asyncio
import selectors
from typing import Any

START = 1000.0
"""Seconds on the clock at the beginning. It is not 0.0, because the gateway reads that as "never"."""


class Stalled(RuntimeError):
    """Tasks are waiting, and no timer is left that could wake one."""


class _JumpingSelector(selectors.SelectSelector):
    """Waits by advancing the clock."""

    now = START

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stalled("nothing is left that could happen")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time` is in seconds since START - 1000, and advances only between events."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
