"""A call leaves nothing behind that only the cyclic collector could free: it would cost a tenth of every
request."""

import asyncio
import gc
import json
from collections.abc import Iterator

import pytest

from tests.e2e.gateways import HEAD, KEY, gateway

CONFIG = (
    HEAD
    + """
upstreams: {echo: {backend: echo}}
aliases:
  chat: {tiers: [[{upstream: echo, model: echo}]]}
  little: {tiers: [[{upstream: echo, model: echo}]], limits: {requests: {rate: 1/h, burst: 1}}}
"""
)
WIDGET = {"sessionId": "s", "message": "hi"}
OPENAI = {"model": "chat", "messages": [{"role": "user", "content": "hi"}]}


def request(path: str, body: object, key: str = KEY) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("both_servers")
@pytest.mark.parametrize(
    ("asked", "end"),
    [
        (request("/v1/chat/stream", WIDGET), b"0\r\n\r\n"),
        (request("/v1/chat", WIDGET), b"}"),
        (request("/v1/chat/completions", {**OPENAI, "stream": True}), b"0\r\n\r\n"),
        (request("/v1/chat/completions", OPENAI), b"}"),
        (request("/v1/chat/completions", {**OPENAI, "model": "nope"}), b"}"),
        (request("/v1/chat/stream", WIDGET, "sk-wrong"), b"}"),
        (request("/v1/chat/completions", {**OPENAI, "model": "little"}), b"}"),
        (request("/v1/chat", {**WIDGET, "model": "little"}), b"}"),
    ],
    ids=[
        "ndjson",
        "whole",
        "openai streamed",
        "openai whole",
        "refused",
        "a stranger",
        "too many",
        "too many of a session",
    ],
)
async def test_a_call_leaves_no_cycles(asked: bytes, end: bytes) -> None:
    async with gateway(CONFIG, level="info") as g:
        reader, writer = await asyncio.open_connection(*g.address)

        async def call() -> None:
            writer.write(asked)
            got = b""
            while not got.endswith(end):
                got += await reader.read(65536)

        for _ in range(3):
            await call()
        gc.collect()
        for _ in range(20):
            await call()
        left = gc.collect()
        writer.close()
    assert left < 20, "less than one object a call"
