"""Leaving in order: not ready but serving, then running calls finish, then what is left is told so."""

import asyncio
import json

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway

HEADERS = {"x-api-key": KEY}


def config(tokens: int, delay: str, timeout: str = "60s") -> str:
    head = HEAD.replace("drain_delay: 0", f"drain_delay: 60s, drain_timeout: {timeout}")
    return f"""{head}
upstreams: {{echo: {{backend: echo, tokens: {tokens}, delay: {delay}}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""


async def started(client: aiohttp.ClientSession, session: str) -> aiohttp.ClientResponse:
    response = await client.post("/v1/chat/stream", json={"sessionId": session, "message": "hi"})
    await response.content.readline()
    await response.content.readline()
    return response


async def rest(response: aiohttp.ClientResponse) -> dict[str, object]:
    last: dict[str, object] = json.loads((await response.text()).splitlines()[-1])
    return last


async def draining(g: Running, hurry: asyncio.Event) -> "asyncio.Task[None]":
    task = asyncio.create_task(g.drain(hurry))
    await asyncio.sleep(0)
    return task


async def test_is_not_ready_but_serves_during_the_delay() -> None:
    hurry = asyncio.Event()
    async with gateway(config(5, "1ms")) as g, aiohttp.ClientSession(g.url, headers=HEADERS) as client:
        task = await draining(g, hurry)
        for base in (g.url, g.admin_url):
            async with client.get(base + "/readyz") as response:
                assert response.status == 503
            async with client.get(base + "/livez") as response:
                assert response.status == 200
        response = await started(client, "new")
        assert response.headers["Connection"] == "close", "keep-alive clients go elsewhere next time"
        assert (await rest(response))["type"] == "done"
        hurry.set()
        await task


@pytest.mark.usefixtures("both_servers")
async def test_running_streams_finish_and_new_connections_are_refused() -> None:
    hurry = asyncio.Event()
    async with gateway(config(100, "5ms")) as g, aiohttp.ClientSession(g.url, headers=HEADERS) as client:
        streams = [await started(client, f"s{number}") for number in range(20)]
        hurry.set()
        task = await draining(g, hurry)
        ends = await asyncio.gather(*map(rest, streams))
        assert {end["type"] for end in ends} == {"done"}
        await task
        try:
            async with aiohttp.ClientSession() as other, other.get(g.url + "/health") as response:
                raise AssertionError(response.status)
        except aiohttp.ClientConnectionError:
            pass


@pytest.mark.usefixtures("both_servers")
async def test_streams_that_take_too_long_are_told_so() -> None:
    hurry = asyncio.Event()
    hurry.set()
    async with (
        gateway(config(100_000, "5ms", timeout="100ms")) as g,
        aiohttp.ClientSession(g.url, headers=HEADERS) as client,
    ):
        stream = await started(client, "long")
        task = await draining(g, hurry)
        end = await rest(stream)
        assert (end["type"], end["code"]) == ("error", "unavailable")
        await task
        assert [line["end"] for line in g.requests] == ["drain"]


SILENT = f"""{HEAD.replace("drain_delay: 0", "drain_delay: 60s, drain_timeout: 100ms")}
upstreams: {{echo: {{backend: echo, first_token_delay: 60s}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: echo}}]]}}}}
"""


@pytest.mark.usefixtures("both_servers")
async def test_calls_that_have_said_nothing_yet_are_refused_not_dropped() -> None:
    hurry = asyncio.Event()
    hurry.set()
    async with gateway(SILENT) as g, aiohttp.ClientSession(g.url, headers=HEADERS) as client:
        whole = asyncio.create_task(client.post("/v1/chat", json={"sessionId": "a", "message": "hi"}))
        stream = await client.post("/v1/chat/stream", json={"sessionId": "b", "message": "hi"})
        queued = asyncio.create_task(client.post("/v1/chat", json={"sessionId": "b", "message": "after"}))
        while len(g.runtime.pipeline.runs) < 3:
            await asyncio.sleep(0)
        task = await draining(g, hurry)
        assert (await whole).status == 503
        assert (await queued).status == 503
        assert (await rest(stream))["code"] == "unavailable"
        await task
        assert [line["end"] for line in g.requests] == ["drain"] * 3
