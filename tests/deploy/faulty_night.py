"""A night of a loaded gateway in which everything fails at some time, seen by a real Prometheus.

Its providers are down, slow, without valid credentials, or cut their streams; limits, budgets and a queue
are full, keys are unknown, Redis is full and then gone, receivers never answer, a file cannot be read, workers
are killed. What the dashboards and alerts show of it is tested by test_panels.py, and drawn by
scripts/dashboard_pictures.py.
"""

import asyncio
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from tests.deploy.prometheus_server import prometheus, quick_rules
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.fakes.faulty import Behaviour, Provider, Turn, cut, healthy, malformed, refusing
from tests.servers import RedisServer, redis_server

GAP = 0.08
"""Seconds between two calls."""
OTHER, ADMIN = "sk-sluice-other", "sk-sluice-admin"
NOBODY = "http://127.0.0.1:9"
"""Nobody listens there."""
CONFIG = """
server:
  {{ listen: '127.0.0.1:${{API_PORT}}', admin_listen: '127.0.0.1:${{ADMIN_PORT}}', drain_delay: 0s, workers: {workers} }}
upstreams:
  openai: {{ backend: openai, base_url: "{openai}/v1", api_key: sk-a, breaker: {{ open_for: 2s, open_max: 3s }} }}
  anthropic:
    backend: anthropic
    base_url: "{anthropic}/v1"
    credentials: [{{ name: team-a, api_key: sk-a }}, {{ name: team-b, api_key: sk-b }}]
  local: {{ backend: openai, base_url: "{local}/v1" }}
  far: {{ backend: openai, base_url: "{far}/v1" }}
  gone: {{ backend: openai, base_url: "{nobody}/v1" }}
aliases:
  chat: {{ tiers: [[{{ upstream: openai, model: gpt-5-mini }}], [{{ upstream: anthropic, model: claude-haiku-4-5 }}]] }}
  claude: {{ tiers: [[{{ upstream: anthropic, model: claude-haiku-4-5 }}]] }}
  private: {{ tiers: [[{{ upstream: local, model: qwen3-32b }}]], limits: {{ streams: 4 }}, queue: {{ size: 6, timeout: 2s }} }}
  far: {{ tiers: [[{{ upstream: far, model: unpriced }}]] }}
  gone: {{ tiers: [[{{ upstream: gone, model: m }}]] }}
prices:
  models:
    gpt-5-mini: {{ input: 0.25, output: 2 }}
    claude-haiku-4-5: {{ input: 1, output: 5 }}
    qwen3-32b: {{ input: 0, output: 0 }}
keys:
  - {{ id: shop, digest: "{shop}", limits: {{ requests: {{ rate: 6/s, burst: 20 }}, budget: {{ day: {budget} }} }} }}
  - {{ id: operations, digest: "{operations}", limits: {{ requests: {{ rate: 1000/s }} }} }}
admin: {{ digest: "{admin}", pepper: 0123456789abcdef0123456789abcdef }}
limits: {{ address: null, store: "{redis}" }}
state: "{redis}"
records:
  - {{ name: file, interval: 1s, file: {{ path: "{records}" }} }}
  - {{ name: hook, interval: 1s, buffer: 128KiB, webhook: {{ url: "{nobody}/in" }} }}
tracing: {{ endpoint: "{nobody}" }}
metrics: {{ push: {{ endpoint: "{nobody}", every: 5s }} }}
"""


@dataclass(frozen=True)
class Seen:
    """What a Prometheus has of a night, which is over: `start` and `end` in seconds since the epoch."""

    server: str
    start: float
    end: float


