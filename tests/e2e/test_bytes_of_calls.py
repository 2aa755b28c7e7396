"""The log line of a call has the bytes of its request's body and of its answer's, as its client counts
them."""

import asyncio
import json

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.test_listening_by_http2 import speaks_http2

CONFIG = (
    HEAD + "upstreams: {echo: {backend: echo}}\naliases: {chat: {tiers: [[{upstream: echo, model: m}]]}}\n"
)
WORDS = [{"role": "user", "content": "five words, one of them naïve " * 40}]
CALLS = {
    "stream": ("/v1/chat/completions", {"model": "chat", "stream": True, "messages": WORDS}),
    "whole": ("/v1/chat/completions", {"model": "chat", "messages": WORDS}),
    "ndjson": ("/v1/chat/stream", {"sessionId": "s", "message": "some words"}),
    "refused": ("/v1/chat/completions", {"model": "nobody", "messages": WORDS}),
}


@pytest.mark.usefixtures("both_servers")
@pytest.mark.parametrize("kind", CALLS)
async def test_a_line_has_the_bytes_that_came_and_went(kind: str) -> None:
    path, wanted = CALLS[kind]
    body = json.dumps(wanted, ensure_ascii=False).encode()
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    async with gateway(CONFIG) as there, aiohttp.ClientSession(headers=headers) as client:
        async with client.post(there.url + path, data=body) as response:
            answer = await response.read()
        [line] = there.requests
        assert (line["bytes_in"], line["bytes_out"]) == (len(body), len(answer))


@pytest.mark.skipif(not speaks_http2(), reason="curl here speaks no HTTP/2")
@pytest.mark.parametrize("kind", CALLS)
async def test_a_line_has_the_bytes_of_a_call_by_http2(kind: str) -> None:
    path, wanted = CALLS[kind]
    body = json.dumps(wanted)
    config = CONFIG.replace("server: {", "server: {http2: true, ")
    async with gateway(config) as there:
        options = ["-sS", "--noproxy", "*", "--max-time", "60", "--http2-prior-knowledge", "-d", body]
        fields = [f"x-api-key: {KEY}", "content-type: application/json"]
        curl = await asyncio.create_subprocess_exec(
            "curl", *options, *(part for field in fields for part in ("-H", field)), there.url + path,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        answer, _ = await curl.communicate()
        [line] = there.requests
        assert (line["bytes_in"], line["bytes_out"]) == (len(body), len(answer))
