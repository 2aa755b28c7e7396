"""A provider's errors as callers see them: whose fault, in which words, and when to come back."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized

OWN = "plain.own_key-of-ours"
WELL = b'{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}'
STREAM = (
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n',
    b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)
Behaviour = Callable[[Request, Peer], Awaitable[None]]
BODY = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}


def says(data: bytes) -> Behaviour:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(data)

    return answer


async def well(request: Request, peer: Peer) -> None:
    if b'"stream":true' in request.body.replace(b" ", b""):
        peer.send(chunked(*STREAM))
    else:
        peer.send(sized(WELL, 200, ("Content-Type", "application/json")))


@asynccontextmanager
async def behind(
    *behaviours: Behaviour, contexts: tuple[str, ...] = (), backend: str = "openai"
) -> AsyncIterator[Running]:
    servers = [RawServer(behaviour) for behaviour in behaviours]
    for server in servers:
        await server.__aenter__()
    try:
        ups = "".join(
            f"  up{n}: {{backend: {backend}, base_url: '{server.url}/v1', api_key: '{OWN}'}}\n"
            for n, server in enumerate(servers)
        )
        sizes = (*contexts, *("null",) * len(servers))
        tiers = ", ".join(
            f"[{{upstream: up{n}, model: m, context: {sizes[n]}}}]" for n in range(len(servers))
        )
        async with gateway(
            f"{HEAD}\nupstreams:\n{ups}aliases: {{chat: {{tiers: [{tiers}], retry: {{same_target: 0}}}}}}\n"
        ) as g:
            yield g
    finally:
        for server in servers:
            await server.__aexit__(None, None, None)


async def answers(g: Running) -> list[tuple[int, Any, dict[str, str]]]:
    """Status, document or frames' text, and headers of: streamed, whole, NDJSON."""
    found = []
    async with aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client:
        for path, body in (
            ("/v1/chat/completions", {**BODY, "stream": True}),
            ("/v1/chat/completions", BODY),
            ("/v1/chat/stream", {"sessionId": "s", "message": "Hi"}),
        ):
            async with client.post(path, json=body) as response:
                found.append((response.status, await response.text(), dict(response.headers)))
    return found


def error(status: int, body: Any, *headers: tuple[str, str]) -> Behaviour:
    return says(sized(json.dumps(body).encode(), status, ("Content-Type", "application/json"), *headers))


def frames(*objects: Any) -> Behaviour:
    data = [b"data: %b\n\n" % json.dumps(value).encode() for value in objects]
    return says(chunked(*data, b"data: [DONE]\n\n"))


ACCOUNT = [
    (
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "No",
                    "status": "INVALID",
                    "details": [{"reason": "API_KEY_INVALID"}],
                }
            }
        ],
    ),
    (400, {"code": "a sentence", "error": "Incorrect API key provided: no***ey."}),
    (400, {"code": "Arrearage", "message": "Access denied"}),
    (
        400,
        {"error": {"code": "billing_hard_limit_reached", "type": "invalid_request_error", "message": "No"}},
    ),
    (401, {}),
    (402, {}),
    (429, {"error": {"code": "insufficient_quota", "message": "No"}}),
]


@pytest.mark.parametrize(("status", "body"), ACCOUNT)
async def test_our_accounts_fault_is_not_the_callers(status: int, body: Any) -> None:
    async with behind(error(status, body), well) as g:
        for code, text, _ in await answers(g):
            assert (code, "Hi" in text) == (200, True)
    async with behind(error(status, body)) as g:
        streamed, whole, lines = await answers(g)
        [noted] = [
            line for line in g.log_lines if line["event"] in ("credentials_refused", "account_refused")
        ]
        assert (noted["level"], noted["upstream"]) == ("error", "up0")
        for code, text, _ in (streamed, whole):
            told = json.loads(text)["error"]
            assert code in (429, 502)
            assert told["type"] in ("api_error", "insufficient_quota")
            assert told["message"].startswith("The upstream refused the gateway's ")
        assert '"bad_request"' not in lines[1]
        assert "no***ey" not in str([streamed, whole, lines])


