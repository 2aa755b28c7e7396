"""OpenAI's dialect under Azure's paths, with Azure's header."""

from typing import Any

import pytest

from tests.api.serving import KEY, served

CHAT = {"messages": [{"role": "user", "content": "one"}]}


@pytest.mark.parametrize(("path", "body"), [
    ("/openai/deployments/chat/chat/completions?api-version=2024-10-21", CHAT),
    ("/openai/deployments/a%2Fb/chat/completions?api-version=2024-10-21", {**CHAT, "model": "another"}),
    ("/openai/deployments/a/b/chat/completions", {**CHAT, "model": "chat"}),
    ("/openai/v1/chat/completions", {**CHAT, "model": "chat"}),
    ("/openai/v1/chat/completions?api-version=preview", {**CHAT, "model": "chat"}),
])  # fmt: skip
async def test_a_deployment_is_a_model(path: str, body: dict[str, Any]) -> None:
    async with served() as api:
        request = await api.ask("POST", path, body, headers={"api-key": KEY}, key="")
        assert (request.status, request.json["choices"][0]["message"]["content"]) == (200, "You said: one")
        expected = "a/b" if "deployments/a" in path else "chat"
        assert (api.log[-1]["alias"], api.log[-1]["frontend"]) == (expected, "azure")


@pytest.mark.parametrize(
    "path", ["/openai/deployments/chat/completions?api-version=2024-10-21", "/openai/v1/completions"]
)
async def test_a_text_is_continued_by_a_deployment(path: str) -> None:
    body = {"model": "chat" if "v1" in path else "another", "prompt": "one"}
    async with served() as api:
        request = await api.ask("POST", path, body, headers={"api-key": KEY}, key="")
        assert (request.status, request.json["choices"][0]["text"]) == (200, "You said: one")
        assert (request.json["object"], api.log[-1]["alias"], api.log[-1]["frontend"]) == (
            "text_completion",
            "chat",
            "azure",
        )


async def test_what_else_its_clients_ask() -> None:
    async with served() as api:
        request = await api.ask("GET", "/openai/v1/models", headers={"api-key": KEY}, key="")
        assert [model["id"] for model in request.json["data"]] == ["chat", "a/b"]
        request = await api.ask("GET", "/openai/models?api-version=1", headers={"api-key": KEY}, key="")
        assert request.status == 200
        request = await api.ask(
            "POST", "/openai/deployments/chat/embeddings", {"input": "x"}, headers={"api-key": KEY}, key=""
        )
        assert (request.status, request.json["error"]["code"]) == (400, "unsupported_operation")
        request = await api.ask(
            "POST", "/openai/deployments/none/chat/completions", CHAT, headers={"api-key": KEY}, key=""
        )
        assert (request.status, request.json["error"]["code"]) == (404, "model_not_found")
        request = await api.ask(
            "POST", "/openai/deployments/chat/chat/completions", CHAT, headers={"api-key": "sk-x"}, key=""
        )
        assert (request.status, request.json["error"]["code"]) == (401, "invalid_api_key")
