"""Two gateways, as on two hosts (with SQLite: on one), share a store of conversations: sessions are used at both at
once, and either is killed.

The echo model says how many of the user's messages it was given, so each answer tells the place of its turn
in the session: what was acknowledged must stand there, once. SLUICE_TURNS=10000 makes it as many turns.
"""

import asyncio
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest

from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, _start
from tests.redis_clusters import redis_cluster
from tests.servers import pgbouncer, postgres_server, redis_server

TURNS = int(os.environ.get("SLUICE_TURNS", "120"))
CLIENTS = 4
"""For each session, half of them at each gateway."""
LONGEST_SESSION = 240
HEADERS = {"x-api-key": KEY, "x-admin-api-key": KEY}


def config(state: str) -> str:
    return f"""
state: "{state}&timeout=30s"
keys: [{{id: one, digest: "{DIGEST}", aliases: ["*"], default_alias: chat}}]
admin: {{digest: "{DIGEST}", store: memory}}
limits: {{address: null}}
upstreams: {{echo: {{backend: echo, delay: 2ms}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]], history: {{messages: 1000, tokens: 100000000}}}}}}
"""


@contextmanager
def redis_address() -> Iterator[str]:
    with redis_server() as server:
        yield server.url


@contextmanager
def postgres_address() -> Iterator[str]:
    with postgres_server() as server, pgbouncer(server) as address:
        yield address


@contextmanager
def cluster_address() -> Iterator[str]:
    with redis_cluster() as cluster:
        yield cluster.url


@contextmanager
def file_address() -> Iterator[str]:
    """Of two gateways on one host; the file's name ends as config() has it."""
    with TemporaryDirectory() as directory:
        yield f"sqlite:{directory}/state.db"


STORES: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "redis": redis_address,
    "cluster": cluster_address,
    "postgres": postgres_address,
    "sqlite": file_address,
}


class Host:
    """One gateway, which may be killed and started again."""

    def __init__(self, state: str, stack: ExitStack) -> None:
        self._config = config(state)
        self._stack = stack
        self.gateway: GatewayProcess | None = None

    def start(self) -> None:
        directory = Path(self._stack.enter_context(TemporaryDirectory()))
        self.gateway = _start(self._config, {}, directory, None, -1, 'exec "$@"', ())
        self._stack.callback(self.gateway.stop)

    async def kill(self) -> None:
        assert self.gateway is not None
        self.gateway.process.kill()
        await asyncio.to_thread(self.gateway.process.wait)

    async def turn(self, client: aiohttp.ClientSession, session: str, message: str) -> str | None:
        """What was answered; None where the gateway was killed meanwhile."""
        assert self.gateway is not None
        try:
            async with client.post(
                f"{self.gateway.api}/v1/chat",
                json={"sessionId": session, "message": message},
                headers=HEADERS,
            ) as response:
                body = await response.json()
                assert response.status == 200, body
                assert "x-sluice-history" not in response.headers
                return str(body["message"])
        except aiohttp.ClientError:
            return None


def place_of(answer: str) -> int:
    """Which turn of its session it was, from 0: "Turn 7, you said: …"."""
    found = re.match(r"Turn (\d+), you said", answer)
    return int(found[1]) - 1 if found else 0


async def talk(
    host: Host, client: aiohttp.ClientSession, session: str, name: str, told: dict[int, str], count: int
) -> None:
    """So many acknowledged turns come into `told`, by their places."""
    acknowledged = 0
    for number in itertools.count():
        if acknowledged == count:
            return
        message = f"{name} says {number}"
        answer = await host.turn(client, session, message)
        if answer is not None:
            acknowledged += 1
            place = place_of(answer)
            assert place not in told
            told[place] = message
            assert answer.endswith(message)
        else:
            await asyncio.sleep(0.05)  # nothing else says when it is back


async def kept(gateway: GatewayProcess, client: aiohttp.ClientSession) -> dict[str, list[tuple[str, str]]]:
    """All pairs of each session, by the admin API."""
    base = f"{gateway.admin}/v1/admin/conversations"
    async with client.get(base, params={"limit": 200}, headers=HEADERS) as response:
        listed = json.loads(await response.text())["conversations"]
    found = {}
    for one in listed:
        async with client.get(f"{base}/{one['_id']}", headers=HEADERS) as response:
            messages = json.loads(await response.text())["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        contents = [message["content"] for message in messages]
        found[one["sessionId"]] = list(zip(contents[::2], contents[1::2], strict=True))
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600 if TURNS > 1000 else 240)
@pytest.mark.parametrize("engine", STORES)
async def test_no_turn_is_lost_doubled_or_out_of_order_whoever_is_killed(engine: str) -> None:
    sessions = max(2, TURNS // LONGEST_SESSION)
    count = max(1, TURNS // sessions // CLIENTS)
    with STORES[engine]() as state, ExitStack() as stack:
        hosts = [Host(state, stack) for _ in range(2)]
        for host in hosts:
            host.start()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as client:
            told: dict[str, dict[int, str]] = {f"s{session}": {} for session in range(sessions)}
            talking = [
                asyncio.create_task(
                    talk(hosts[number % 2], client, session, f"client {number}", places, count)
                )
                for session, places in told.items()
                for number in range(CLIENTS)
            ]
            for share, victim in zip((0.2, 0.5), hosts, strict=True):
                while sum(map(len, told.values())) < TURNS * share:
                    await asyncio.sleep(0.002)
                await victim.kill()
                assert not all(task.done() for task in talking)
                await asyncio.to_thread(victim.start)
            await asyncio.gather(*talking)
            assert hosts[0].gateway is not None
            found = await kept(hosts[0].gateway, client)
    assert sum(map(len, told.values())) == sessions * CLIENTS * count
    for session, places in told.items():
        pairs = found[session]
        questions = [question for question, _ in pairs]
        assert len(set(questions)) == len(questions), "a turn is there twice"
        assert {place: questions[place] for place in places} == places, (
            "an acknowledged turn is not where it was"
        )
        for place, (question, answer) in enumerate(pairs):
            assert answer.endswith(question)
            assert place_of(answer) == place
        for name in range(CLIENTS):
            mine = [
                int(question.rpartition(" ")[2])
                for question in questions
                if question.startswith(f"client {name} ")
            ]
            assert mine == sorted(mine)
