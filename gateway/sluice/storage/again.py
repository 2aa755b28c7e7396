"""Stores again what a store that is down did not take: its caller believes by then that it is kept."""

import asyncio
from collections.abc import Awaitable, Callable

from sluice.storage import DOWN, Reason

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.01, 1.0
"""Seconds between two tries: more each time."""
AGAIN = 8.0
"""Seconds for which it is tried: a server that stalls may go on by then, or a new master be there."""
STORE_SECONDS = 1.0
"""Seconds for which the end of an answer waits at least until it is stored."""
AGAIN_AFTER: frozenset[Reason] = DOWN | {"busy"}


async def stored(
    operation: Callable[[], Awaitable[None]],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Awaits an operation that may be done twice, again for AGAIN seconds while its store is down. Raises what
    the last one does; a store's error names its `reason`. `clock` in seconds, monotonic.
    """
    pause, until = MIN_RETRY_SECONDS, clock() + AGAIN
    while True:
        try:
            return await operation()
        except OSError as error:
            if getattr(error, "reason", None) not in AGAIN_AFTER or clock() + pause > until:
                raise
        await sleep(pause)
        pause = min(pause * 2, MAX_RETRY_SECONDS)
