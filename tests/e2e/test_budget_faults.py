"""What a budget says is what was used, to 1 %, whatever becomes of gateways, workers and their store: killed,
stopped, or with replies that are lost on their way. In every store that holds budgets.

Each answer costs the same, and reserves fifty times as much. What was used is what callers have read to its
end. An answer that was cut off may have been charged, for its gateway may have had all of it, and one that a
gateway had just sent when it was killed may not.

SLUICE_FULL=1: all of them, with 2,000 answers each; else two, with 200.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, _start
from tests.limits.test_reservation_faults import Cutter
from tests.redis_clusters import redis_cluster
from tests.servers import RedisServer, redis_server

FULL = os.environ.get("SLUICE_FULL") == "1"
ANSWERS = 2_000 if FULL else 200
CALLERS = 8
FAULTS = 4
"""How often it happens, evenly over the answers."""
STOPPED = 40.0 if FULL else 1.0
"""Seconds. A reservation lasts 30 without renewal."""
LOST = 20
"""Of so many replies one is lost."""
REPORTED = 3.0
"""Seconds after which what was used is in the usage report, which a budget in memory is charged from after a kill."""
PATIENCE = 120.0
HEADERS = {"x-api-key": KEY, "x-admin-api-key": KEY}
BODY = {"model": "chat", "max_tokens": 500, "messages": [{"role": "user", "content": "12345678"}]}
PRICE = 1000.0
"""US dollars for a million tokens."""


def config(store: str, usage: str, workers: int) -> str:
    return f"""
server:
  {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s, workers: {workers}}}
