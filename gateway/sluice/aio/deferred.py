"""Defers work that no caller waits for, such as counting and logging finished calls, and does it in batches.

No answer waits for this work then, and code that runs many times in a row finds the processor's caches warm:
it costs half of what it does between two calls (bench/PROFILE.md). A reader of the counters flushes first.
"""

from collections.abc import Callable
from typing import Any

MAX_DEFERRED_CALLS = 32
MAX_DEFERRED_BYTES = 1 << 20
"""Maximum bytes that deferred work may keep in memory."""

NOW = MAX_DEFERRED_BYTES + 1
"""The `size` of work that must not be deferred: it is done at once, after all earlier work."""

Schedule = Callable[..., None]
"""`later(work, *args, size=0)` defers a call; `size`: bytes that `args` keep in memory, if they are many."""


def at_once(work: Callable[..., object], *args: Any, size: int = 0) -> None:
    """A Schedule that defers nothing, for processes and tests that have no ticker."""
    work(*args)


class DeferredWork:
    """Collects deferred work.

    `later` is its Schedule; `flush` has to be called some twenty times a second. `crashed` gets exceptions of
    the work. `soon` calls a function in the event loop's next turn; it is given if the work must not wait any
    longer, because other processes read the counts even if this process is killed.
    """

    def __init__(
        self,
        crashed: Callable[[Exception], object],
        soon: Callable[[Callable[[], object]], object] | None = None,
    ) -> None:
        self._crashed = crashed
        self._soon = soon
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._size = 0

    def later(self, work: Callable[..., object], *args: Any, size: int = 0) -> None:
        """Defers a call of `work`: the Schedule."""
        self._waiting.append((work, args))
        self._size += size
        if len(self._waiting) >= MAX_DEFERRED_CALLS or self._size > MAX_DEFERRED_BYTES:
            self.flush()
        elif self._soon is not None and len(self._waiting) == 1:
            self._soon(self.flush)

    def flush(self) -> None:
        """Does the deferred work now, in order."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        for work, args in waiting:
            try:
                work(*args)
            except Exception as crash:
                self._crashed(crash)
