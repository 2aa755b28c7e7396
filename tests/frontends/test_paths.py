"""Paths that vendors' newest SDKs ask: what is served answers, what is not says so in the dialect's own form."""

import json
from typing import Any

import pytest

from tests.api.serving import KEY, served

HI = {"model": "chat", "input": "Hi there"}
COUNT = "/v1/responses/input_tokens"
AZURES = {"api-key": KEY}


@pytest.mark.parametrize("path", [COUNT, "/responses/input_tokens", "/openai/v1/responses/input_tokens"])
async def test_tokens_of_a_response_are_counted(path: str) -> None:
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}, "description": "words " * 40}
    async with served() as api:
        counts = []
        for body in (HI, {**HI, "tools": [tool]}):
            answer = await api.ask("POST", path, body)
            assert (answer.status, answer.json["object"]) == (200, "response.input_tokens")
            counts.append(answer.json["input_tokens"])
        assert 0 < counts[0] < counts[1]
        answer = await api.ask("POST", path, {**HI, "previous_response_id": "resp_1"})
        assert (answer.status, answer.json["error"]["param"]) == (400, "previous_response_id")


@pytest.mark.parametrize("path", ["/openai/v1/responses", "/openai/responses?api-version=2025-04-01-preview"])
@pytest.mark.parametrize("stream", [False, True])
async def test_azures_clients_have_responses(path: str, stream: bool) -> None:
    async with served() as api:
        answer = await api.ask("POST", path, {**HI, "stream": stream}, headers=AZURES, key="")
        assert (answer.status, api.log[-1]["frontend"]) == (200, "azure-responses")
        assert (
            b"You said: Hi there" in answer.answer if not stream else b"response.completed" in answer.answer
        )
        answer = await api.ask("POST", path, HI, headers={"api-key": "sk-x"}, key="")
        assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
        answer = await api.ask("GET", "/openai/v1/responses/resp_1", headers=AZURES, key="")
        assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")


async def test_a_kept_response_is_not_streamed_again() -> None:
    async with served() as api:
        answer = await api.ask("GET", "/v1/responses/resp_1?stream=true")
        assert (answer.status, answer.json["error"]["param"]) == (400, "stream")


@pytest.mark.parametrize("method", ["predict", "batchGenerateContent", "predictLongRunning"])
async def test_a_method_of_googles_models_that_there_is_not_is_named(method: str) -> None:
    async with served() as api:
        answer = await api.ask(
            "POST", f"/v1beta/models/chat:{method}", {}, headers={"x-goog-api-key": KEY}, key=""
        )
        error = answer.json["error"]
        assert (answer.status, error["status"]) == (404, "NOT_FOUND")
        assert f"no method {method} of models" in error["message"]
        assert "streamGenerateContent" in error["message"]


async def test_a_model_that_there_is_need_not_be_pulled() -> None:
    async with served() as api:
        answer = await api.ask("POST", "/api/pull", {"model": "chat:latest"})
        assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
        lines = [json.loads(line)["status"] for line in answer.answer.splitlines()]
        assert lines == ["pulling manifest", "success"]
        answer = await api.ask("POST", "/api/pull", {"name": "chat", "stream": False})
        assert answer.json == {"status": "success"}
        answer = await api.ask("POST", "/api/pull", {"model": "none"})
        assert (answer.status, answer.json["code"]) == (404, "model_not_found")


GOOGLES, ANTHROPICS = {"x-goog-api-key": KEY}, {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("path", "headers", "field", "served_first"),
    [
        ("/v1beta/cachedContents", GOOGLES, "status", "/v1beta/models/{model}:generateContent"),
        ("/upload/v1beta/files", GOOGLES, "status", "/v1beta/models/{model}:generateContent"),
        ("/v1/files", ANTHROPICS, "type", "/v1/messages"),
        ("/v1/messages/batches", {}, "type", "/v1/messages"),
        ("/v1/files", {}, "param", "/v1/chat/completions"),
        ("/v1/batches", {}, "param", "/v1/chat/completions"),
        ("/v1/chatkit/sessions", {}, "param", "/v1/chat/completions"),
        ("/v1/conversations", {}, "param", "/v1/chat/completions"),
        ("/v1/realtime/client_secrets", {}, "param", "/v1/chat/completions"),
        ("/openai/v1/files", {}, "param", "/openai/v1/chat/completions"),
        ("/v1/responses/resp_1/cancel", {}, "param", "/v1/responses"),
    ],
)
async def test_what_is_not_served_says_what_is(
    path: str, headers: dict[str, str], field: str, served_first: str
) -> None:
    async with served() as api:
        answer = await api.ask("POST", path, {}, headers=headers)
        error: Any = json.loads(answer.answer)["error"]
        assert answer.status == 404
        assert field in error
        paths = error["message"].partition("Served are ")[2].split(", ")
        assert paths[0] == served_first
        assert {"/v1/messages", "/v1/chat/completions", "/api/chat"} <= set(paths)


@pytest.mark.parametrize("path", ["/api/blobs/sha256:1", "/api/delete", "/api/create"])
async def test_what_manages_ollamas_models_is_not_served_and_says_what_is(path: str) -> None:
    async with served() as api:
        answer = await api.ask("POST", path, {})
        assert (answer.status, answer.json["code"]) == (404, "not_found")
        assert "Served are /api/chat, /api/generate, " in answer.json["error"]
