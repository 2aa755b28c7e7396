"""POST /v1/completions on real sockets: by an upstream that has it, and by one that can only chat."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk, sized

CONFIG = f"""{HEAD}
upstreams:
  echo: {{backend: echo}}
  texts: {{backend: openai, base_url: "URL/v1", api_key: sk-one, completions: true}}
prices: {{models: {{m: {{input: 1, output: 1}}}}}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]]}}
  texts: {{tiers: [[{{upstream: texts, model: m}}]], retry: {{same_target: 0}}}}
  both: {{tiers: [[{{upstream: echo, model: m}}], [{{upstream: texts, model: m}}]]}}
"""
FRAMES = [
    b'data: {"id":"c-1","model":"m","choices":[{"index":0,"text":"upon ","logprobs":null}],"x_own":1}\n\n',
    b'data: {"id":"c-1","model":"m","choices":[{"index":0,"text":"a time","finish_reason":"stop"}]}\n\n',
]
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
DOCUMENT = (
    b'{"model":"m","choices":[{"index":0,"text":"upon a time","finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":2}}'
)


async def continues(request: Request, peer: Peer) -> None:
    if b'"cut"' in request.body:
        return peer.send(CHUNKED + chunk(FRAMES[0]) + LAST_CHUNK)
    if b'"stream":true' in request.body:
        return peer.send(CHUNKED + b"".join(map(chunk, [*FRAMES, USAGE, DONE])) + LAST_CHUNK)
    peer.send(sized(DOCUMENT, 200, ("Content-Type", "application/json")))


async def asked(g: Running, **body: Any) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post("/v1/completions", json={"prompt": "Once", **body}) as response,
    ):
        return response.status, await response.read()


@pytest.mark.parametrize("alias", ["texts", "both"])
async def test_an_upstream_that_has_it_is_asked_as_the_caller_asks(alias: str) -> None:
    async with RawServer(continues) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        assert await asked(g, model=alias, suffix="end", stream=True) == (200, b"".join(FRAMES) + DONE)
        assert await asked(g, model=alias, suffix="end") == (200, DOCUMENT)
        streamed, whole = up.requests
        assert (streamed.path, json.loads(streamed.body)["suffix"]) == ("/v1/completions", "end")
        assert json.loads(whole.body) == {"prompt": "Once", "model": "m", "suffix": "end"}
        line = g.requests[0]
        assert (line["alias"], line["end"], line["tokens_in"], line["tokens_out"]) == (alias, "done", 3, 2)


async def test_usage_is_told_to_who_asks_for_it() -> None:
    async with RawServer(continues) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        _, body = await asked(g, model="texts", stream=True, stream_options={"include_usage": True})
        *_, usage, done, rest = body.split(b"\n\n")
        assert (json.loads(usage[6:])["usage"]["total_tokens"], done, rest) == (5, b"data: [DONE]", b"")


async def test_a_cut_ends_in_an_error() -> None:
    async with RawServer(continues) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        status, body = await asked(g, model="texts", stream=True, stop="cut")
        first, last, _ = body.split(b"\n\n")
        assert (status, first + b"\n\n", json.loads(last[6:])["error"]["code"]) == (
            200,
            FRAMES[0],
            "truncated",
        )


async def test_one_that_can_only_chat_is_asked_to() -> None:
    async with gateway(CONFIG.replace("URL", "http://127.0.0.1:9")) as g:
        status, body = await asked(g, model="chat")
        told = json.loads(body)
        assert (status, told["object"], told["choices"][0]["text"]) == (
            200,
            "text_completion",
            "You said: Once",
        )
        status, body = await asked(g, model="chat", stream=True, prompt=["Once"])
        frames = [json.loads(frame[6:]) for frame in body.split(b"\n\n")[:-2]]
        assert "".join(frame["choices"][0]["text"] for frame in frames) == "You said: Once"
        status, body = await asked(g, model="chat", suffix="end")
        error = json.loads(body)["error"]
        assert (status, error["param"], error["code"]) == (400, "suffix", "unsupported_parameter")
        assert (await asked(g, model="none"))[0] == 404
