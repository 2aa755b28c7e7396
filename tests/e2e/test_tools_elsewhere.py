"""Tools of callers at vendors who name and number them otherwise, through the whole gateway."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import KEY, gateway
from tests.e2e.test_fitted import config
from tests.fakes.rawserver import Peer, RawServer, Request, chunked

LONG = "mcp__4e9e25f1-b480-40f3-ba8d-a792f8f6ff07__update_project_deployment_protection"


async def calls_what_it_is_offered(request: Request, peer: Peer) -> None:
    name = json.loads(request.body)["tools"][0]["function"]["name"]
    call = {
        "index": 0,
        "id": "functions.f:0",
        "type": "function",
        "function": {"name": name, "arguments": "{}"},
    }
    chunks: list[dict[str, Any]] = [
        {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]},
        {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    ]
    frames = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]
    peer.send(chunked(*frames, b"data: [DONE]\n\n"))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_long_name_of_a_tool_reaches_openai_shortened_and_comes_back(stream: bool) -> None:
    tool = {"name": LONG, "input_schema": {"type": "object"}}
    body = {"model": "chat", "max_tokens": 9, "messages": [{"role": "user", "content": "q"}], "tools": [tool]}
    async with (
        RawServer(calls_what_it_is_offered) as up,
        gateway(config(up)) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post("/v1/messages", json={**body, "stream": stream}) as response,
    ):
        answer = await response.text()
        assert response.status == 200, answer
        sent = json.loads(up.requests[0].body)["tools"][0]["function"]["name"]
    assert len(sent) <= 64
    assert f'"name":"{LONG}"' in answer
    assert sent not in answer


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_whose_id_the_conversation_has_already_gets_another(stream: bool) -> None:
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "r"},
    ]
    body = {"model": "chat", "messages": messages, "tools": [{"type": "function", "function": {"name": "f"}}]}
    async with (
        RawServer(calls_what_it_is_offered) as up,
        gateway(config(up, of=", always_stream: true")) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post("/v1/chat/completions", json={**body, "stream": stream}) as response,
    ):
        answer = await response.text()
        assert response.status == 200, answer
    assert '"tool_calls"' in answer
    assert "functions.f:0" not in answer
