"""Anthropic's clients at the running gateway: betas, tools of Anthropic's own, counting, limits, cut
answers."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.e2e.held import of_messages
from tests.fakes.dialects import ANTHROPIC, OPENAI
from tests.fakes.rawserver import CHUNKED, Peer, RawServer, Request, chunk, chunked, sized

JSON = ("Content-Type", "application/json")
HELLO = {"model": "chat", "max_tokens": 50, "messages": [{"role": "user", "content": "Count"}]}
TOKENS = ANTHROPIC.token("Hel") + ANTHROPIC.token("lo")
ENDING = ANTHROPIC.finish(2) + ANTHROPIC.end()
ANSWER = ANTHROPIC.opening() + TOKENS + ENDING
Behaviour = Callable[[Request, Peer], Awaitable[None]]


def says(data: bytes) -> Behaviour:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(data)

    return answer


def config(*upstreams: tuple[str, RawServer], of: str = "", alias: str = "", more: str = "") -> str:
    sections = "".join(
        f'  up{n}: {{backend: {backend}, base_url: "{up.url}"{of if backend == "anthropic" else ""}}}\n'
        for n, (backend, up) in enumerate(upstreams)
    )
    tiers = ", ".join(f"[{{upstream: up{n}, model: m}}]" for n in range(len(upstreams)))
    return f"{HEAD}\nupstreams:\n{sections}aliases: {{chat: {{tiers: [{tiers}], retry: {{same_target: 0}}{alias}}}}}\n{more}"


async def asked(
    g: Running, path: str = "/v1/messages?beta=true", headers: dict[str, str] | None = None, **fields: Any
) -> tuple[int, bytes, dict[str, str]]:
    known = {"x-api-key": KEY, "anthropic-version": "2023-06-01", **(headers or {})}
    async with (
        aiohttp.ClientSession(g.url, headers=known) as client,
        client.post(path, json={**HELLO, **fields}) as response,
    ):
        return (
            response.status,
            await response.read(),
            {name.lower(): value for name, value in response.headers.items()},
        )


async def test_betas_and_the_version_are_passed_on_as_far_as_they_are_allowed() -> None:
    betas = "context-1m-2025-08-07, unheard-of-2026-01-01,claude-code-20250219"
    async with (
        RawServer(says(chunked(ANSWER))) as up,
        gateway(config(("anthropic", up), of=", beta: [own-2026-02-02]")) as g,
    ):
        status, body, _ = await asked(
            g, headers={"anthropic-beta": betas, "anthropic-version": "2023-01-01"}, stream=True
        )
        assert (status, body) == (200, ANSWER)
        sent = up.requests[0].headers
        assert sent["anthropic-beta"] == "own-2026-02-02,context-1m-2025-08-07,claude-code-20250219"
        assert sent["anthropic-version"] == "2023-01-01"
        assert g.metric('sluice_dropped_fields_total{field="anthropic-beta",model="m",upstream="up0"}') == 1


async def test_any_beta_passes_where_all_are_allowed_and_none_where_none_are() -> None:
    for allowed, passed in (('["*"]', "odd-2026-01-01"), ("[]", None)):
        of = f", beta_allowed: {allowed}"
        async with RawServer(says(chunked(ANSWER))) as up, gateway(config(("anthropic", up), of=of)) as g:
            await asked(g, headers={"anthropic-beta": "odd-2026-01-01"}, stream=True)
            assert up.requests[0].headers.get("anthropic-beta") == passed


async def test_tools_of_anthropics_own_go_to_who_has_them_and_are_refused_elsewhere() -> None:
    tools = [
        {"name": "f", "input_schema": {"type": "object"}},
        {"type": "web_search_20260209", "name": "web_search"},
    ]
    async with RawServer(says(chunked(ANSWER))) as one, RawServer(says(chunked(ANSWER))) as other:
        async with gateway(config(("openai", one), ("anthropic", other))) as g:
            status, body, _ = await asked(g, stream=True, tools=tools)
            assert (status, body) == (200, ANSWER)
            assert json.loads(other.requests[0].body)["tools"] == tools
        async with gateway(config(("openai", one))) as g:
            status, body, _ = await asked(g, tools=tools)
            assert status == 400
            assert json.loads(body)["error"]["message"].startswith(
                "tools[1]: a tool of type web_search_20260209"
            )
        assert one.requests == []


async def test_a_whole_answer_is_the_upstreams_to_the_byte() -> None:
    message = b'{"id": "msg_1","type":"message","role":"assistant","model":"m-1","content":[{"type":"text","text":"Hi"}],'
    message += b'"stop_reason":"end_turn", "usage":{"input_tokens":5,"output_tokens":2},"novel":[1.0]}\n'
    async with RawServer(says(sized(message, 200, JSON))) as up, gateway(config(("anthropic", up))) as g:
        assert (await asked(g))[:2] == (200, message)
        assert "stream" not in json.loads(up.requests[0].body)
        assert g.metric('sluice_tokens_total{kind="output",model="m",source="provider",upstream="up0"}') == 2
    async with (
        RawServer(says(sized(message, 200, JSON))) as up,
        gateway(config(("anthropic", up), alias=", report_model: alias")) as g,
    ):
        assert json.loads((await asked(g))[1])["model"] == "chat"


COUNT = "/v1/messages/count_tokens"


async def test_tokens_are_counted_by_who_counts_else_about() -> None:
    count = says(sized(b'{"input_tokens":14, "novel":1}', 200, JSON))
    async with RawServer(count) as up:
        async with gateway(config(("openai", up), ("anthropic", up), of=", count_tokens: true")) as g:
            assert (await asked(g, COUNT))[:2] == (200, b'{"input_tokens":14, "novel":1}')
            assert up.requests[-1].path == "/v1/messages/count_tokens"
            assert json.loads(up.requests[-1].body)["model"] == "m"
        asked_before = len(up.requests)
        async with gateway(config(("anthropic", up))) as g:
            status, body, headers = await asked(g, COUNT, tools=[{"name": "f", "description": "x" * 400}])
            assert (status, json.loads(body)) == (200, {"input_tokens": 101})
            assert headers["content-type"] == "application/json"
        assert len(up.requests) == asked_before


async def test_what_is_wrong_with_a_count_is_told() -> None:
    failing = says(
        sized(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', 529, JSON)
    )
    async with RawServer(failing) as up, gateway(config(("anthropic", up), of=", count_tokens: true")) as g:
        assert (await asked(g, COUNT))[0] == 529
        assert (await asked(g, COUNT, messages=[]))[0] == 400
        assert (await asked(g, COUNT, model="no"))[0] == 404


async def test_limits_have_anthropics_names() -> None:
    async with RawServer(says(chunked(ANSWER))) as up:
        limited = "default_alias: chat, limits: {requests: {rate: 2/h}}"
        text = config(("anthropic", up)).replace("default_alias: chat", limited)
        async with gateway(text) as g:
            _, _, headers = await asked(g, stream=True)
            assert headers["anthropic-ratelimit-requests-limit"] == "2"
            assert headers["anthropic-ratelimit-requests-remaining"] == "1"
            assert headers["anthropic-ratelimit-requests-reset"].endswith("Z")
            assert not any(name.startswith("x-ratelimit") for name in headers)
            await asked(g, stream=True)
            status, body, headers = await asked(g, stream=True)
            assert (status, json.loads(body)["error"]["type"]) == (429, "rate_limit_error")
            assert int(headers["retry-after"]) > 0
            assert headers["request-id"] == json.loads(body)["request_id"]


@pytest.mark.parametrize("other", ["anthropic", "openai"])
async def test_a_cut_answer_is_continued_within_its_block(other: str) -> None:
    async def cut(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED + chunk(ANTHROPIC.opening() + ANTHROPIC.token("Hel")))
        peer.close()

    openais = OPENAI.opening() + OPENAI.token("Hel") + OPENAI.token("lo") + OPENAI.finish(2) + OPENAI.end()
    again = says(chunked(ANSWER if other == "anthropic" else openais))
    async with RawServer(cut) as one, RawServer(again) as second:
        text = config(("anthropic", one), (other, second), alias=", recovery: continue")
        async with gateway(text) as g:
            status, body, _ = await asked(g, stream=True)
            held = of_messages(status, body)
            assert (held.text, held.finish, held.error) == ("Hello", "stop", None)
            assert body.count(b"event: message_start") == body.count(b"event: content_block_start") == 1


async def test_a_cut_answer_that_nobody_continues_ends_in_one_error() -> None:
    async with (
        RawServer(says(chunked(ANTHROPIC.opening() + TOKENS))) as up,
        gateway(config(("anthropic", up))) as g,
    ):
        status, body, _ = await asked(g, stream=True)
        held = of_messages(status, body)
        assert (held.status, held.text, held.error) == (200, "Hello", "api_error")
        assert body.startswith(ANTHROPIC.opening() + TOKENS)


async def test_anybody_may_look_whether_it_is_there() -> None:
    async with (
        RawServer(says(b"")) as up,
        gateway(config(("anthropic", up))) as g,
        aiohttp.ClientSession(g.url) as client,
    ):
        for method, path in (("HEAD", "/"), ("GET", "/api/hello"), ("HEAD", "/api/hello")):
            async with client.request(method, path) as response:
                assert response.status == 200
        async with client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}) as response:
            assert (response.status, (await response.json())["error"]["type"]) == (
                401,
                "authentication_error",
            )
