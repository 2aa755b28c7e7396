"""Streams through other people's proxies, with the files of deploy/: what a user of any of them is promised.

`make test-deploy` runs all of it, and fetches Traefik and Envoy; `make test` the quick ones on those that
Debian has.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.deploy.ingresses import INGRESSES, Ingress, ingress
from tests.e2e.gateway_process import DIGEST, GatewayProcess, serving
from tests.fakes.counting import DIALECTS, OPENAI, TOKENS, Call, Counting, counted
from tests.fakes.rawserver import Peer, RawServer, Request, sized

FULL = os.environ.get("SLUICE_TEST_DEPLOY") == "1"
slow = pytest.mark.skipif(not FULL, reason="takes long: make test-deploy")
HANG = 60
"""Seconds after which a test gives up."""
BEATS = 12
"""Heartbeats, a quarter of a second apart: three times the timers of hasty proxies."""


def config(*, proxies: str = "127.0.0.1/32", address: str = "null", beat: str = "null") -> str:
    return f"""
server:
  listen: "127.0.0.1:${{API_PORT}}"
  admin_listen: "127.0.0.1:${{ADMIN_PORT}}"
  drain_delay: 0s
  trusted_proxies: [{proxies}]
limits: {{ address: {address} }}
upstreams: {{ local: {{ backend: openai, base_url: "${{UPSTREAM}}/v1" }} }}
aliases: {{ chat: {{ tiers: [[{{ upstream: local, model: any }}]], heartbeat: {beat} }} }}
keys: [{{ id: test, digest: "{DIGEST}", default_alias: chat }}]
"""


@pytest.fixture(params=INGRESSES)
def kind(request: pytest.FixtureRequest) -> type[Ingress]:
    found: type[Ingress] = INGRESSES[request.param]
    if not (FULL or found.debian):
        pytest.skip(f"{found.name} is for make test-deploy")
    found.binary()
    return found


async def status(
    port: int, path: str, *headers: str, body: dict[str, object] | None = None, host: str = "127.0.0.1"
) -> int:
    call = await Call.start(port, path, body, *headers, host=host)
    await call.end()
    return call.status


async def answering(one: Ingress) -> None:
    """Until the proxy answers with what is behind it: nothing else tells when it does."""
    while True:
        with suppress(OSError, ValueError):
            if await status(one.port, "/v1/models") in (200, 401):
                return
        if one.ended():
            pytest.fail(f"{one.name} has ended:\n{one.log()}")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def stack(
    kind: type[Ingress], *, hasty: bool = False, **options: str
) -> AsyncIterator[tuple[Ingress, Counting, RawServer, GatewayProcess]]:
    """Provider, gateway and proxy."""
    provider = Counting()
    async with RawServer(provider) as server:
        with (
            serving(config(**options), {"UPSTREAM": server.url}) as gateway,
            ingress(kind, gateway.port, hasty=hasty) as one,
        ):
            async with asyncio.timeout(HANG):
                await answering(one)
                yield one, provider, server, gateway


async def test_tokens_arrive_one_by_one_and_operators_routes_stay_in(kind: type[Ingress]) -> None:
    async with stack(kind) as (one, provider, _, _):
        for dialect, (path, body) in DIALECTS.items():
            for heard in provider.heard:
                heard.clear()
            call = await Call.start(one.port, path, body)
            await counted(call, provider)
            await call.until(b'"done"' if dialect == "ndjson" else b"data: [DONE]")
            assert call.status == 200
            call.writer.close()
        assert await status(one.port, "/v1/chat", body={"sessionId": "s"}) == 400
        for path in ("/admin/keys", "/v1/admin/conversations", "/admin", "//admin/usage", "/%61dmin/keys"):
            assert await status(one.port, path) in (400, 403, 404), path


@slow
async def test_a_client_that_leaves_ends_the_upstream_call(kind: type[Ingress]) -> None:
    async with stack(kind) as (one, _, server, _):
        call = await Call.start(one.port, *OPENAI)
        await call.until(b"tok0;")
        call.writer.close()
        await server.all_closed()


@slow
async def test_heartbeats_hold_a_silent_stream_beyond_the_proxys_timer(kind: type[Ingress]) -> None:
    """And without them the timer ends it: the proof that it runs."""
    if kind.idle is None:
        pytest.skip(f"{kind.name} has no timer between two reads of an answer")
    async with stack(kind, hasty=True, beat="250ms") as (one, provider, _, _):
        call = await Call.start(one.port, *OPENAI)
        await call.until(b"tok0;")
        await call.until(b"\n: ", BEATS)
        provider.heard[0].set()
        await counted(call, provider, 1)
        await call.until(b"data: [DONE]")
        call.writer.close()
    async with stack(kind, hasty=True) as (one, _, server, _):
        call = await Call.start(one.port, *OPENAI)
        await call.until(b"tok0;")
        await call.end()
        assert b"[DONE]" not in call.received
        await server.all_closed()


@slow
async def test_callers_have_their_own_addresses_and_nobody_has_one_by_claiming_it(
    kind: type[Ingress],
) -> None:
    """A request an hour for each address: who is taken for somebody else has another's."""
    once = "{ rate: 1/hour, burst: 1 }"
    claims = ("X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9")
    path, body = "/v1/chat", {"sessionId": "s", "message": "count"}

    async def asked(port: int, host: str, *headers: str) -> int:
        return await status(port, path, *headers, body=body, host=host)

    async with stack(kind, address=once) as (one, provider, _, gateway):
        for heard in provider.heard:
            heard.set()
        assert await asked(one.port, "127.0.0.2") == 200
        assert await asked(one.port, "127.0.0.2") == 429
        for claim in claims:
            assert await asked(one.port, "127.0.0.2", claim) == 429, claim
        assert await asked(one.port, "127.0.0.3", *claims) == 200
        assert await asked(gateway.port, "127.0.0.3", "X-Forwarded-For: 203.0.113.9") == 429  # past the proxy
    async with stack(kind, address=once, proxies="192.0.2.0/24") as (one, provider, _, gateway):
        for heard in provider.heard:
            heard.set()
        assert (
            await asked(one.port, "127.0.0.2") == 429
        )  # a proxy that is not trusted is the caller, who has asked before
        assert await asked(gateway.port, "127.0.0.2") == 200


