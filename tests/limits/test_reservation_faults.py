"""Budgets in Redis when replies are lost, servers stall or processes are killed: what was spent is what was
used."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import redis.asyncio as client

from sluice.limits import Balance, BucketStore, Claim, Limit, Slot
from sluice.limits.guarded import Guarded
from sluice.limits.memory import MemoryStore
from sluice.limits.redis import RedisStore
from sluice.limits.shared import SharedStore
from tests.limits.stores import EPOCH
from tests.servers import RedisServer

DOLLARS = Limit(capacity=20.0, rate=0.0)
BUDGET = Claim("budget", DOLLARS, 0.5, "key", "budget", EPOCH / 64 + 86_400.0)
USED = 0.01
HANG = 30
"""Seconds after which a test gives up."""


def reserving(number: int) -> Claim:
    return msgspec.structs.replace(BUDGET, holder=f"call{number}")


def settling(claim: Claim) -> Claim:
    return msgspec.structs.replace(claim, amount=USED, held=claim.amount)


async def settled(guarded: Guarded, expected: float) -> Balance:
    """The budget once nothing is reserved any more and everything that is owed has been paid."""
    async with asyncio.timeout(HANG):
        while True:
            with contextlib.suppress(Exception):
                [found] = await guarded.balances([BUDGET])
                if found.reserved < 1e-9 and found.spent >= 0.999 * expected:
                    return found
            await asyncio.sleep(0.01)


class Cutter:
    """A way to the server that passes everything on but a reply when the test says so: then it cuts the
    connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cut: Callable[[], bool] = lambda: False
        self._tasks: set[asyncio.Task[None]] = set()

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, replies: bool) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    if replies and self.cut():
                        break
                    sink.write(data)
            for one in (writer, back):
                one.close()

        for one in (pump(reader, back, replies=False), pump(there, writer, replies=True)):
            task = asyncio.create_task(one)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def guarded_through(port: int, prefix: str, **options: float) -> AsyncIterator[tuple[Guarded, Cutter]]:
    cutter = Cutter(port)
    async with await asyncio.start_server(cutter.link, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = RedisStore(url, prefix=prefix, timeout=options.get("timeout", HANG), lease=0.2)
        guarded = Guarded(store, MemoryStore(), timeout=options.get("timeout", HANG), probe_every=0.01)
        try:
            yield guarded, cutter
        finally:
            await guarded.close()
            cutter.close()


@pytest.mark.parametrize("every", [1, 2, 3, 7])
async def test_replies_that_are_lost_charge_nothing_twice_and_nothing_for_nothing(
    redis: RedisServer, every: int
) -> None:
    async with guarded_through(redis.port, f"lost{every}") as (guarded, cutter):
        replies = 0

        def cut() -> bool:
            nonlocal replies
            replies += 1
            return replies % every == 0 and replies < 200

        cutter.cut = cut
        for number in range(30):
            claim = reserving(number)
            verdict = await guarded.take([claim], [Slot("s", 1000, claim.holder)])
            assert verdict.admitted
            await (verdict.by or guarded).settle([settling(claim)], [Slot("s", 1000, claim.holder)])
        found = await settled(guarded, 30 * USED)
        assert found.spent == pytest.approx(30 * USED, rel=0.01)


@pytest.mark.parametrize("when", ["before the call", "before the settlement"])
@pytest.mark.parametrize("how", ["pause", "stop", "sleep"])
async def test_a_stall_charges_what_was_used(own_redis: RedisServer, how: str, when: str) -> None:
    async with (
        guarded_through(own_redis.port, "stall", timeout=0.05) as (guarded, _),
        client.Redis(port=own_redis.port) as raw,
    ):

        async def stall() -> None:
            match how:
                case "pause":
                    await raw.execute_command("CLIENT", "PAUSE", 300, "ALL")
                case "stop":
                    own_redis.stop()
                    asyncio.get_running_loop().call_later(0.3, own_redis.resume)
                case "sleep":
                    sleeping.append(asyncio.create_task(raw.execute_command("DEBUG", "SLEEP", "0.3")))
                    await asyncio.sleep(0)

        sleeping: list[asyncio.Task[object]] = []
        if when == "before the call":
            await stall()
        claims = [reserving(number) for number in range(20)]
        verdicts = [await guarded.take([claim]) for claim in claims]
        if when == "before the settlement":
            await stall()
        for claim, verdict in zip(claims, verdicts, strict=True):
            assert verdict.admitted
            await (verdict.by or guarded).settle([settling(claim)])
        await asyncio.gather(*sleeping, return_exceptions=True)
        found = await settled(guarded, 20 * USED)
        assert found.spent == pytest.approx(20 * USED, rel=0.01)


async def test_calls_during_an_outage_are_charged_when_the_server_is_back(own_redis: RedisServer) -> None:
    async with guarded_through(own_redis.port, "outage", timeout=0.05) as (guarded, _):
        before = reserving(0)
        verdict = await guarded.take([before])
        own_redis.stop()
        during = [reserving(number) for number in range(1, 10)]
        verdicts = [await guarded.take([claim]) for claim in during]
        assert guarded.down
        for claim, decided in zip([before, *during], [verdict, *verdicts], strict=True):
            await (decided.by or guarded).settle([settling(claim)])
        own_redis.resume()
        found = await settled(guarded, 10 * USED)
        assert found.spent == pytest.approx(10 * USED, rel=0.01)


DIES = """
import asyncio, sys, msgspec
from sluice.limits.redis import RedisStore
from sluice.limits.shared import SharedStore
from tests.limits.test_reservation_faults import *

async def main(kind, where):
    store = RedisStore(where, prefix="dies", timeout=30, lease=0.2) if kind == "redis" else SharedStore(where, lease=1000)
    for number in range(10):
        await store.take([reserving(number)])
    for number in range(2):
        await store.settle([settling(reserving(number))])
    print("holds", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["redis", "shared"])
async def test_what_a_killed_process_had_reserved_is_given_back(
    redis: RedisServer, kind: str, tmp_path: Path
) -> None:
    where = redis.url if kind == "redis" else f"{tmp_path}/limits"
    store: BucketStore = (
        RedisStore(where, prefix="dies", timeout=HANG, lease=0.2) if kind == "redis" else SharedStore(where)
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES, kind, where, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"holds\n"
    if kind == "shared":
        [found] = await store.balances([BUDGET])
        assert (found.spent, found.reserved) == (pytest.approx(2 * USED), pytest.approx(8 * BUDGET.amount))
    process.kill()
    await process.wait()
    async with asyncio.timeout(HANG):
        while not (await store.take([msgspec.structs.replace(BUDGET, amount=19.9, holder="next")])).admitted:
            await asyncio.sleep(0.01)
        await store.settle([msgspec.structs.replace(BUDGET, amount=0.0, held=19.9, holder="next")])
        [found] = await store.balances([BUDGET])
    assert (found.spent, found.reserved) == (pytest.approx(2 * USED), 0.0)
    await store.close()
