"""Ollama's dialect on real sockets: what its clients meet before, beside and behind a chat."""

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
  ollama: {{backend: ollama, base_url: "URL"}}
aliases:
  chat: {{tiers: [[{{upstream: echo, model: m}}]]}}
  cut: {{tiers: [[{{upstream: openai, model: m}}]], retry: {{same_target: 0}}}}
  hidden: {{tiers: [[{{upstream: ollama, model: e}}]], report_model: alias}}
  "tagged:latest": {{tiers: [[{{upstream: ollama, model: e}}]]}}
"""
USER = {"role": "user", "content": "one two"}
VECTORS = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],'
    b'"model":"e","usage":{"prompt_tokens":9}}'
)


async def cuts_or_embeds(request: Request, peer: Peer) -> None:
    if request.path.endswith("/embeddings"):
        return peer.send(sized(VECTORS, 200, ("Content-Type", "application/json")))
    peer.send(CHUNKED + chunk(b'data: {"choices":[{"index":0,"delta":{"content":"Hal"}}]}\n\n') + LAST_CHUNK)


async def asked(g: Running, path: str, body: Any = None, key: str = KEY) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    method = "GET" if body is None else "POST"
    async with (
        aiohttp.ClientSession(g.url) as client,
        client.request(method, path, json=body, headers=headers) as response,
    ):
        return response.status, await response.read()


async def test_its_clients_find_what_they_look_for() -> None:
    async with gateway(CONFIG.replace("URL", "http://127.0.0.1:9")) as g:
        for path, field in (("/api/tags", "models"), ("/api/ps", "models"), ("/api/version", "version")):
            status, body = await asked(g, path)
            assert (status, field in json.loads(body)) == (200, True)
        assert [model["name"] for model in json.loads((await asked(g, "/api/tags"))[1])["models"]] == [
            "chat", "cut", "hidden", "tagged:latest",
        ]  # fmt: skip
        for name in ("chat", "chat:latest", "tagged", "tagged:latest"):
            assert (await asked(g, "/api/show", {"model": name}))[0] == 200
        assert (await asked(g, "/api/show", {"model": "none"}))[0] == 404
        assert (await asked(g, "/api/show", {}))[0] == 400
        status, body = await asked(g, "/api/pull", {"model": "chat"})
        assert (status, json.loads(body.splitlines()[-1])) == (200, {"status": "success"})
        status, body = await asked(g, "/api/pull", {"model": "none"})
        assert (status, sorted(json.loads(body))) == (404, ["code", "error"])
        assert (await asked(g, "/api/tags", key="wrong"))[0] == 401


@pytest.mark.parametrize("name", ["chat", "chat:latest"])
async def test_a_chat_by_either_name(name: str) -> None:
    async with gateway(CONFIG.replace("URL", "http://127.0.0.1:9")) as g:
        status, body = await asked(g, "/api/chat", {"model": name, "messages": [USER]})
        lines = [json.loads(line) for line in body.splitlines()]
        assert (status, "".join(line["message"]["content"] for line in lines)) == (200, "You said: one two")
        assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        assert 0 < lines[-1]["eval_duration"] <= lines[-1]["total_duration"] < 60e9
        assert g.requests[-1]["alias"] == "chat"
        status, body = await asked(g, "/api/generate", {"model": name, "prompt": "one", "stream": False})
        assert json.loads(body)["response"] == "You said: one"
        status, body = await asked(g, "/api/generate", {"model": name})
        assert (status, json.loads(body)["done_reason"]) == (200, "load")
        assert json.loads(body)["created_at"].endswith("Z")


async def test_a_cut_ends_in_a_line_with_an_error() -> None:
    async with RawServer(cuts_or_embeds) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        status, body = await asked(g, "/api/chat", {"model": "cut", "messages": [USER]})
        first, last = [json.loads(line) for line in body.splitlines()]
        assert (status, first["message"]["content"], last["code"]) == (200, "Hal", "truncated")
        status, body = await asked(g, "/api/chat", {"model": "cut", "messages": [USER], "stream": False})
        assert (status, json.loads(body)["code"]) == (502, "truncated")
        status, body = await asked(g, "/api/chat", {"model": "none", "messages": [USER]})
        assert (status, "not found" in json.loads(body)["error"]) == (404, True)


@pytest.mark.parametrize("alias", ["cut", "tagged"])
async def test_embeddings_by_upstreams_that_speak_openais(alias: str) -> None:
    async with RawServer(cuts_or_embeds) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        status, body = await asked(g, "/api/embed", {"model": alias, "input": "hello"})
        told = json.loads(body)
        assert (status, told["embeddings"], told["model"], told["prompt_eval_count"]) == (
            200,
            [[0.5]],
            "e",
            9,
        )
        status, body = await asked(g, "/api/embeddings", {"model": alias, "prompt": "hello"})
        assert (status, json.loads(body)) == (200, {"embedding": [0.5]})
        assert [request.path for request in up.requests] == ["/v1/embeddings"] * 2
        status, body = await asked(g, "/api/embed", {"model": "chat", "input": "hello"})
        assert (status, json.loads(body)["code"]) == (400, "unsupported_operation")


LINES = [
    b'{"model":"e","created_at":"2026-11-30T00:00:00Z","message":{"role":"assistant","content":"Hi"},"logprobs":[],"done":false}\n',
    b'{"model":"e","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":2,"eval_count":1,'
    b'"load_duration":77,"new":[1.0]}\n',
]


async def speaks_ollama(request: Request, peer: Peer) -> None:
    body = json.loads(request.body)
    name, text = (
        ("response", '""')
        if request.path == "/api/generate"
        else ("message", '{"role":"assistant","content":""}')
    )
    end = LINES[1].replace(b'"message":{"role":"assistant","content":""}', f'"{name}":{text}'.encode())
    if body.get("stream") is False:
        return peer.send(sized(end.replace(b'""', b'"Hi"'), 200, ("Content-Type", "application/json")))
    peer.send(CHUNKED + chunk(LINES[0][:50]) + chunk(LINES[0][50:] + LINES[1]) + LAST_CHUNK)


async def test_ollama_behind_ollama_loses_nothing() -> None:
    ask = {"messages": [USER], "truncate": False, "options": {"num_ctx": 9, "num_gpu": 1}, "keep_alive": 0}
    async with RawServer(speaks_ollama) as up, gateway(CONFIG.replace("URL", up.url)) as g:
        assert await asked(g, "/api/chat", {"model": "tagged", **ask}) == (200, b"".join(LINES))
        renamed = b"".join(LINES).replace(b'"model":"e"', b'"model":"hidden"')
        assert await asked(g, "/api/chat", {"model": "hidden", **ask}) == (200, renamed)
        status, body = await asked(g, "/api/chat", {"model": "tagged", **ask, "stream": False})
        assert (status, body) == (200, LINES[1].replace(b'""', b'"Hi"').strip())
        status, body = await asked(
            g, "/api/generate", {"model": "tagged", "prompt": "a", "suffix": "b", "stream": False}
        )
        assert (status, json.loads(body)["response"], json.loads(body)["load_duration"]) == (200, "Hi", 77)
        status, body = await asked(g, "/api/generate", {"model": "chat", "prompt": "a", "suffix": "b"})
        assert (status, json.loads(body)["error"].partition(":")[0]) == (400, "suffix")
        assert [(request.path, json.loads(request.body)) for request in up.requests] == [
            ("/api/chat", {"model": "e", "messages": [USER], "truncate": False, "options": {"num_ctx": 9}}),
            ("/api/chat", {"model": "e", "messages": [USER], "truncate": False, "options": {"num_ctx": 9}}),
            ("/api/chat", {"model": "e", "messages": [USER], "truncate": False, "options": {"num_ctx": 9}, "stream": False}),
            ("/api/generate", {"model": "e", "prompt": "a", "suffix": "b", "stream": False}),
        ]  # fmt: skip
        assert [request["tokens_in"] for request in g.requests[:3]] == [2, 2, 2]
