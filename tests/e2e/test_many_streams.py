"""Proof 5 of the streams: many at once, with faults among them, and none loses, reorders or doubles an event.

And readers who do not read: bounded memory each, and an end after the write-idle time.

SLUICE_FULL=1: 1,000 streams in place of 300.
"""

import asyncio
import json
import os
import re
from collections import Counter

import aiohttp

from sluice_plugins.decoding import MAX_EVENT
from tests.e2e.answers import ask
from tests.e2e.gateway_process import DIGEST, GatewayProcess, serving
from tests.e2e.gateways import HEAD, gateway
from tests.e2e.test_disconnect import Caller, flood
from tests.fakes.dialects import ANSWER, TOKENS
from tests.fakes.faulty import BEHAVIOURS, Provider, Turn
from tests.fakes.rawserver import LAST_CHUNK
from tests.upstream.calls import until

FULL = os.environ.get("SLUICE_FULL") == "1"
STREAMS = 1000 if FULL else 300
READERS = 300  # among fewer, the allocator's steps are large beside what each costs
FEW = 10
FAULTS = (
    "500 always", "503 always", "reset before headers", "closed before headers", "error in the stream", "cut before a token",
    "HTML 200", "429 always", "headers, then nothing", "CL and TE",
)  # fmt: skip
PER_READER = 350 << 10
"""Bytes of resident memory that a reader who does not read may cost."""


async def in_pieces(turn: Turn) -> None:
    """A healthy answer in reads of all sizes, between which other streams have their turn."""
    turn.begin()
    step = 0
    while turn.tokens < len(TOKENS):
        turn.say(1 + (turn.number + step) % 7)
        step += 1
        await asyncio.sleep(0)
    turn.finish()
    turn.write(turn.dialect.end())
    turn.peer.send(LAST_CHUNK)


async def mixed(turn: Turn) -> None:
    """Every second request fails, each time in another way."""
    behaviour = in_pieces if turn.number % 2 else BEHAVIOURS[FAULTS[turn.number // 2 % len(FAULTS)]]
    await behaviour(turn)


async def test_many_streams_at_once_lose_reorder_and_double_nothing() -> None:
    brief = "timeouts: {headers: 20, first_token: 2, idle: 20}, breaker: {failures: 100000, error_rate: null}"
    async with Provider(mixed) as faulty, Provider(in_pieces) as well:
        config = f"""{HEAD}
upstreams:
  faulty: {{backend: openai, base_url: "{faulty.url}", {brief}}}
  well: {{backend: openai, base_url: "{well.url}"}}
aliases:
  chat: {{tiers: [[{{upstream: faulty, model: m}}], [{{upstream: well, model: m}}]], retry: {{backoff: 0.01}}}}
"""
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            gateway(config, level="info") as g,
            aiohttp.ClientSession(g.url, connector=connector) as client,
        ):
            modes = ("widget stream", "openai stream")
            answers = await asyncio.gather(*(ask(client, modes[n % 2], "chat") for n in range(STREAMS)))
            assert Counter(answer.error or "whole" for answer in answers) == {"whole": STREAMS}
            assert {answer.text for answer in answers} == {ANSWER}
            await until(lambda: not g.runtime.pipeline.runs)
            await until(lambda: g.log_bytes.getvalue().count(b'"event":"request"') == STREAMS)
            assert Counter(line["end"] for line in g.requests) == {"done": STREAMS}
            assert [line for line in g.log_lines if line["event"] in ("crash", "library")] == []
            assert len(faulty.turns) > STREAMS / 3, "the faulty one was asked, too"


# --- readers who do not read


def resident(process: GatewayProcess, of: str = "VmRSS") -> int:
    """Bytes; `of` VmHWM: the most there ever were."""
    with open(f"/proc/{process.process.pid}/status") as status:
        found = re.search(rf"{of}:\s+(\d+) kB", status.read())
    assert found is not None
    return int(found[1]) << 10


async def test_readers_who_do_not_read_are_bounded_and_then_closed() -> None:
    async with Provider(flood) as provider:
        patient = "timeouts: {connect: 60, headers: 60, first_token: 60, idle: 60}"
        config = f"""
server: {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0, write_idle: 4s}}
keys: [{{id: test, digest: "{DIGEST}", aliases: ["*"]}}]
limits: {{address: null}}
upstreams: {{fake: {{backend: openai, base_url: "{provider.url}", {patient}}}}}
aliases: {{chat: {{tiers: [[{{upstream: fake, model: m}}]]}}}}
"""
        context = serving(config)
        process = await asyncio.to_thread(context.__enter__)
        try:
            few = await slow_readers(process, FEW)  # among it, what is allocated once
            each = (await slow_readers(process, READERS) - few) / (READERS - FEW)
            print(f"\n{READERS} readers who do not read: {each / 1024:.0f} KiB of resident memory each")
            assert each < PER_READER
            await provider.all_closed()
            ends = [json.loads(line)["end"] for line in process.lines if '"event":"request"' in line]
            assert ends == ["slow_reader"] * (READERS + FEW)
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


PER_BOMB = 8 << 20


async def test_what_is_too_large_costs_little_memory() -> None:
    bombs = ("64 MiB line", "5000 headers", "gzip bomb")
    async with Provider(in_pieces) as provider:
        config = f"""
keys: [{{id: test, digest: "{DIGEST}", aliases: ["*"]}}]
limits: {{address: null}}
upstreams: {{fake: {{backend: openai, base_url: "{provider.url}", breaker: {{failures: 1000}}}}}}
aliases: {{chat: {{tiers: [[{{upstream: fake, model: m}}]]}}}}
"""
        context = serving(config)
        process = await asyncio.to_thread(context.__enter__)
        try:
            async with aiohttp.ClientSession(process.api) as client:
                assert (await ask(client, "openai stream", "chat")).text == ANSWER
                for bomb in bombs:
                    most = resident(process, "VmHWM")
                    provider.behaviour = BEHAVIOURS[bomb]
                    assert (await ask(client, "openai stream", "chat")).error == "garbled"
                    event = MAX_EVENT if bomb == "64 MiB line" else 0  # it is kept until it is too long
                    assert resident(process, "VmHWM") - most < PER_BOMB + event, bomb
        finally:
            await asyncio.to_thread(context.__exit__, None, None, None)


async def slow_readers(process: GatewayProcess, count: int) -> int:
    """The most resident memory while so many readers do not read; returns when the gateway has closed them
    all."""
    loop = asyncio.get_running_loop()
    readers = []
    most, logged = 0, len(process.records("request"))
    for _ in range(count):
        _, reader = await loop.create_connection(Caller, "127.0.0.1", process.port)
        reader.transport.pause_reading()
        reader.ask("openai stream", "chat")
        readers.append(reader)
    while len(process.records("request")) < logged + count:
        most = max(most, resident(process))
        await asyncio.sleep(0.02)  # another process: nothing tells when
    for reader in readers:
        reader.transport.abort()
    return most
