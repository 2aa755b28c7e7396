"""Gemini's dialect on real sockets: keys, versions, lists of models, embeddings, and how an answer that was
cut ends."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk, sized

CONFIG = f"""{HEAD}
upstreams:
  echo: {{backend: echo}}
  openai: {{backend: openai, base_url: "URL/v1", api_key: sk-one}}
  google: {{backend: gemini, base_url: "URL/v1beta", api_key: sk-one}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]]}}
  cut: {{tiers: [[{{upstream: openai, model: m}}]], retry: {{same_target: 0}}}}
  org/model: {{tiers: [[{{upstream: echo, model: m}}]]}}
  own: {{tiers: [[{{upstream: google, model: gemini-2.5-pro}}]]}}
"""
NOWHERE = "http://127.0.0.1:9"
BODY = {"contents": [{"parts": [{"text": "one two"}]}]}
VECTORS = b'{"data":[{"index":0,"embedding":[0.5]}],"model":"e","usage":{"prompt_tokens":9}}'
BY_HEADER = {"x-goog-api-key": KEY}


async def cuts_or_embeds(request: Request, peer: Peer) -> None:
    if request.path.endswith("/embeddings"):
        return peer.send(sized(VECTORS, 200, ("Content-Type", "application/json")))
    peer.send(CHUNKED + chunk(b'data: {"choices":[{"index":0,"delta":{"content":"Hal"}}]}\n\n') + LAST_CHUNK)


async def asked(g: Running, path: str, body: Any = None, headers: Any = BY_HEADER) -> tuple[int, bytes]:
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(g.url) as client,
        client.request(method, path, json=body, headers=headers) as response,
    ):
        return response.status, await response.read()


def text_of(*chunks: Any) -> str:
    return "".join(part["text"] for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"])


@pytest.mark.parametrize("version", ["v1beta", "v1", "v1alpha"])
@pytest.mark.parametrize("model", ["chat", "org/model", "org%2Fmodel"])
async def test_every_version_and_name(version: str, model: str) -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        status, body = await asked(g, f"/{version}/models/{model}:generateContent", BODY)
        assert (status, text_of(json.loads(body))) == (200, "You said: one two")
        assert g.requests[-1]["route"] == f"/{version}/models/*:generateContent"
        status, body = await asked(g, f"/{version}/models/{model}")
        assert (status, json.loads(body)["name"]) == (200, f"models/{model.replace('%2F', '/')}")


async def test_streams_are_events_or_a_list() -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        _, body = await asked(g, "/v1beta/models/chat:streamGenerateContent?alt=sse", BODY)
        assert (
            text_of(*[json.loads(frame[6:]) for frame in body.split(b"\r\n\r\n") if frame])
            == "You said: one two"
        )
        _, body = await asked(g, "/v1beta/models/chat:streamGenerateContent", BODY)
        assert text_of(*json.loads(body)) == "You said: one two"


async def test_keys_by_header_and_by_query() -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        path = "/v1beta/models/chat:generateContent"
        assert (await asked(g, f"{path}?key={KEY}", BODY, {}))[0] == 200
        status, body = await asked(g, f"{path}?key=wrong", BODY, {})
        assert (status, json.loads(body)["error"]["status"]) == (401, "UNAUTHENTICATED")
        assert KEY not in g.log_bytes.getvalue().decode()


async def test_models_are_listed_in_the_callers_dialect() -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        _, body = await asked(g, "/v1beta/models?pageSize=2")
        first = json.loads(body)
        assert [model["name"] for model in first["models"]] == ["models/chat", "models/cut"]
        _, body = await asked(g, f"/v1/models?pageSize=2&pageToken={first['nextPageToken']}")
        assert [model["name"] for model in json.loads(body)["models"]] == ["models/org/model", "models/own"]
        assert "nextPageToken" not in json.loads(body)
        assert (
            json.loads((await asked(g, "/v1/models", headers={"authorization": f"Bearer {KEY}"}))[1])[
                "object"
            ]
            == "list"
        )
        assert (await asked(g, "/v1beta/models?pageToken=x"))[0] == 400
        status, body = await asked(g, "/v1beta/models/none")
        assert (status, json.loads(body)["error"]["status"]) == (404, "NOT_FOUND")
        status, body = await asked(g, "/v1beta/models/chat:nonsense", BODY)
        assert json.loads(body)["error"]["code"] == status


async def test_what_an_upstream_cannot_do() -> None:
    async with gateway(CONFIG.replace("URL", NOWHERE)) as g:
        status, body = await asked(
            g, "/v1beta/models/chat:generateContent", {**BODY, "tools": [{"googleSearch": {}}]}
        )
        error = json.loads(body)["error"]
        assert (status, error["status"]) == (400, "INVALID_ARGUMENT")
        assert error["message"] == "tools[0]: the tool googleSearch cannot be given to this model"
        status, _ = await asked(
            g, "/v1beta/models/chat:generateContent", {**BODY, "generationConfig": {"candidateCount": 2}}
        )
        assert status == 400
        status, body = await asked(
            g, "/v1beta/models/chat:embedContent", {"content": {"parts": [{"text": "x"}]}}
        )
        assert (status, json.loads(body)["error"]["details"][0]["reason"]) == (400, "unsupported_operation")
        status, body = await asked(g, "/v1beta/models/chat:countTokens", BODY)
        assert (status, json.loads(body)["totalTokens"]) == (200, 1)


async def test_a_cut_ends_in_an_error() -> None:
    async with RawServer(cuts_or_embeds) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        _, body = await asked(g, "/v1beta/models/cut:streamGenerateContent?alt=sse", BODY)
        first, last = [json.loads(frame[6:]) for frame in body.split(b"\r\n\r\n") if frame]
        assert (text_of(first), last["error"]["details"][0]["reason"]) == ("Hal", "truncated")
        _, body = await asked(g, "/v1beta/models/cut:streamGenerateContent", BODY)
        first, last = json.loads(body)
        assert (text_of(first), last["error"]["code"]) == ("Hal", 503)
        status, body = await asked(g, "/v1beta/models/cut:generateContent", BODY)
        assert (status, json.loads(body)["error"]["status"]) == (503, "UNAVAILABLE")


async def test_embeddings_by_upstreams_of_openais_dialect() -> None:
    async with RawServer(cuts_or_embeds) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        one = {"content": {"parts": [{"text": "x"}]}}
        status, body = await asked(g, "/v1beta/models/cut:embedContent", one)
        assert (status, json.loads(body)) == (200, {"embedding": {"values": [0.5]}})
        status, body = await asked(g, "/v1beta/models/cut:batchEmbedContents", {"requests": [one]})
        assert (status, json.loads(body)) == (200, {"embeddings": [{"values": [0.5]}]})


CHUNKS = [
    b'{"candidates":[{"content":{"parts":[{"text":"Hal"}],"role":"model"},"index":0}],"modelVersion":"g"}',
    b'{"candidates":[{"content":{"parts":[{"text":"lo"}]},"finishReason":"STOP","groundingMetadata":{"new":1}}],"modelVersion":"g"}',
]
DOCUMENT = b'{ "candidates": [{"content":{"parts":[{"text":"Hallo"}]},"finishReason":"STOP"},{"index":1}], "modelVersion":"g" }'
ANSWERS = {
    "generateContent": DOCUMENT,
    "countTokens": b'{"totalTokens":31}',
    "batchEmbedContents": b'{"embeddings":[{"values":[0.5]}],"usageMetadata":{"promptTokenCount":3}}',
}
SEARCH = {**BODY, "tools": [{"googleSearch": {}}], "generationConfig": {"candidateCount": 2}}


async def google(request: Request, peer: Peer) -> None:
    method = request.path.rpartition(":")[2].partition("?")[0]
    if method in ANSWERS:
        return peer.send(sized(ANSWERS[method], 200, ("Content-Type", "application/json")))
    assert request.path == "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    assert json.loads(request.body) == SEARCH
    peer.send(CHUNKED + b"".join([chunk(b"data: %b\r\n\r\n" % one) for one in CHUNKS]) + LAST_CHUNK)


async def test_googles_own_upstream_answers_in_its_own_words() -> None:
    async with RawServer(google) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        _, body = await asked(g, "/v1beta/models/own:streamGenerateContent?alt=sse", SEARCH)
        assert body == b"".join([b"data: %b\r\n\r\n" % one for one in CHUNKS])
        _, body = await asked(g, "/v1beta/models/own:streamGenerateContent", SEARCH)
        assert body == b"[" + b",\r\n".join(CHUNKS) + b"]"
        assert await asked(g, "/v1beta/models/own:generateContent", SEARCH) == (200, DOCUMENT)
        assert await asked(g, "/v1beta/models/own:countTokens", BODY) == (200, ANSWERS["countTokens"])
        one = {"content": {"parts": [{"text": "x"}]}}
        _, body = await asked(g, "/v1beta/models/own:embedContent", one)
        assert json.loads(body) == {"embedding": {"values": [0.5]}}
        by_bearer = {"authorization": f"Bearer {KEY}"}
        asked_for = {"model": "own", "input": "x", "encoding_format": "base64"}
        status, body = await asked(g, "/v1/embeddings", asked_for, by_bearer)
        assert (status, json.loads(body)["data"][0]["embedding"]) == (200, "AAAAPw==")
        assert json.loads(body)["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


EXPRESS = (
    HEAD
    + """
