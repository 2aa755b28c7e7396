"""A guarded store in Redis whose server is stopped, killed, emptied, paused, filled up, spoiled or replaced by its replica.

For each: who decided the calls, how many of them had to wait and for how long, and when the store decided again.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis.asyncio as client

from sluice.limits import Claim, Limit, Slot
from sluice.limits.guarded import Guarded
from sluice.limits.memory import MemoryStore
from sluice.limits.redis import RedisStore
from tests.servers import RedisSentinel, RedisServer, redis_server

LIMIT = Limit(capacity=1e9, rate=1)
BURST = Limit(capacity=50, rate=0)
"""Never refilled: whatever is admitted beyond it was admitted twice."""
HANG = 30
WAITED = 0.01
"""Seconds from which on a call counts as one that waited for the server."""


class Watched:
    """A guarded store as the gateway has it, and how its calls fared: who decided, and in how many seconds."""

    def __init__(self, url: str, mode: str = "open") -> None:
        self.store = RedisStore(url, prefix="faults", lease=5)
        self.decided: list[tuple[str, float]] = []
        self.switches: list[tuple[bool, float]] = []
        self.guarded = Guarded(
            self.store, MemoryStore(), mode, probe_every=0.2,  # type: ignore[arg-type]
            decided=lambda who, took: self.decided.append((who, took)),
            switched=lambda down: self.switches.append((down, time.monotonic())),
        )  # fmt: skip

    async def calls(self, number: int) -> None:
        for count in range(number):
            claims, slots = [Claim("k", LIMIT)], [Slot("s", 1_000, str(count))]
            verdict = await self.guarded.take(claims, slots)
            assert verdict.admitted
            await (verdict.by or self.guarded).settle([Claim("k", LIMIT, -0.5)], slots)

    async def until_the_store_decides(self) -> None:
        async with asyncio.timeout(HANG):
            while self.decided[-1][0] != "store":
                await self.calls(1)
                await asyncio.sleep(0.01)

    def tell(self, fault: str, healed: float) -> None:
        waited = [took for who, took in self.decided if who == "fallback" and took >= WAITED]
        quick = sorted(took for who, took in self.decided if who == "fallback" and took < WAITED)
        print(
            f"{fault}: {len(waited)} calls waited, the longest {max(waited, default=0) * 1e3:.0f} ms; then median "
            f"{quick[len(quick) // 2] * 1e3:.3f} ms, worst {quick[-1] * 1e3:.1f} ms; "
            f"back after {time.monotonic() - healed:.2f} s"
        )
        assert len(waited) <= 5


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[Watched]:
    opened = Watched(url)
    try:
        yield opened
    finally:
        await opened.guarded.close()


@pytest.mark.parametrize("fault", ["stopped", "killed and restarted empty", "paused"])
async def test_few_calls_wait_for_a_server_that_is_gone_and_it_decides_again_soon(own_redis: RedisServer, fault: str) -> None:
    async with watched(own_redis.url) as at, client.Redis.from_url(own_redis.url) as raw:
        await at.calls(20)
        match fault:
            case "stopped":
                own_redis.stop()
            case "paused":
                await raw.execute_command("CLIENT", "PAUSE", 500, "ALL")
            case _:
                own_redis.kill()
        await at.calls(500)
        assert at.guarded.down
        assert [who for who, _ in at.decided] == ["store"] * 20 + ["fallback"] * 500
        healed = time.monotonic()
        match fault:
            case "stopped":
                own_redis.resume()
            case "killed and restarted empty":
                own_redis.start()
        await at.until_the_store_decides()
        at.tell(fault, healed)
        async with asyncio.timeout(HANG):
            while await raw.zcard("{faults}/s"):  # what was under way when it broke is given back
                await at.calls(1)


@pytest.mark.parametrize("fault", ["without memory", "wrong type"])
async def test_nobody_waits_for_a_server_that_answers_with_an_error(own_redis: RedisServer, fault: str) -> None:
    async with watched(own_redis.url) as at, client.Redis.from_url(own_redis.url) as raw:
        await at.calls(20)
        if fault == "without memory":
            await raw.config_set("maxmemory", 1)
        else:
            await raw.delete("{faults}:k")
            await raw.rpush("{faults}:k", "x")
        await at.calls(200)
        assert not at.guarded.down
        assert [who for who, _ in at.decided] == ["store"] * 20 + ["fallback"] * 200
        healed = time.monotonic()
        await raw.config_set("maxmemory", 0)
        await raw.delete("{faults}:k")
        await at.until_the_store_decides()
        at.tell(fault, healed)


@asynccontextmanager
async def replicated() -> AsyncIterator[tuple[RedisServer, RedisSentinel]]:
    """A master whose replica is in step, and who promotes the one when the other is gone."""
    with redis_server() as master, redis_server() as replica, tempfile.TemporaryDirectory(prefix="sentinel-") as directory:
        sentinel = RedisSentinel(directory, master)
        async with client.Redis(port=replica.port) as raw, asyncio.timeout(HANG):
            await raw.execute_command("REPLICAOF", "127.0.0.1", str(master.port))
            while (await raw.info("replication"))["master_link_status"] != "up":
                await asyncio.sleep(0.05)
        try:
            sentinel.start()
            async with client.Redis(port=sentinel.port) as raw, asyncio.timeout(HANG):
                while not await raw.execute_command("SENTINEL", "REPLICAS", "main"):
                    await asyncio.sleep(0.05)
            yield master, sentinel
        finally:
            sentinel.kill()


async def test_a_promoted_replica_decides_and_admits_at_most_one_burst_more() -> None:
    async with (
        replicated() as (master, sentinel),
        watched(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main/0") as at,
    ):
        claim = [Claim("burst", BURST)]
        before = sum([(await at.guarded.take(claim)).admitted for _ in range(40)])
        async with client.Redis(port=master.port) as raw:  # what has not reached the replica is lost with the master
            assert await raw.execute_command("WAIT", "1", str(HANG * 1000)) == 1
        master.kill()
        killed = time.monotonic()
        during = sum([(await at.guarded.take(claim)).admitted for _ in range(100)])
        async with asyncio.timeout(HANG):
            while at.guarded.down:
                await asyncio.sleep(0.01)
        after = sum([(await at.guarded.take(claim)).admitted for _ in range(100)])
        assert at.decided[-1][0] == "store"
        assert before == 40
        print(f"{before} admitted before, {during} by the fallback, {after} after")
        assert before + during + after <= 2 * BURST.capacity
        at.tell("promotion", killed)
