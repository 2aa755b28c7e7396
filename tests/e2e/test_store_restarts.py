"""The store of conversations dies under load and comes back: PostgreSQL and Redis started again, a Sentinel
that promotes a replica. Calls go on, and of what was acknowledged with its history nothing is gone.

SLUICE_FIGURES=1 prints how long it took (docs/stores.md).
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import NamedTuple, Protocol

import aiohttp
import pytest
import redis

from tests.e2e.gateway_process import GatewayProcess, serving
from tests.e2e.test_hosts import HEADERS, config, kept, place_of
from tests.servers import RedisSentinel, postgres_server, redis_server

SESSIONS = 8
DOWN = 1.0
"""Seconds between the death of a server and its start."""
BEFORE, AFTER = 20, 20
"""Turns of each session before the store dies, and after it is back."""
PATIENCE = 120


class Store(NamedTuple):
    """`replaced`: a replica takes its place, so what the dead one alone had is lost."""

    address: str
    die: Callable[[], None]
    replaced: bool = False


class Startable(Protocol):
    def start(self) -> None: ...

    def kill(self) -> None: ...


def start_again(server: Startable) -> None:
    server.kill()
    time.sleep(DOWN)
    server.start()


@contextmanager
def postgres_again() -> Iterator[Store]:
    with postgres_server() as server:
        yield Store(server.url, partial(start_again, server))


@contextmanager
def redis_again() -> Iterator[Store]:
    with redis_server(None, "--appendonly", "yes", "--appendfsync", "always") as server:
        yield Store(server.url, partial(start_again, server))


@contextmanager
def redis_promoted() -> Iterator[Store]:
    with (
        redis_server() as master,
        redis_server() as replica,
        tempfile.TemporaryDirectory(prefix="sentinel-") as directory,
    ):
        sentinel = RedisSentinel(directory, master)
        with redis.Redis(port=replica.port) as raw:
            raw.execute_command("REPLICAOF", "127.0.0.1", str(master.port))
            while raw.info("replication")["master_link_status"] != "up":
                time.sleep(0.05)
        sentinel.start()
        try:
            with redis.Redis(port=sentinel.port) as raw:
                while not raw.execute_command("SENTINEL", "REPLICAS", "main"):
                    time.sleep(0.05)
            address = f"redis+sentinel://127.0.0.1:{sentinel.port}/main/0?connect_timeout=2"
            yield Store(address, master.kill, replaced=True)
        finally:
            sentinel.kill()


STORES: dict[str, Callable[[], AbstractContextManager[Store]]] = {
    "PostgreSQL, started again": postgres_again,
    "Redis, started again": redis_again,
    "Redis, by a Sentinel": redis_promoted,
}


class Turned(NamedTuple):
    began: float
    took: float
    place: int
    message: str
    flagged: bool
    """Its history was not there."""


async def turn(client: aiohttp.ClientSession, gateway: GatewayProcess, session: str, message: str) -> Turned:
    began = time.monotonic()
    body = {"sessionId": session, "message": message}
    async with client.post(f"{gateway.api}/v1/chat", json=body, headers=HEADERS) as response:
        answer = await response.json()
        assert response.status == 200, answer
        flagged = "x-sluice-history" in response.headers
    assert answer["message"].endswith(message)
    return Turned(began, time.monotonic() - began, place_of(answer["message"]), message, flagged)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", STORES)
async def test_calls_go_on_and_no_acknowledged_turn_is_gone(what: str) -> None:
    with STORES[what]() as store, ExitStack() as stack:
        text = config(store.address).replace("&timeout=30s", "")
        gateways = [stack.enter_context(serving(text)) for _ in range(2)]
        found: dict[str, list[Turned]] = {f"s{number}": [] for number in range(SESSIONS)}
        back = asyncio.Event()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as client:

            async def talk(session: str) -> None:
                turns, after = found[session], 0
                while after < AFTER:
                    gateway = gateways[len(turns) % 2]
                    turns.append(await turn(client, gateway, session, f"{session} says {len(turns)}"))
                    after += back.is_set() and not turns[-1].flagged

            talking = [asyncio.create_task(talk(session)) for session in found]
            while min(map(len, found.values())) < BEFORE:
                await asyncio.sleep(0.01)
            died = time.monotonic()
            await asyncio.to_thread(store.die)
            back.set()
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*talking)
            pairs = await kept(gateways[0], client)
    stored = {session: [question for question, _ in said] for session, said in pairs.items()}
    turns = [one for session in found.values() for one in session]
    lost = []
    for session, said in found.items():
        questions = stored[session]
        assert len(set(questions)) == len(questions), "a turn is there twice"
        assert questions == sorted(questions, key=lambda question: int(question.rpartition(" ")[2]))
        lost += [one for one in said if not one.flagged and one.message not in questions]
    if os.environ.get("SLUICE_FIGURES") == "1":
        late = [one for one in turns if one.began + one.took > died]
        first = max(
            min(one.began + one.took for one in said if one.began > died and not one.flagged)
            for said in found.values()
        )
        flagged, longest = sum(one.flagged for one in turns), max(one.took for one in late)
        print(f"\n| {what} | {len(turns)} | {flagged} | {len(lost)} | {longest:.1f} | {first - died:.1f} |")
    if not store.replaced:
        assert lost == []