@pytest.mark.parametrize("inside", [False, True])
async def test_a_request_that_is_too_long_is_told_as_such(inside: bool) -> None:
    body = {
        "object": "error",
        "message": "The input (9 tokens) is longer than the model's context length (8).",
        "code": 400,
    }
    long = frames(body) if inside else error(400, body)
    async with behind(long, well, contexts=("1000", "null")) as g:
        for code, text, _ in await answers(g):
            assert (code, "Hi" in text) == (200, True)
    async with behind(long, well, contexts=("1000", "1000")) as g:
        for code, text, _ in (await answers(g))[:2]:
            told = json.loads(text)["error"]
            assert (code, told["code"]) == (400, "context_length_exceeded")
            assert told["message"] == body["message"]


@pytest.mark.parametrize(
    ("behaviour", "wait"),
    [
        (error(429, {"error": {"message": "x"}}, ("Retry-After", "7200")), "7200"),
        (error(429, [{"error": {"code": 429, "message": "x", "details": [{"retryDelay": "39s"}]}}]), "39"),
        (error(429, {"error": {"message": "try again in 6m0s"}}), "360"),
        (error(429, {}, ("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "1m30s")), "90"),
        (frames({"error": {"message": "slow down", "code": "429", "retry_after": 75}}), "75"),
    ],
)
async def test_the_true_wait_is_told(behaviour: Behaviour, wait: str) -> None:
    async with behind(behaviour) as g:
        for code, text, headers in (await answers(g))[:2]:
            assert (code, headers["Retry-After"]) == (429, wait)
            assert json.loads(text)["error"]["retry_after"] == float(wait)


async def test_the_wait_is_told_behind_text_too() -> None:
    text = {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    async with behind(frames(text, {"error": {"message": "slow down", "code": 429, "retry_after": 75}})) as g:
        streamed, _, lines = await answers(g)
        told = json.loads(streamed[1].strip().split("data: ")[-1])["error"]
        assert (told["code"], told["message"], told["retry_after"]) == (
            "rate_limit_exceeded",
            "slow down",
            75.0,
        )
        last = json.loads(lines[1].strip().split("\n")[-1])
        assert (last["type"], last["code"], last["retryAfter"]) == ("error", "rate_limited", 75.0)


@pytest.mark.parametrize("backend", ["openai", "anthropic", "ollama"])
@pytest.mark.parametrize("inside", [False, True])
async def test_our_own_key_is_never_shown(backend: str, inside: bool) -> None:
    body = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": f"Who is {OWN} at 10.0.0.7:8000?"},
    }
    if backend == "ollama":
        behaviour = says(chunked(json.dumps({"error": body["error"]["message"]}).encode() + b"\n"))  # type: ignore[index]
    else:
        behaviour = frames(body)
    async with behind(behaviour if inside else error(400, body), backend=backend) as g:
        for _, text, _ in (await answers(g))[:2]:
            assert OWN not in text
            assert "10.0.0.7" not in text
            assert "Who is *** at ***?" in text


LOST = {
    "error": {
        "message": "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false.",
        "type": "invalid_request_error",
        "param": "input",
        "code": None,
    }
}


async def test_a_callers_unknown_id_is_looked_for_elsewhere_and_marks_nobody() -> None:
    async with behind(error(404, LOST), well) as g:
        for _ in range(3):
            for code, text, _ in await answers(g):
                assert (code, "Hi" in text) == (200, True)
        assert g.metric('sluice_breaker_state{model="m",upstream="up0"}') == 0


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, LOST, (404, "unknown_id")),
        (
            400,
            {
                "error": {
                    "message": "Previous response with id 'resp_1' not found.",
                    "code": "previous_response_not_found",
                }
            },
            (400, "previous_response_not_found"),
        ),
        (
            403,
            {
                "error": {
                    "code": 403,
                    "status": "PERMISSION_DENIED",
                    "message": "You do not have permission to access the File b4x or it may not exist.",
                }
            },
            (404, "unknown_id"),
        ),
    ],
)
async def test_an_unknown_id_is_the_callers_fault(status: int, body: Any, told: tuple[int, str]) -> None:
    async with behind(error(status, body)) as g:
        for _ in range(3):
            streamed, whole, lines = await answers(g)
            for code, text, _ in (streamed, whole):
                fields = json.loads(text)["error"]
                assert (code, fields["code"]) == told
                assert fields["type"] == "invalid_request_error"
                assert fields["message"] == body["error"]["message"]
            assert '"unknown_id"' in lines[1]
        assert g.metric('sluice_breaker_state{model="m",upstream="up0"}') == 0
        assert not [line for line in g.log_lines if line["event"] == "credentials_refused"]