async def test_a_reload_of_the_proxy_cuts_no_stream(kind: type[Ingress]) -> None:
    """The reloaded one sends new requests to another gateway, which tells that it has happened."""

    async def other(request: Request, peer: Peer) -> None:
        peer.send(sized(b"{}", 218))

    async with stack(kind) as (one, provider, _, _), RawServer(other) as second:
        calls = [await Call.start(one.port, *dialect) for dialect in DIALECTS.values()]
        for call in calls:
            await call.until(b"tok0;")
        await asyncio.to_thread(one.reload, second.port)
        while True:
            with suppress(OSError, ValueError):
                if await status(one.port, "/v1/models") == 218:
                    break
            await asyncio.sleep(0.02)
        for number in range(TOKENS):
            for call in calls:
                await call.until(b"tok%d;" % number)
            provider.heard[number].set()
        await calls[0].until(b'"done"')
        await calls[1].until(b"data: [DONE]")
        for call in calls:
            call.writer.close()


@slow
async def test_a_gateway_that_drains_finishes_its_streams_behind_a_proxy_that_knows(
    kind: type[Ingress],
) -> None:
    async with stack(kind) as (one, provider, _, gateway):
        call = await Call.start(one.port, *OPENAI)
        await call.until(b"tok0;")
        gateway.process.terminate()
        while await status(one.port, "/v1/models") not in (502, 503) or one.gone not in one.log():
            await asyncio.sleep(0.02)
        await counted(call, provider)
        await call.until(b"data: [DONE]")
        call.writer.close()
        assert await asyncio.to_thread(gateway.process.wait, HANG) == 0
