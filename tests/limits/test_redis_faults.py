"""A guarded store in Redis whose server is stopped, killed, emptied, paused, filled up, spoiled or replaced
by its replica.

For each: who decided the calls, how many of them had to wait and for how long, and when the store decided
again.
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


class Watched:
    """A guarded store, and how its calls fared: who decided, in how many seconds, and how many had asked the
    store in vain.

    The store is given all the time it needs until the test takes it away: `impatient`.
    """

    def __init__(self, url: str, mode: str = "open") -> None:
        self.store = RedisStore(url, prefix="faults", timeout=HANG, lease=5)
        self.decided: list[tuple[str, float]] = []
        self.failures = 0
        self.switches: list[tuple[bool, float]] = []
        self.guarded = Guarded(
            self.store, MemoryStore(), mode, timeout=HANG, probe_every=0.2,  # type: ignore[arg-type]
            failed=self._failed,
            decided=lambda who, took: self.decided.append((who, took)),
            switched=lambda down: self.switches.append((down, time.monotonic())),
        )  # fmt: skip

    def _failed(self, reason: str) -> None:
        self.failures += 1

    def patience(self, seconds: float) -> None:
        """How long a call waits for the server from now on."""
        self.store.timeout = self.guarded._timeout = seconds

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
        took = sorted(took for who, took in self.decided if who == "fallback")
        print(
            f"{fault}: {self.failures} calls asked in vain, the longest took {took[-1] * 1e3:.0f} ms, the median "
            f"{took[len(took) // 2] * 1e3:.3f} ms; back after {time.monotonic() - healed:.2f} s"
        )


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[Watched]:
    opened = Watched(url)
    try:
        yield opened
    finally:
        await opened.guarded.close()


@pytest.mark.parametrize("fault", ["stopped", "killed and restarted empty"])
async def test_few_calls_wait_for_a_server_that_is_gone_and_it_decides_again_soon(
    own_redis: RedisServer, fault: str
) -> None:
    async with watched(own_redis.url) as at, client.Redis(port=own_redis.port) as raw:
        await at.calls(20)
        at.patience(0.025)
        match fault:
            case "stopped":
                own_redis.stop()
            case _:
                own_redis.kill()
        await at.calls(500)
        assert at.guarded.down
        assert at.failures <= 5
        assert [who for who, _ in at.decided] == ["store"] * 20 + ["fallback"] * 500
        healed = time.monotonic()
        at.patience(HANG)
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
async def test_nobody_waits_for_a_server_that_answers_with_an_error(
    own_redis: RedisServer, fault: str
) -> None:
    async with watched(own_redis.url) as at, client.Redis(port=own_redis.port) as raw:
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
    with (
        redis_server() as master,
        redis_server() as replica,
        tempfile.TemporaryDirectory(prefix="sentinel-") as directory,
    ):
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
        async with client.Redis(
            port=master.port
        ) as raw:  # what has not reached the replica is lost with the master
            assert await raw.execute_command("WAIT", "1", str(HANG * 1000)) == 1
        master.kill()
        killed = time.monotonic()
        at.patience(0.025)
        during = sum([(await at.guarded.take(claim)).admitted for _ in range(100)])
        assert at.failures <= 5
        at.patience(HANG)
        async with asyncio.timeout(HANG):
            while at.guarded.down:
                await asyncio.sleep(0.01)
        after = sum([(await at.guarded.take(claim)).admitted for _ in range(100)])
        assert at.decided[-1][0] == "store"
        assert before == 40
        print(f"{before} admitted before, {during} by the fallback, {after} after")
        assert before + during + after <= 2 * BURST.capacity
        at.tell("promotion", killed)
