"""Proof 2 of the streams: the client leaves, in six phases of a call, and nothing of the call is left.

In each phase N callers are brought to the same point and then leave all at once. The provider notes when its
side of the connection was closed; how long that took is printed (`-s` shows it), and only loosely bounded:
the machine may be busy.

SLUICE_FULL=1: 10,000 in all, in place of 50 a phase.
"""

import asyncio
import gc
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.e2e.answers import request_of
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.dialects import OPENAI
from tests.fakes.faulty import Behaviour, Provider, Turn, refusing, stall
from tests.fakes.rawserver import black_hole
from tests.upstream.calls import until

FULL = os.environ.get("SLUICE_FULL") == "1"
AT_ONCE = 50
ROUNDS = -(-10_000 // (6 * AT_ONCE)) if FULL else 1
BOUND = 20.0
"""Seconds from the client's leaving to the upstream's, on a machine that has other things to do."""
SAID = 20
"""Tokens of a stream when its client leaves."""


class Caller(asyncio.Protocol):
    """A client on a raw socket, for it must be able to leave at any time, and not to read."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def ask(self, mode: str, alias: str, prefix: str = "") -> None:
        path, body = request_of(mode, alias)
        data = json.dumps(body).encode()
        head = f"POST {prefix}{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        self.transport.write(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(data), data))


async def callers(g: Running, count: int, mode: str, alias: str, *, read: bool = True) -> list[Caller]:
    host, port = g.address
    loop = asyncio.get_running_loop()
    made = []
    for _ in range(count):
        _, caller = await loop.create_connection(Caller, host, port)
        if not read:
            caller.transport.pause_reading()
        caller.ask(mode, alias, g.prefix)
        made.append(caller)
    return made


async def flood(turn: Turn) -> None:
    """Megabytes, as fast as they are taken."""
    turn.begin()
    tokens = b"".join(OPENAI.token(f" w{n}") for n in range(100))
    while not turn.peer.closed.is_set():
        turn.write(tokens)
        await turn.peer.drain()


@dataclass(frozen=True)
class Phase:
    """`there(g, provider, before, count)` holds when all `count` callers have come to the phase."""

    behaviour: Behaviour
    there: Callable[[Running, Provider, int, list[Caller]], bool]
    mode: str = "openai stream"
    read: bool = True
    alias: str = "chat"


def _asked(g: Running, provider: Provider, before: int, clients: list[Caller]) -> bool:
    return len(provider.turns) - before == len(clients)


def _connecting(g: Running, provider: Provider, before: int, clients: list[Caller]) -> bool:
    return len(g.runtime.pipeline.runs) == len(clients)


def _head(g: Running, provider: Provider, before: int, clients: list[Caller]) -> bool:
    runs = g.runtime.pipeline.runs
    return len(runs) == len(clients) and all(run.call.phase == "first_token" for run in runs)


def _said(g: Running, provider: Provider, before: int, clients: list[Caller]) -> bool:
    return all(caller.received.count(b'"content":" w') + 1 == SAID for caller in clients)


def _whole(g: Running, provider: Provider, before: int, clients: list[Caller]) -> bool:
    runs = g.runtime.pipeline.runs
    text = len("".join(turn.text for turn in provider.turns[before:]))
    relays = [answer.relay for run in runs for answer in run.reading]
    return len(relays) == len(clients) and sum(relay.characters for relay in relays) == text > 0


def _blocked(g: Running, provider: Provider, before: int, clients: list[Caller]) -> bool:
    runs = g.runtime.pipeline.runs
    return len(runs) == len(clients) and all(run.writer.blocked_since for run in runs)


def _between(g: Running, provider: Provider, before: int, clients: list[Caller]) -> bool:
    runs = g.runtime.pipeline.runs
    return _asked(g, provider, before, clients) and all(
        run.call.attempts and run.call.phase == "waiting" for run in runs
    )


PHASES: Mapping[str, Phase] = {
    "connecting": Phase(stall(0), _connecting, alias="hole"),
    "first token": Phase(stall(0), _head),
    "mid-stream": Phase(stall(SAID), _said),
    "back-pressured": Phase(flood, _blocked, read=False),
    "not streaming": Phase(stall(SAID), _whole, mode="openai whole"),
    "between attempts": Phase(refusing("rate", ("Retry-After", "50"), ("Connection", "close")), _between),
}


@asynccontextmanager
async def before(provider: Provider, hole: str) -> AsyncIterator[Running]:
    timeouts = "timeouts: {connect: 60, headers: 60, first_token: 60, idle: 60}"
    breaker = "breaker: {failures: 100000, error_rate: null}"
    config = f"""{HEAD}
upstreams:
  fake: {{backend: openai, base_url: "{provider.url}", {timeouts}, {breaker}}}
  hole: {{backend: openai, base_url: "{hole}", {timeouts}, {breaker}}}
aliases:
  chat: {{tiers: [[{{upstream: fake, model: m}}]], heartbeat: null, retry: {{retry_after_wait: 60}}}}
  hole: {{tiers: [[{{upstream: hole, model: m}}]], heartbeat: null}}
"""
    async with gateway(config, level="info") as g:
        yield g


async def leave(clients: list[Caller], provider: Provider, seen: int) -> list[float]:
    """All of them, at once; the delays until the provider's side of each one's connection was closed."""
    left = time.monotonic()
    for caller in clients:
        caller.transport.abort()
    async with asyncio.timeout(30):
        for peer in provider.peers[seen:]:
            await peer.closed.wait()
    return [peer.closed_at - left for peer in provider.peers[seen:]]


def described(delays: list[float]) -> str:
    ordered = [1000 * delay for delay in sorted(delays)]
    p50, p99 = (ordered[int(q * (len(ordered) - 1))] for q in (0.5, 0.99))
    return (
        f"{len(ordered)} upstream calls ended: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {ordered[-1]:.1f} ms"
    )


@pytest.mark.usefixtures("every_server")
@pytest.mark.parametrize("name", PHASES)
@pytest.mark.timeout(600 if FULL else 60)
async def test_nothing_is_left_of_a_call_whose_client_has_left(name: str) -> None:
    phase = PHASES[name]
    delays: list[float] = []
    with black_hole() as hole:
        async with Provider(phase.behaviour) as provider, before(provider, hole) as g:
            tasks = len(asyncio.all_tasks())
            for _ in range(ROUNDS):
                turns, peers = len(provider.turns), len(provider.peers)
                clients = await callers(g, AT_ONCE, phase.mode, phase.alias, read=phase.read)
                await until(lambda: phase.there(g, provider, turns, clients))  # noqa: B023
                left = time.monotonic()
                found = await leave(clients, provider, peers)
                await until(lambda: not g.runtime.pipeline.runs)
                # while connecting, and between attempts, there is no connection whose end could be seen: the
                # call's counts
                delays += (
                    found
                    if name not in ("connecting", "between attempts")
                    else [time.monotonic() - left] * AT_ONCE
                )
                assert len(provider.turns) - turns == (0 if name == "connecting" else AT_ONCE), (
                    "somebody was asked again"
                )
            count = AT_ONCE * ROUNDS
            assert len(delays) == count
            print(f"\n{name}: {described(delays)}")
            assert max(delays) < BOUND
            await until(lambda: not g.busy)
            await nothing_left(g, tasks, provider)
            assert [line["end"] for line in g.requests] == ["client_gone"] * count
            outcome = "rate_limited" if name == "between attempts" else "abandoned"
            upstream = "hole" if name == "connecting" else "fake"
            assert (
                g.metric(
                    f'sluice_upstream_attempts_total{{model="m",outcome="{outcome}",upstream="{upstream}"}}'
                )
                == count
            )
            if name in ("mid-stream", "not streaming"):
                charged = g.metric(
                    'sluice_tokens_total{kind="output",model="m",source="estimate",upstream="fake"}'
                )
                assert charged == sum(turn.tokens for turn in provider.turns), (
                    "charged is what the provider sent"
                )


async def nothing_left(g: Running, tasks: int, provider: Provider) -> None:
    """No call, connection, slot or task; and nobody has complained."""
    for upstream in ("fake", "hole"):
        for state in ("open", "idle", "waiting"):
            assert g.metric(f'sluice_upstream_connections{{state="{state}",upstream="{upstream}"}}') == 0, (
                upstream,
                state,
            )
    for alias in ("chat", "hole"):
        assert g.metric(f'sluice_streams_in_flight{{alias="{alias}",frontend="openai"}}') == 0
        route = g.runtime.routes[alias]
        assert [target.load.in_flight for tier in route.tiers for target in tier.targets] == [0]
    assert provider.open == 0
    gc.collect()
    idle = len(provider.peers)  # the fake's own task for each connection
    await until(lambda: len(asyncio.all_tasks()) <= tasks + idle)
    assert [line for line in g.log_lines if line["event"] in ("crash", "library")] == []
