"""Deletes what is not to be kept of conversations and responses, now and then and beside the calls."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from sluice.conversations import Swept

EVERY = 60.0
"""Seconds between two sweeps."""
STEPS = 100
"""Steps of one sweep at most; what is left then is for the next."""
PAUSE = 0.05
"""Seconds between two steps, in which the store serves calls."""


class Sweeper:
    """`step` does one bounded step of a sweep. `swept` gets what each sweep has deleted, where it was
    something; `failed` the operation and its error.

    `sleep` and `chance` are asyncio's and the random generator's. Several processes may sweep one store.
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
        """Sweep again and again, until cancelled; gateways that start together do not sweep together."""
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
