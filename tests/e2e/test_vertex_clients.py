"""Clients of Vertex AI, Google's and Anthropic's, at the running gateway: models in paths, versions, keys, lists,
embeddings. What Google's and Anthropic's SDKs make of it is tests/sdks/test_vertex.py."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.dialects import ANTHROPIC
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized

CONFIG = f"""{HEAD}
upstreams:
  echo: {{backend: echo}}
  openai: {{backend: openai, base_url: "URL/v1", api_key: sk-one}}
  google: {{backend: gemini, base_url: "URL/v1beta", api_key: sk-one}}
  anthropic: {{backend: anthropic, base_url: "URL", api_key: sk-one, count_tokens: true}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]]}}
  org/model: {{tiers: [[{{upstream: echo, model: m}}]]}}
  vectors: {{tiers: [[{{upstream: openai, model: e}}]]}}
  own: {{tiers: [[{{upstream: google, model: gemini-embedding-001}}]]}}
  claude: {{tiers: [[{{upstream: anthropic, model: claude-opus-4-5}}]]}}
"""
NOWHERE = "http://127.0.0.1:9"
BODY = {"contents": [{"role": "user", "parts": [{"text": "one two"}]}]}
MESSAGES = {
    "anthropic_version": "vertex-2023-10-16",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "one two"}],
}
PROJECT = "projects/p/locations/europe-west1/"
CLAUDE = f"/v1/{PROJECT}publishers/anthropic/models"
BY_BEARER = {"authorization": f"Bearer {KEY}"}


async def asked(g: Running, path: str, body: Any = None, headers: Any = BY_BEARER) -> tuple[int, Any]:
    """The status and the JSON value."""
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(g.url) as client,
        client.request(method, path, json=body, headers=headers) as response,
    ):
        return response.status, json.loads(await response.read())


def text_of(*chunks: Any) -> str:
    return "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"])


@pytest.mark.parametrize("version", ["v1beta1", "v1"])
@pytest.mark.parametrize(("place", "headers"), [(PROJECT, BY_BEARER), ("", {"x-goog-api-key": KEY})])
@pytest.mark.parametrize("published", ["google/models/chat", "org/models/model"])
async def test_models_are_in_the_path(version: str, place: str, headers: Any, published: str) -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        path = f"/{version}/{place}publishers/{published}"
        status, body = await asked(g, f"{path}:generateContent", BODY, headers)
        assert (status, text_of(body)) == (200, "You said: one two")
        assert g.requests[-1]["frontend"] == "vertex"
        assert "europe-west1" not in g.requests[-1]["route"]
        status, body = await asked(g, f"{path}:streamGenerateContent", BODY, headers)
        assert (status, text_of(*body)) == (200, "You said: one two")
        status, body = await asked(g, f"{path}:countTokens", BODY, headers)
        assert (status, body["totalTokens"] > 0) == (200, True)
        status, body = await asked(g, path, None, headers)
        assert (status, body["name"]) == (200, f"publishers/{published}")


async def test_models_are_listed_page_by_page() -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        _, first = await asked(g, "/v1beta1/publishers/google/models?pageSize=2")
        assert [model["name"] for model in first["publisherModels"]] == [
            "publishers/google/models/chat", "publishers/org/models/model",
        ]  # fmt: skip
        _, rest = await asked(g, f"/v1beta1/publishers/google/models?pageToken={first['nextPageToken']}")
        assert [model["displayName"] for model in rest["publisherModels"]] == ["vectors", "own", "claude"]
        assert "nextPageToken" not in rest


async def vectors(request: Request, peer: Peer) -> None:
    asked_for = json.loads(request.body)
    if request.path.endswith("/embeddings"):
        assert asked_for == {"model": "e", "input": ["x", "y"], "dimensions": 2}
        answer = {"data": [{"index": n, "embedding": [n + 0.5]} for n in (1, 0)], "model": "e"}
    else:
        assert request.path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
        assert [one["taskType"] for one in asked_for["requests"]] == ["RETRIEVAL_QUERY"] * 2
        answer = {"embeddings": [{"values": [n + 0.5]} for n in (0, 1)]}
    peer.send(sized(json.dumps(answer).encode(), 200, ("Content-Type", "application/json")))


@pytest.mark.parametrize("model", ["vectors", "own"])
async def test_texts_are_embedded_by_predict(model: str) -> None:
    instances = [{"content": text, "task_type": "RETRIEVAL_QUERY"} for text in "xy"]
    body = {"instances": instances, "parameters": {"outputDimensionality": 2, "autoTruncate": True}}
    async with RawServer(vectors) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        path = f"/v1beta1/{PROJECT}publishers/google/models/{model}:predict"
        status, answer = await asked(g, path, body)
        assert (status, answer) == (
            200,
            {"predictions": [{"embeddings": {"values": [n + 0.5]}} for n in (0, 1)]},
        )
        for wrong, named in (
            ({"instances": []}, "instances"),
            ({"instances": [{"prompt": "a cat"}]}, "content"),
        ):
            status, answer = await asked(g, path, wrong)
            assert (status, named in answer["error"]["message"]) == (400, True)


async def test_claudes_requests_are_messages_without_their_version() -> None:
    bodies = []

    async def claude(request: Request, peer: Peer) -> None:
        bodies.append(json.loads(request.body))
        assert dict(request.headers)["anthropic-version"] == "2023-06-01"
        if request.path.endswith("/count_tokens"):
            return peer.send(sized(b'{"input_tokens":7}', 200, ("Content-Type", "application/json")))
        peer.send(
            chunked(ANTHROPIC.opening() + ANTHROPIC.token("Hi") + ANTHROPIC.finish(1) + ANTHROPIC.end())
        )

    async with RawServer(claude) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        headers = {**BY_BEARER, "anthropic-version": "2023-06-01"}
        async with (
            aiohttp.ClientSession(g.url) as client,
            client.post(
                f"{CLAUDE}/claude:streamRawPredict", json=MESSAGES | {"stream": True}, headers=headers
            ) as response,
        ):
            assert b"event: message_stop" in await response.read()
        assert g.requests[-1]["frontend"] == "vertex-anthropic"
        _, answer = await asked(
            g, f"{CLAUDE}/count-tokens:rawPredict", MESSAGES | {"model": "claude"}, headers
        )
        assert answer == {"input_tokens": 7}
    assert [(body["model"], "anthropic_version" in body) for body in bodies] == [
        ("claude-opus-4-5", False)
    ] * 2


async def test_claude_answers_whole_and_refuses_in_its_own_envelope() -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        for model in ("chat", "org/model"):
            status, answer = await asked(g, f"{CLAUDE}/{model}:rawPredict", MESSAGES)
            assert (status, answer["content"][0]["text"]) == (200, "You said: one two")
        status, answer = await asked(g, f"{CLAUDE}/none:rawPredict", MESSAGES)
        assert (status, answer["error"]["type"]) == (404, "not_found_error")


async def test_what_there_is_not_is_told_in_googles_envelope() -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        path = f"/v1/{PROJECT}publishers/google/models/chat:computeTokens"
        status, answer = await asked(g, path, BODY)
        assert (status, answer["error"]["status"]) == (404, "NOT_FOUND")
        assert "no method computeTokens of models" in answer["error"]["message"]
        status, answer = await asked(g, f"/v1beta1/{PROJECT}cachedContents", {}, {"x-goog-api-key": KEY})
        assert (status, answer["error"]["status"]) == (404, "NOT_FOUND")