limits: {{address: null, store: "{store}"}}
admin: {{digest: "{DIGEST}", store: "{usage}"}}
keys: [{{id: one, digest: "{DIGEST}", limits: {{budget: {{month: 1000000}}}}}}]
upstreams: {{echo: {{backend: echo, tokens: 8, delay: 1ms, first_token_delay: 1ms}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}
prices: {{models: {{m: {{input: {PRICE}, output: {PRICE}}}}}}}
"""


@dataclass
class Host:
    """Gateways on one store: those that serve now, and what may happen to them."""

    text: str
    stack: ExitStack
    redis: RedisServer | None = None
    gateways: list[GatewayProcess] = field(default_factory=list)
    old: list[GatewayProcess] = field(default_factory=list)
    hurt: int = 0

    async def start(self) -> None:
        directory = Path(self.stack.enter_context(TemporaryDirectory()))
        gateway = await asyncio.to_thread(_start, self.text, {}, directory, None, -1, 'exec "$@"', ())
        self.stack.callback(gateway.stop)
        self.gateways.append(gateway)

    def workers(self) -> list[int]:
        """Of the first gateway, those that were started last."""
        return [
            *{
                line["worker"]: line["worker_pid"] for line in self.gateways[0].records("worker_started")
            }.values()
        ]

    async def kill(self) -> None:
        """One after another, in turn."""
        gateway = self.gateways.pop(0)
        self.old.append(gateway)
        gateway.process.kill()
        await asyncio.to_thread(gateway.process.wait)
        await self.start()

    async def kill_worker(self) -> None:
        self.hurt += 1
        os.kill(self.workers()[self.hurt % 2], signal.SIGKILL)

    async def stop(self) -> None:
        process = self.gateways[self.hurt % len(self.gateways)].process
        self.hurt += 1
        await stalled(lambda number: process.send_signal(number))

    async def stop_worker(self) -> None:
        """Its supervisor may lose patience and kill it."""
        self.hurt += 1
        pid = self.workers()[self.hurt % 2]

        def to(number: int) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        await stalled(to)

    async def stop_redis(self) -> None:
        assert self.redis is not None
        self.redis.stop()
        await asyncio.sleep(STOPPED / 10)
        self.redis.resume()

    async def nothing(self) -> None:
        """The replies are lost anyway."""


async def stalled(send: Callable[[int], None]) -> None:
    send(signal.SIGSTOP)
    await asyncio.sleep(STOPPED)
    send(signal.SIGCONT)


class Callers:
    """They ask until so many answers have come. `ends`: how calls ended, by status; "cut" and "refused" without
    one."""

    def __init__(self, host: Host, client: aiohttp.ClientSession) -> None:
        self._host = host
        self._client = client
        self.ends: Counter[object] = Counter()
        self.cost = 0.0
        self._times: list[float] = []

    @property
    def complete(self) -> int:
        return self.ends[200]

    async def ask(self, number: int) -> None:
        while self.complete < ANSWERS:
            gateways = self._host.gateways
            if not gateways:
                await asyncio.sleep(0.01)
                continue
            await self._one(gateways[number % len(gateways)].api)

    async def _one(self, api: str) -> None:
        try:
            async with self._client.post(
                f"{api}/v1/chat/completions", json=BODY, headers=HEADERS
            ) as response:
                answer = await response.json()
        except aiohttp.ClientConnectorError:
            self.ends["refused"] += 1
            await asyncio.sleep(0.01)
            return
        except (aiohttp.ClientError, TimeoutError):
            self.ends["cut"] += 1
            await asyncio.sleep(0.01)
            return
        self.ends[response.status] += 1
        if response.status == 200:
            cost = answer["usage"]["total_tokens"] * PRICE / 1e6
            assert self.cost in (0.0, cost)
            self.cost = cost
            self._times.append(asyncio.get_running_loop().time())

    def since(self, moment: float) -> int:
        """How many answers have come after it."""
        return sum(time > moment for time in self._times)

    async def until(self, answers: float) -> None:
        while self.complete < answers:
            await asyncio.sleep(0.01)


async def budget(client: aiohttp.ClientSession, host: Host) -> dict[str, Any]:
    """As soon as nothing is reserved any more."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with client.get(f"{host.gateways[0].admin}/admin/budgets", headers=HEADERS) as response:
                    if response.status == 200:
                        [found] = (await response.json())["budgets"]
                        if not found["reserved_usd"]:
                            return dict(found)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def lossy(redis: RedisServer) -> AsyncIterator[str]:
    """The address of a way to the server on which replies are lost."""
    cutter, replies = Cutter(redis.port), 0

    def cut() -> bool:
        nonlocal replies
        replies += 1
        return replies % LOST == 0

    cutter.cut = cut
    async with await asyncio.start_server(cutter.link, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0?connect_timeout=30&timeout=2"
        cutter.cut = lambda: False
        cutter.close()


@contextmanager
def stores(kind: str, tmp_path: Path) -> Iterator[tuple[str, RedisServer | None]]:
    match kind:
        case "redis":
            with redis_server() as server:
                yield f"{server.url}&timeout=2", server
        case "cluster":
            with redis_cluster() as cluster:
                yield f"{cluster.url}&timeout=2", cluster.nodes[cluster.owner(cluster.slot("{sluice}"))]
        case "shared":
            yield f"shared:{tmp_path}/limits", None
        case _:
            yield "memory", None


CASES: dict[str, tuple[str, int, int, Callable[[Host], Awaitable[None]]]] = {
    "memory, killed": ("memory", 1, 1, Host.kill),
    "memory, stopped": ("memory", 1, 1, Host.stop),
    "shared, killed": ("shared", 2, 1, Host.kill),
    "shared, stopped": ("shared", 2, 1, Host.stop),
    "shared, a worker is killed": ("shared", 1, 2, Host.kill_worker),
    "shared, a worker is stopped": ("shared", 1, 2, Host.stop_worker),
    "redis, killed": ("redis", 2, 1, Host.kill),
    "redis, stopped": ("redis", 2, 1, Host.stop),
    "redis, a worker is killed": ("redis", 1, 2, Host.kill_worker),
    "redis, the server is stopped": ("redis", 2, 1, Host.stop_redis),
    "redis, replies are lost": ("lossy", 2, 1, Host.nothing),
    "redis, replies are lost, killed": ("lossy", 2, 1, Host.kill),
    "cluster, killed": ("cluster", 2, 1, Host.kill),
    "cluster, stopped": ("cluster", 2, 1, Host.stop),
    "cluster, a master is stopped": ("cluster", 2, 1, Host.stop_redis),
}
"""The store, the number of gateways and of the workers of each, and what happens."""


@pytest.mark.timeout(900 if FULL else 240)
@pytest.mark.parametrize("case", CASES if FULL else ["shared, killed", "shared, a worker is killed"])
async def test_a_budget_says_what_was_used(case: str, tmp_path: Path) -> None:
    kind, gateways, workers, fault = CASES[case]
    async with contextlib.AsyncExitStack() as servers:
        if kind == "lossy":
            redis: RedisServer | None = servers.enter_context(redis_server())
            assert redis is not None
            store = await servers.enter_async_context(lossy(redis))
        else:
            store, redis = servers.enter_context(stores(kind, tmp_path))
        stack = servers.enter_context(ExitStack())
        host = Host(config(store, f"sqlite:{tmp_path}/usage", workers), stack, redis)
        for _ in range(gateways):
            await host.start()
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(PATIENCE)
        ) as client:
            callers = Callers(host, client)
            late = 0
            asking = [asyncio.create_task(callers.ask(number)) for number in range(CALLERS)]
            for number in range(1, FAULTS + 1):
                await callers.until(ANSWERS * number / (FAULTS + 1))
                late += callers.since(asyncio.get_running_loop().time() - REPORTED)
                await fault(host)
            await asyncio.gather(*asking)
            found = await budget(client, host)
        log = sum(
            line.get("cost_usd", 0) for g in (*host.gateways, *host.old) for line in g.records("request")
        )
    charged = found["spent_usd"] / callers.cost
    print(f"\n| {case} | {dict(callers.ends)} | {charged:.2f} | {log / callers.cost:.2f} |")
    assert charged <= (callers.complete + callers.ends["cut"]) * 1.0001
    unsettled = 0
    if "killed" in case and not FULL:
        unsettled = FAULTS * CALLERS
    elif case == "memory, killed":
        unsettled = late
    assert charged >= callers.complete * 0.99 - unsettled
