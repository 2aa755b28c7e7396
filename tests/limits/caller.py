"""One process of callers on a store that others use as well; run by test_processes.py.

    python -m tests.limits.caller URL requests|tokens|slots|levels|hold CALLERS SECONDS LIMITS

`URL` chooses the store (see STORES). It says "ready", waits for a line, and prints what it has counted as one
line of JSON: when it began and ended by the store's own clock, in microseconds, and a list of counts by key.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as client

from sluice.limits import BucketStore, Claim, Limit, Slot
from sluice.limits.redis import RedisStore
from sluice.limits.shared import SharedStore

Clock = Callable[[], Awaitable[int]]
PREFIX = "processes"
LEASE = 1.0
"""Seconds."""
MOST = 20
"""Tokens asked for at a time."""


def in_redis(url: str) -> tuple[BucketStore, Clock]:
    raw = client.Redis.from_url(url.partition("?")[0])

    async def now() -> int:
        seconds, micros = await raw.time()
        return int(seconds) * 1_000_000 + int(micros)

    return RedisStore(url, prefix=PREFIX, timeout=30, lease=LEASE, max_connections=32), now


def in_file(url: str) -> tuple[BucketStore, Clock]:
    async def now() -> int:
        return time.monotonic_ns() // 1000

    return SharedStore(url.partition(":")[2], lease=LEASE, patience=30), now


STORES: dict[str, Callable[[str], tuple[BucketStore, Clock]]] = {"redis": in_redis, "shared": in_file}
"""By the URL's scheme: the store, and the clock it goes by, in microseconds."""


class Work:
    """What the callers of one process do until `over`."""

    def __init__(self, store: BucketStore, limits: dict[str, tuple[float, float]]) -> None:
        self.store = store
        self.limits = limits
        self.over = asyncio.Event()
        self.counts: dict[str, list[Any]] = {key: [0, 0, 0] for key in limits}

    async def pause(self, seconds: float) -> None:
        await asyncio.wait([self.ending], timeout=seconds)

    async def requests(self, key: str, name: str) -> None:
        """Counts what was admitted."""
        claim = Claim(key, Limit(*self.limits[key]))
        while not self.over.is_set():
            verdict = await self.store.take([claim])
            if verdict.admitted:
                self.counts[key][0] += 1
            else:
                await self.pause(verdict.retry_after)

    async def tokens(self, key: str, name: str) -> None:
        """Counts what was admitted, refunded and charged."""
        limit, chance = Limit(*self.limits[key]), random.Random(name)
        while not self.over.is_set():
            amount = chance.randint(1, MOST)
            verdict = await self.store.take([Claim(key, limit, amount), Claim("untouched", limit, 0)])
            if not verdict.admitted:
                await self.pause(verdict.retry_after)
                continue
            used = chance.randint(0, amount + amount // 4)
            await self.store.settle([Claim(key, limit, used - amount)])
            self.counts[key][0] += amount
            self.counts[key][1] += max(0, amount - used)
            self.counts[key][2] += max(0, used - amount)

    async def levels(self, key: str, name: str) -> None:
        """Counts the tokens of calls that claim on every level above them: "user/tenant" on "tenant" and
        "team", too.

        What a call used is settled on all levels, while its place on the team is held. Places are under
        "streams".
        """
        tenant = key.partition("/")[2]
        if not tenant:  # a level that other callers are under
            return
        names, chance, number = (key, tenant, "team"), random.Random(name), 0
        while not self.over.is_set():
            amount = chance.randint(1, MOST)
            number += 1
            slot = Slot("streams", int(self.limits["streams"][0]), f"{name}.{number}")
            claims = [Claim(level, Limit(*self.limits[level]), amount) for level in names]
            verdict = await self.store.take(claims, [slot])
            if not verdict.admitted:
                await self.pause(min(verdict.retry_after, 0.02 * chance.random()))
                continue
            used = chance.randint(0, amount)
            await self.store.settle(
                [Claim(claim.key, claim.limit, used - amount) for claim in claims], [slot]
            )
            for level in names:
                self.counts[level][0] += used

    async def slots(self, key: str, name: str) -> None:
        """Notes when it surely held one, by the clock that all processes of a machine share."""
        capacity, chance, held = int(self.limits[key][0]), random.Random(name), self.counts[key]
        held.clear()
        number = 0
        while not self.over.is_set():
            number += 1
            slot = Slot(key, capacity, f"{name}.{number}")
            if not (await self.store.take([], [slot])).admitted:
                await self.pause(0.005 * chance.random())
                continue
            began = time.monotonic_ns()
            await asyncio.sleep(0.01 * chance.random())
            held.append((began, time.monotonic_ns()))
            await self.store.settle([], [slot])

    async def hold(self, key: str, name: str) -> None:
        """Takes all there is and keeps it."""
        capacity = int(self.limits[key][0])
        slots = [Slot(key, capacity, f"{name}.{number}") for number in range(capacity)]
        while not (await self.store.take([], slots)).admitted:
            await self.pause(0.001)
        print("held", flush=True)
        await self.over.wait()

    async def run(self, work: str, callers: int, seconds: float) -> None:
        self.ending = asyncio.create_task(self.over.wait())
        asyncio.get_running_loop().call_later(seconds, self.over.set)
        keys, me = [*self.limits], random.randbytes(8).hex()
        await asyncio.gather(
            *(getattr(self, work)(keys[number % len(keys)], f"{me}.{number}") for number in range(callers))
        )


async def main(
    url: str, work: str, callers: int, seconds: float, limits: dict[str, tuple[float, float]]
) -> None:
    store, now = STORES[url.partition(":")[0]](url)
    await store.take([])
    print("ready", flush=True)
    sys.stdin.readline()
    began, task = await now(), Work(store, limits)
    await task.run(work, callers, seconds)
    print(json.dumps([began, await now(), task.counts]))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), json.loads(sys.argv[5])))