upstreams:
  by-key: {backend: gemini, vertex: true, base_url: "URL", api_key: AQ.express-key}
  by-credential:
    backend: gemini
    vertex: true
    base_url: "URL"
    credentials: {api_key: AQ.express-key, header: x-goog-api-key}
aliases:
  one: {tiers: [[{upstream: by-key, model: gemini-3.5-flash}]], heartbeat: null}
  two: {tiers: [[{upstream: by-credential, model: gemini-3.5-flash}]], heartbeat: null}
  chat: {tiers: [[{upstream: by-key, model: m}]]}
"""
)
"""https://cloud.google.com/vertex-ai/generative-ai/docs/start/express-mode/overview"""
SAID = b'{"candidates":[{"content":{"role":"model","parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}'


@pytest.mark.parametrize("alias", ["one", "two"])
async def test_vertex_ais_express_mode_is_asked_with_its_key_and_without_a_project(alias: str) -> None:
    async def answer(request: Request, peer: Peer) -> None:
        if ":streamGenerateContent" in request.path:
            peer.send(CHUNKED + chunk(b"data: " + SAID + b"\r\n\r\n") + LAST_CHUNK)
        elif ":countTokens" in request.path:
            peer.send(sized(b'{"totalTokens": 7}', 200, ("Content-Type", "application/json")))
        else:
            peer.send(sized(SAID, 200, ("Content-Type", "application/json")))

    async with RawServer(answer) as server, gateway(EXPRESS.replace("URL", server.url)) as g:
        _, body = await asked(g, f"/v1beta/models/{alias}:generateContent", BODY)
        assert text_of(json.loads(body)) == "Hi"
        chat = {"model": alias, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        status, body = await asked(g, "/v1/chat/completions", chat, {"authorization": f"Bearer {KEY}"})
        assert status == 200
        assert b'"Hi"' in body
        _, body = await asked(g, f"/v1beta/models/{alias}:countTokens", BODY)
        assert json.loads(body)["totalTokens"] == 7
        place = "/v1/publishers/google/models/gemini-3.5-flash"
        assert [request.path.partition("?")[0] for request in server.requests] == [
            f"{place}:generateContent",
            f"{place}:streamGenerateContent",
            f"{place}:countTokens",
        ]
        for request in server.requests:
            assert request.headers["x-goog-api-key"] == "AQ.express-key"
            assert "authorization" not in request.headers
