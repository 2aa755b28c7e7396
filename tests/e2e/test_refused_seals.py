"""Reasoning that a provider has sealed and another one, or another account, refuses: the target is asked once more
without it, so that the conversation goes on."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized

CONFIG = f"""{HEAD}
upstreams:
  claude: {{backend: anthropic, base_url: "URL", api_key: k}}
  router: {{backend: openai, base_url: "URL/v1", api_key: k}}
  codex: {{backend: responses, base_url: "URL/v1", api_key: k}}
aliases:
  claude: {{tiers: [[{{upstream: claude, model: claude-sonnet-4-5}}]]}}
  two: {{tiers: [[{{upstream: claude, model: one}}], [{{upstream: claude, model: two}}]]}}
  router: {{tiers: [[{{upstream: router, model: m}}]]}}
  codex: {{tiers: [[{{upstream: codex, model: m}}]]}}
  chat: {{tiers: [[{{upstream: claude, model: m}}]]}}
"""
SEAL = "RXFRQkNrWUlDQkFCR0FJaVFL"
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": SEAL}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "21"}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
MESSAGES = {
    "max_tokens": 50,
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [THINKING, CALL]},
        {"role": "user", "content": [RESULT]},
    ],
}
CHAT = {
    "tools": [FUNCTION],
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": None,
            "thinking_blocks": [THINKING],
            "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "21"},
    ],
}
RESPONSES = {
    "store": False,
    "input": [
        {"role": "user", "content": "Hi"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SEAL},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "21"},
    ],
}
SAID = {"id": "m", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Warm"}]}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Warm"}, "finish_reason": "stop"}
OUTPUT = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Warm"}]}
WORDS = [
    "messages.1.content.0: Invalid `signature` in `thinking` block",
    "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different conversation. "
    'Remove the block, or set `thinking.block_binding.prefix_mismatch_behavior` to "drop_block".',
    "The model returned the following errors: messages.1.content.0.thinking.signature: Field required",
    "messages.1.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified.",
]
UNVERIFIED = "The encrypted content RXFR...VFL could not be verified."


def told(words: str, code: str | None = None) -> bytes:
    error = {"type": "invalid_request_error", "message": words, "code": code}
    return sized(
        json.dumps({"type": "error", "error": error}).encode(), 400, ("Content-Type", "application/json")
    )


def well(request: Request) -> bytes:
    asked = json.loads(request.body)
    if request.path.endswith("/messages"):
        whole: Any = {**SAID, "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}
        start = {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}}
        frames: list[Any] = [
            start,
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Warm"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        ]
    elif request.path.endswith("/responses"):
        whole = {"id": "r", "object": "response", "status": "completed", "model": "m", "output": [OUTPUT]}
        frames = [
            {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}},
            {"type": "response.completed", "response": whole},
        ]
    else:
        whole = {"id": "c", "model": "m", "choices": [CHOICE]}
        frames = [{"id": "c", "model": "m", "choices": [{**CHOICE, "delta": CHOICE["message"]}]}]
    if asked.get("stream"):
        data = [
            b"event: %b\ndata: %b\n\n" % (frame.get("type", "message").encode(), json.dumps(frame).encode())
            for frame in frames
        ]
        return chunked(*data, *([b"data: [DONE]\n\n"] if "choices" in whole else []))
    return sized(json.dumps(whole).encode(), 200, ("Content-Type", "application/json"))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize(
    ("path", "alias", "body"),
    [
        ("/v1/messages", "claude", MESSAGES),
        ("/v1/chat/completions", "claude", CHAT),
        ("/v1/chat/completions", "router", CHAT),
    ],
)
async def test_a_signature_that_is_refused_does_not_end_the_conversation(
    path: str, alias: str, body: Any, words: str, stream: bool
) -> None:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(told(words) if SEAL.encode() in request.body else well(request))

    async with (
        RawServer(answer) as server,
        gateway(CONFIG.replace("URL", server.url)) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post(path, json={**body, "model": alias, "stream": stream}) as response,
    ):
        assert (response.status, "Warm" in await response.text()) == (200, True)
        first, second = [json.loads(request.body) for request in server.requests]
        assert SEAL in json.dumps(first)
        assert "Hm." not in json.dumps(second)
        assert [message["role"] for message in second["messages"]] == [
            message["role"] for message in first["messages"]
        ]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("code", ["invalid_encrypted_content", None])
async def test_encrypted_reasoning_of_another_account_does_not_either(code: str | None, stream: bool) -> None:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(told(UNVERIFIED, code) if SEAL.encode() in request.body else well(request))

    async with (
        RawServer(answer) as server,
        gateway(CONFIG.replace("URL", server.url)) as g,
        aiohttp.ClientSession(g.url, headers={"authorization": f"Bearer {KEY}"}) as client,
        client.post("/v1/responses", json={**RESPONSES, "model": "codex", "stream": stream}) as response,
    ):
        assert (response.status, "Warm" in await response.text()) == (200, True)
        _, second = [json.loads(request.body) for request in server.requests]
        hello, call, result = second["input"]
        assert call == {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
        assert (hello, result) == (RESPONSES["input"][0], RESPONSES["input"][3])  # type: ignore[index]


async def test_who_refuses_that_too_is_asked_no_third_time() -> None:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(told(WORDS[0]))

    async with (
        RawServer(answer) as server,
        gateway(CONFIG.replace("URL", server.url)) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
    ):
        for alias in ("claude", "two"):
            async with client.post("/v1/messages", json={**MESSAGES, "model": alias}) as response:
                assert response.status == 400
                assert (await response.json())["error"]["message"] == WORDS[0]
        assert len(server.requests) == 4
        assert g.metric('sluice_breaker_state{model="one",upstream="claude"}') == 0


async def test_a_request_without_seals_is_not_asked_again() -> None:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(told(WORDS[0]))

    async with (
        RawServer(answer) as server,
        gateway(CONFIG.replace("URL", server.url)) as g,
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post(
            "/v1/messages", json={**MESSAGES, "messages": MESSAGES["messages"][:1], "model": "claude"}
        ) as response,  # type: ignore[index]
    ):
        assert response.status == 400
        assert len(server.requests) == 1
