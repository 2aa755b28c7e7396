"""Answers in one piece for who asks for one: the upstream is asked as the caller asked, and its answer passed
on."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.e2e.buckets import left
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized
from tests.upstream.calls import until

JSON = ("Content-Type", "application/json")
PATH = "/v1/chat/completions"
ANSWER = (
    b'{"id": "c-1",  "object":"chat.completion","created":7,"model":"m-2026","service_tier":"flex","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hi","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"odd":1}}\n'
)
STREAM = chunked(
    b'data: {"id":"c-1","model":"m-2026","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)
Behaviour = Callable[[Request, Peer], Awaitable[None]]


def config(
    *upstreams: RawServer, timeouts: str = "{whole: 20}", alias: str = "", of: str = "", tier: str = ""
) -> str:
    sections = "".join(
        f'  up{n}: {{backend: openai, base_url: "{up.url}/v1", timeouts: {timeouts}{of}}}\n'
        for n, up in enumerate(upstreams)
    )
    tiers = tier or ", ".join(f"[{{upstream: up{n}, model: m}}]" for n in range(len(upstreams)))
    return f"{HEAD}\nupstreams:\n{sections}aliases: {{chat: {{tiers: [{tiers}], retry: {{same_target: 0}}{alias}}}}}\n"


async def asked(g: Running, **fields: Any) -> tuple[int, bytes]:
    body = {"model": "chat", "messages": [{"role": "user", "content": "Count"}], **fields}
    async with (
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post(PATH, json=body) as response,
    ):
        return response.status, await response.read()


async def line(g: Running) -> dict[str, Any]:
    await until(lambda: bool(g.requests))
    return g.requests[-1]


def says(data: bytes) -> Behaviour:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(data)

    return answer


async def test_the_answer_is_the_upstreams_to_the_byte_and_is_known() -> None:
    async with RawServer(says(sized(ANSWER, 200, JSON))) as up, gateway(config(up)) as g:
        assert await asked(g, service_tier="flex") == (200, ANSWER)
        [request] = up.requests
        sent = json.loads(request.body)
        assert sent == {
            "model": "m",
            "messages": [{"role": "user", "content": "Count"}],
            "service_tier": "flex",
        }
        assert request.headers["accept"] == "application/json"
        told = await line(g)
        assert (told["tokens_in"], told["tokens_out"], told["end"], told["status"]) == (5, 2, "done", 200)
        assert g.metric('sluice_tokens_total{kind="output",model="m",source="provider",upstream="up0"}') == 2
        # nobody knows when its first token was made
        assert g.metric('sluice_upstream_time_to_first_token_seconds_count{model="m",upstream="up0"}') == 0
        assert g.metric('sluice_time_to_first_token_seconds_count{alias="chat",frontend="openai"}') == 0
        assert g.metric('sluice_time_per_output_token_seconds_count{model="m",upstream="up0"}') == 0
        assert told["ttft"] is None


async def test_what_it_cost_is_said_in_a_header() -> None:
    prices = "prices: {models: {m: {input: 2, output: 8}}, header: true}\n"
    async with RawServer(says(sized(ANSWER, 200, JSON))) as up, gateway(config(up) + prices) as g:
        body = {"model": "chat", "messages": [{"role": "user", "content": "Count"}]}
        async with (
            aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
            client.post(PATH, json=body) as response,
        ):
            assert await response.read() == ANSWER
            assert response.headers["x-sluice-cost-usd"] == "0.000026000", "5 and 2 tokens"


@pytest.mark.parametrize(
    "where",
    [
        {"of": ", always_stream: true"},
        {"alias": ", hedge: {after: 60}"},
        {"tier": "{strategy: lowest_ttft, targets: [{upstream: up0, model: m}]}"},
    ],
    ids=["always_stream", "hedging", "lowest_ttft"],
)
async def test_a_stream_is_asked_for_where_its_tokens_matter(where: dict[str, str]) -> None:
    async with RawServer(says(STREAM)) as up, gateway(config(up, **where)) as g:
        status, body = await asked(g)
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"] == "Hi"
        assert json.loads(up.requests[0].body)["stream"] is True
        assert g.metric('sluice_upstream_time_to_first_token_seconds_count{model="m",upstream="up0"}') == 1


async def test_where_the_models_name_is_hidden_nothing_else_is() -> None:
    async with (
        RawServer(says(sized(ANSWER, 200, JSON))) as up,
        gateway(config(up, alias=", report_model: alias")) as g,
    ):
        status, body = await asked(g)
        assert status == 200
        assert json.loads(body) == {**json.loads(ANSWER), "model": "chat"}
        assert "stream" not in json.loads(up.requests[0].body)


async def test_an_upstream_that_streams_all_the_same_is_understood() -> None:
    async with RawServer(says(STREAM)) as up, gateway(config(up)) as g:
        status, body = await asked(g, stream=False)
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"] == "Hi"
        assert json.loads(up.requests[0].body)["stream"] is False


async def silent(request: Request, peer: Peer) -> None:
    await peer.stall()


async def stalls(request: Request, peer: Peer) -> None:
    peer.send(sized(ANSWER, 200, JSON)[:-20])
    await peer.stall()


async def cut(request: Request, peer: Peer) -> None:
    peer.send(sized(ANSWER, 200, JSON)[:-20])
    peer.close()


async def cut_without_a_length(request: Request, peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + ANSWER[:-20])
    peer.close()


@pytest.mark.parametrize(
    ("fault", "outcome", "status"),
    [
        (silent, "headers_timeout", 504),
        (stalls, "total_timeout", 504),
        (cut, "truncated", 502),
        (cut_without_a_length, "garbled", 502),
        (says(sized(b'{"error":{"message":"x"}}', 200, JSON)), "server_error", 502),
    ],
    ids=["silent", "stalls", "cut", "cut without a length", "an error that is a 200"],
)
async def test_what_fails_is_answered_by_another_target_or_told(
    fault: Behaviour, outcome: str, status: int
) -> None:
    brief = "{headers: 20, first_token: 20, idle: 20, whole: 0.2}"
    async with RawServer(fault) as one, RawServer(says(sized(ANSWER, 200, JSON))) as two:
        async with gateway(config(one, two, timeouts=brief)) as g:
            assert await asked(g) == (200, ANSWER)
            assert (await line(g))["attempts"] == [f"up0/m {outcome}", "up1/m ok"]
        async with gateway(config(one, timeouts=brief)) as g:
            got, body = await asked(g)
            assert got == status
            assert "error" in json.loads(body)
            assert (await line(g))["attempts"] == [f"up0/m {outcome}"]


async def test_an_answer_may_take_longer_than_a_streams_silence() -> None:
    """Servers that do not stream send nothing before the end, some of them the head at once."""
    over = asyncio.Event()

    async def slow(request: Request, peer: Peer) -> None:
        whole = sized(ANSWER, 200, JSON)
        if len(up.requests) > 1:
            peer.send(whole[:-30])
        await over.wait()
        peer.send(whole[-30:] if len(up.requests) > 1 else whole)

    brief = "{headers: 0.05, first_token: 0.05, idle: 0.05, whole: 20}"
    async with RawServer(slow) as up, gateway(config(up, timeouts=brief)) as g:
        for _ in range(2):
            over.clear()
            call = asyncio.create_task(asked(g))
            await until(lambda: bool(g.runtime.pipeline.runs))
            [run] = g.runtime.pipeline.runs
            phase = "connecting" if len(up.requests) < 2 else "first_token"
            await until(lambda: run.call.phase == phase)  # noqa: B023
            begun = g.state.clock()
            await until(lambda: g.state.clock() > begun + 0.15)  # noqa: B023
            over.set()
            assert await call == (200, ANSWER)


async def test_who_leaves_pays_for_the_prompt() -> None:
    limits = HEAD.replace(
        "default_alias: chat}", "default_alias: chat, limits: {tokens: {rate: 1/h, burst: 100000}}}"
    )
    async with RawServer(silent) as up, gateway(config(up).replace(HEAD, limits)) as g:
        call = asyncio.create_task(asked(g))
        await until(lambda: bool(up.requests))
        call.cancel()
        await until(lambda: not g.runtime.pipeline.runs and not g.runtime.limits.settlements.settling)
        assert round(await left(g, "key", "test", "tokens")) == 99_999, '"Count" is estimated at one token'
        assert (await line(g))["attempts"] == ["up0/m abandoned"]
        await up.all_closed()
