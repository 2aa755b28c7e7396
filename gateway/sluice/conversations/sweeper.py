"""Deletes conversations and responses that are not to be kept: at intervals, beside the calls."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from sluice.conversations import Swept

EVERY = 60.0
"""Seconds between two sweeps."""
STEPS = 100
"""Maximum steps of one sweep; the rest is left for the next."""
PAUSE = 0.05
"""Seconds between two steps, during which the store serves calls."""


class Sweeper:
    """Sweeps one store; several processes may sweep the same.

    `step` does one bounded step of a sweep. `swept` gets the numbers that a sweep has deleted, if any;
    `failed` the operation and its error. `sleep` is asyncio's, `chance` the random generator's.
    """

    def __init__(
        self,
        step: Callable[[], Awaitable[Swept]],
        swept: Callable[[Swept], Any],
        failed: Callable[[str, Exception], Any],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._step = step
        self._swept = swept
        self._failed = failed
        self._sleep = sleep
        self._chance = chance

    async def run(self) -> None:
        """Sweeps again and again, until cancelled. Gateways that start together do not sweep at the same
        time."""
        await self._sleep(EVERY * self._chance() / 10)
        while True:
            await self.sweep()
            await self._sleep(EVERY * (0.75 + self._chance() / 2))

    async def sweep(self) -> None:
        conversations = messages = 0
        try:
            for _ in range(STEPS):
                step = await self._step()
                conversations, messages = conversations + step.conversations, messages + step.messages
                if not step.more:
                    break
                await self._sleep(PAUSE)
        except Exception as error:  # the next sweep may succeed, whatever a store raises
            self._failed("sweep", error)
        finally:
            if conversations or messages:
                self._swept(Swept(conversations, messages))
