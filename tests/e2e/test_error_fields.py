"""A provider's error reaches callers of its own dialect with all that their clients act upon, and callers of
others in their own words alone; before a stream and within one."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.e2e.test_provider_errors import OWN, error, says
from tests.fakes.rawserver import RawServer, chunked

RPC = "type.googleapis.com/google.rpc."
QUOTA = {
    "@type": f"{RPC}QuotaFailure",
    "violations": [{"quotaId": "RequestsPerDayPerModel", "quotaValue": "50"}],
}
REASON = {"@type": f"{RPC}ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com",
          "metadata": {"service": "generativelanguage.googleapis.com", "consumer": "projects/123456789"}}  # fmt: skip
ERRORS: dict[str, tuple[int, Any, dict[str, Any]]] = {  # status, document, what the dialect's caller is told of it
    "openai": (
        400,
        {
            "error": {
                "message": "No such value", "type": "invalid_request_error", "param": "messages[0].content",
                "code": "invalid_value", "failed_generation": "<tool>", "innererror": {"code": "X", "note": f"by {OWN}"},
            },
            "user_id": "user_of_ours",
        },
        {"param": "messages[0].content", "code": "invalid_value", "failed_generation": "<tool>",
         "innererror": {"code": "X", "note": "by ***"}},
    ),
    "responses": (
        400,
        {"error": {"message": "No", "type": "invalid_request_error", "param": "input[0]", "code": "invalid_value"}},
        {"param": "input[0]", "code": "invalid_value"},
    ),
    "anthropic": (
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "No",
                                    "details": {"error_visibility": "user_facing", "limit": 5}}, "request_id": "req_1"},
        {"details": {"error_visibility": "user_facing", "limit": 5}},
    ),
    "gemini": (
        429,
        {"error": {"code": 429, "message": "No", "status": "RESOURCE_EXHAUSTED",
                   "details": [QUOTA, {"@type": f"{RPC}RetryInfo", "retryDelay": "7s"}, REASON]}},
        {"details": [
            QUOTA, {**REASON, "metadata": {"service": "generativelanguage.googleapis.com"}},
            {"@type": f"{RPC}ErrorInfo", "reason": "rate_limited", "domain": "sluice"},
            {"@type": f"{RPC}RetryInfo", "retryDelay": "7.000s"},
        ]},
    ),
    "ollama": (400, {"error": "No", "hint": {"format": "json"}}, {"hint": {"format": "json"}}),
}  # fmt: skip
HI = [{"role": "user", "content": "Hi"}]
ASKED: dict[str, tuple[str, Any]] = {
    "openai": ("/v1/chat/completions", {"model": "chat", "messages": HI}),
    "responses": ("/v1/responses", {"model": "chat", "input": "Hi"}),
    "anthropic": ("/v1/messages", {"model": "chat", "max_tokens": 9, "messages": HI}),
    "gemini": ("/v1beta/models/chat:generateContent", {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
    "ollama": ("/api/chat", {"model": "chat", "stream": False, "messages": HI}),
}  # fmt: skip
OURS = {
    "openai": {"message", "type", "param", "code", "retry_after"}, "anthropic": {"type", "message", "retry_after"},
    "gemini": {"code", "message", "status", "details"}, "ollama": {"error", "code", "retry_after"},
}  # fmt: skip
OURS["responses"] = OURS["openai"]


def config(backend: str, up: RawServer) -> str:
    base = up.url + ("/v1" if backend in ("openai", "responses") else "")
    return (
        f"{HEAD}\nupstreams: {{up: {{backend: {backend}, base_url: '{base}', api_key: '{OWN}', always_stream: true}}}}\n"
        "aliases: {chat: {tiers: [[{upstream: up, model: m}]], retry: {same_target: 0}}}\n"
    )


async def asked(g: Running, client: str) -> str:
    path, body = ASKED[client]
    async with (
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as session,
        session.post(path, json=body) as response,
    ):
        assert response.status >= 400
        return await response.text()


def fields(client: str, text: str) -> dict[str, Any]:
    value = json.loads(text)
    return dict(value if client == "ollama" else value["error"])


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("backend", ERRORS)
async def test_an_errors_fields_reach_callers_of_its_dialect_and_no_others(
    backend: str, inside: bool
) -> None:
    status, document, kept = ERRORS[backend]
    data = json.dumps(document).encode()
    frame = data + b"\n" if backend == "ollama" else b"event: error\ndata: %b\n\n" % data
    refuses = says(chunked(frame)) if inside else error(status, document)
    async with RawServer(refuses) as up, gateway(config(backend, up)) as g:
        for client in ASKED:
            text = await asked(g, client)
            told = fields(client, text)
            assert not [word for word in (OWN, "user_of_ours", "123456789") if word in text]
            if client == backend:
                assert {name: told.get(name) for name in kept} == kept
            else:
                assert told.keys() <= OURS[client]
                assert not [word for word in ("QuotaFailure", "failed_generation") if word in text]
