"""Repeats an operation of a store that is down, after its caller has been told that the data is kept."""

import asyncio
from collections.abc import Awaitable, Callable

from sluice.storage import DOWN, Reason

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.01, 1.0
"""Seconds between two attempts: more each time."""
AGAIN = 8.0
"""Seconds for which an operation is repeated: by then a server that stalls may respond again, or there may be
a new master."""
STORE_SECONDS = 1.0
"""Minimum seconds that the end of an answer waits until it is stored."""
AGAIN_AFTER: frozenset[Reason] = DOWN | {"busy"}


async def stored(
    operation: Callable[[], Awaitable[None]],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Awaits an operation that may be done twice; repeats it for AGAIN seconds while its store is down.

    Raises the error of the last attempt; a store's error has a `reason`. `clock` is monotonic, in seconds.
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
