"""Callers that send slowly: heads and bodies have deadlines, and others are not held up."""

import asyncio
import json
import time

import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.upstream.calls import until

CONFIG = (
    HEAD.replace(
        "drain_delay: 0",
        "drain_delay: 0, header_timeout: 300ms, body_timeout: 300ms, keepalive_timeout: 300ms",
    )
    + """
upstreams: {echo: {backend: echo}}
aliases: {chat: {tiers: [[{upstream: echo, model: echo}]]}}
"""
)
BODY = json.dumps({"sessionId": "s", "message": "hi"}).encode()
HEADERS = (
    f"POST /v1/chat HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n".encode()
)


async def drip(
    g: Running, pieces: list[bytes], pause: float = 0.05, *, admin: bool = False
) -> tuple[bytes, float]:
    """What is answered to pieces sent one after another, and how long the connection lived."""
    reader, writer = await asyncio.open_connection(*(g.admin_address if admin else g.address))
    began = time.monotonic()
    answer = asyncio.create_task(reader.read())
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.wait(
                [answer], timeout=pause
            )  # the pace of the sender; ends when the gateway hangs up
            if answer.done():
                break
        return await answer, time.monotonic() - began
    finally:
        writer.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"P"] + [b"O"] * 200,
        [b"POST /v1/chat HTTP/1.1\r\n"] + [b"x: y\r\n"] * 200,
        [],
    ],
    ids=["a request line", "endless headers", "nothing at all"],
)
async def test_a_head_that_does_not_end_is_hung_up_on(pieces: list[bytes]) -> None:
    async with gateway(CONFIG) as g:
        for admin in (False, True):
            answer, lived = await drip(g, pieces, admin=admin)
            assert b" 200 " not in answer
            assert lived < 10, "a bound, not a measurement: the deadline is 0.3 s"


@pytest.mark.usefixtures("both_servers")
async def test_a_body_that_does_not_come_is_answered_408() -> None:
    async with gateway(CONFIG) as g:
        answer, _ = await drip(g, [HEADERS + b"Content-Length: %d\r\n\r\n" % len(BODY), b"{"])
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "request_timeout"


@pytest.mark.usefixtures("both_servers")
async def test_a_body_that_is_given_up_for_others_is_answered_503() -> None:
    """How fast a body has to come: tests/server/test_bodies.py."""
    text = CONFIG.replace("body_timeout: 300ms", "body_timeout: 60s, body_limit: 100KiB, body_memory: 100KiB")
    async with gateway(text) as g:
        wires = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*g.address)
            writer.write(HEADERS + b"Content-Length: 70000\r\n\r\n" + b" " * 65_000)
            await until(lambda: g.unfinished >= 65_000)
            wires.append((reader, writer))
        answer = await wires[0][0].read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "unavailable"
        assert [line["error"] for line in g.requests] == ["unavailable"]
        for _, writer in wires:
            writer.close()


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with gateway(CONFIG) as g:
        answer, lived = await drip(g, [HEADERS + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY])
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert lived < 10