class Night:
    def __init__(self, gateway: GatewayProcess, providers: dict[str, Provider], redis: RedisServer) -> None:
        self.gateway, self.providers, self.redis = gateway, providers, redis
        self.chance = random.Random(1)
        self.tasks: set[asyncio.Task[None]] = set()

    async def played(self, seconds: float) -> None:
        """A call every GAP, and the faults, each at its share of the time."""
        faults = self._faults()
        began = time.monotonic()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as client:
            await self._make_a_key(client)
            while (gone := time.monotonic() - began) < seconds:
                while faults and gone >= faults[0][0] * seconds:
                    faults.pop(0)[1]()
                self._begin(client)
                await asyncio.sleep(GAP)
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    # --- what happens

    def _faults(self) -> list[tuple[float, Callable[[], None]]]:
        openai, anthropic = paced(0.3, 0.05), paced(0.6, 0.08)
        return [
            (0.00, self._provider("openai", openai)), (0.00, self._provider("anthropic", anthropic)),
            (0.00, self._provider("local", paced(0.8, 0.2))), (0.00, self._provider("far", paced(7.0, 0.05))),
            (0.10, self._provider("openai", refusing("server"))), (0.22, self._provider("openai", openai)),
            (0.27, self._provider("anthropic", refusing("credentials"))),
            (0.38, self._provider("anthropic", anthropic)),
            (0.40, self._provider("openai", paced(3.5, 0.2))), (0.50, self._provider("openai", cut(30))),
            (0.60, self._provider("openai", malformed)), (0.68, self._provider("openai", odd)),
            (0.70, self._reload(broken=True)), (0.76, self._provider("openai", openai)),
            (0.76, self._reload(broken=False)),
            (0.77, self._kill_worker), (0.79, self._kill_worker), (0.81, self._kill_worker),
            (0.82, self._fill_redis), (0.85, self._provider("local", paced(2.5, 1.0))),
            (0.94, self.redis.kill), (0.98, self.redis.start),
        ]  # fmt: skip

    def _provider(self, name: str, behaviour: Behaviour) -> Callable[[], None]:
        return lambda: setattr(self.providers[name], "behaviour", behaviour)

    def _reload(self, *, broken: bool) -> Callable[[], None]:
        def change() -> None:
            text = self.gateway.path.read_text().replace("no_such_option: 1\n", "")
            self.gateway.path.write_text(text + "no_such_option: 1\n" if broken else text)
            self.gateway.process.send_signal(signal.SIGHUP)

        return change

    def _kill_worker(self) -> None:
        """One of them, where there are several processes."""
        pid = self.gateway.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            os.kill(int(children[0]), signal.SIGKILL)

    def _fill_redis(self) -> None:
        """It has no memory left: it refuses to write."""
        with socket.create_connection(("127.0.0.1", self.redis.port), timeout=30) as connection:
            connection.sendall(b"CONFIG SET maxmemory 1\r\n")
            connection.recv(100)

    # --- calls

    async def _make_a_key(self, client: aiohttp.ClientSession) -> None:
        url, headers = f"{self.gateway.admin}/admin/keys", {"x-admin-api-key": ADMIN}
        async with client.post(url, json={"id": "made"}, headers=headers) as response:
            assert response.status == 201, await response.text()

    def _begin(self, client: aiohttp.ClientSession) -> None:
        alias = self.chance.choices(("chat", "claude", "private", "far", "gone"), (12, 4, 4, 1, 1))[0]
        key = self.chance.choices((KEY, OTHER, "sk-wrong"), (6, 6, 1))[0]
        task = asyncio.create_task(self._call(client, alias, key, self.chance.random()))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _call(self, client: aiohttp.ClientSession, alias: str, key: str, fate: float) -> None:
        body: dict[str, Any] = {
            "model": alias,
            "stream": fate > 0.1,
            "messages": [{"role": "user", "content": "Count"}],
        }
        body |= {"max_tokens": 60, **({"logit_bias": {"1": 1}} if fate > 0.5 else {})}
        path = "/v1/chat/completions"
        if fate > 0.9:
            path, body = "/v1/chat", {"model": alias, "message": "Count", "sessionId": f"s{int(fate * 1000)}"}
        headers = {"authorization": f"Bearer {key}"}
        with suppress(aiohttp.ClientError, TimeoutError):
            async with client.post(self.gateway.api + path, json=body, headers=headers) as response:
                await (response.content.readany() if 0.1 < fate < 0.15 else response.read())


def paced(first: float, gap: float) -> Behaviour:
    """Seconds before the first token, and between every ten that follow, each half as much or half again."""

    async def behave(turn: Turn) -> None:
        await asyncio.sleep(first * random.uniform(0.5, 1.5))
        turn.begin(1)
        for _ in range(5):
            await asyncio.sleep(gap * random.uniform(0.5, 1.5))
            turn.say(10)
        turn.say(100)
        turn.finish()
        turn.end()

    return behave


async def odd(turn: Turn) -> None:
    """A field of another type, and no reason why it ends."""
    turn.begin(20)
    turn.write(b'data: {"choices":[{"index":"0","delta":{"content":["w20"]}}]}\n\n')
    turn.end()


@asynccontextmanager
async def a_night(workers: int, seconds: float, records: Path) -> AsyncIterator[Seen]:
    """Plays it with a gateway of so many workers, whose records of calls are in a file."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server())
        providers = {
            name: await stack.enter_async_context(Provider(healthy))
            for name in ("openai", "anthropic", "local", "far")
        }
        config = CONFIG.format(
            workers=workers, redis=redis.url, records=records, nobody=NOBODY, budget=seconds * 2e-4,
            shop=DIGEST, operations=_digest(OTHER), admin=_digest(ADMIN),
            **{name: provider.url for name, provider in providers.items()},
        )  # fmt: skip
        gateway = stack.enter_context(serving(config))
        server = stack.enter_context(prometheus(gateway.admin.removeprefix("http://"), rules=quick_rules()))
        start = time.time()
        await Night(gateway, providers, redis).played(seconds)
        yield Seen(server, start, time.time())


def _digest(key: str) -> str:
    return f"sha256:{sha256(key.encode()).hexdigest()}"
