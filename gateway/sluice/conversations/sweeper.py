"""Deletes what conversations are not to be kept, now and then and beside the calls."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sluice.conversations import Retention, Swept

EVERY = 60.0
"""Seconds between two sweeps."""
STEPS = 100
"""Steps of one sweep at most; what is left then is for the next."""
PAUSE = 0.05
"""Seconds between two steps, in which the store serves calls."""


class Store(Protocol):
    async def sweep(self, retention: Retention, now: float) -> Swept: ...


class Sweeper:
    """`swept` is told what each sweep has deleted, where it was something; `failed` the operation and its
    error.

    `sleep`, `wall` and `chance` are asyncio's, the clock's and the random generator's. Several processes may
    sweep one store.
    """

    def __init__(
        self,
        store: Store,
        retention: Retention,
        swept: Callable[[Swept], Any],
        failed: Callable[[str, Exception], Any],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._retention = retention
        self._swept = swept
        self._failed = failed
        self._sleep = sleep
        self._wall = wall
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
                step = await self._store.sweep(self._retention, self._wall())
                conversations, messages = conversations + step.conversations, messages + step.messages
                if not step.more:
                    break
                await self._sleep(PAUSE)
        except Exception as error:  # the next sweep may succeed, whatever a store raises
            self._failed("sweep", error)
        finally:
            if conversations or messages:
                self._swept(Swept(conversations, messages))
