"""Wildcard aliases shown as what their upstream lists: in each dialect, to those who may; as before while
there is no list."""

import asyncio
import hashlib
import json
from typing import Any

import aiohttp
import pytest

from sluice.config.loader import load_mapping
from sluice.errors import ConfigError
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import Peer, RawServer, Request, sized

JSON = ("Content-Type", "application/json")
LISTED = {"data": [{"id": "gpt-5"}, {"id": "own", "max_model_len": 4096}, {"id": "fixed"}, {"id": "ft:a"}]}


def config(up: RawServer) -> str:
    narrow = hashlib.sha256(b"sk-narrow").hexdigest()
    text = f"""{HEAD}
upstreams: {{one: {{backend: openai, base_url: "{up.url}/v1", api_key: sk-one}}}}
aliases:
  chat: {{tiers: [[{{upstream: one, model: m}}]]}}
  "all/*": {{tiers: [[{{upstream: one, model: "*"}}]], expand: true}}
  all/fixed: {{tiers: [[{{upstream: one, model: m}}]]}}
  "tuned/*": {{tiers: [[{{upstream: one, model: "ft:*"}}]], expand: true}}
  "plain/*": {{tiers: [[{{upstream: one, model: "*"}}]]}}
"""
    narrowed = (
        f', {{id: narrow, digest: "sha256:{narrow}", aliases: ["all/gpt-*", chat], default_alias: chat}}]'
    )
    return text.replace("default_alias: chat}]", "default_alias: chat}" + narrowed, 1)


async def listed(g: Running, path: str = "/v1/models", key: str = KEY, **headers: str) -> Any:
    headers = {"authorization": f"Bearer {key}", **headers}
    async with aiohttp.ClientSession(g.url) as client, client.get(path, headers=headers) as response:
        assert response.status == 200
        return await response.json(content_type=None)


async def names(g: Running, key: str = KEY) -> list[str]:
    return [one["id"] for one in (await listed(g, key=key))["data"]]


async def test_lists_have_what_the_upstream_lists() -> None:
    ready = asyncio.Event()

    async def answer(request: Request, peer: Peer) -> None:
        await ready.wait()
        peer.send(sized(json.dumps(LISTED).encode(), 200, JSON))

    async with RawServer(answer) as up, gateway(config(up)) as g:
        assert await names(g) == ["chat", "all/*", "all/fixed", "tuned/*", "plain/*"]
        assert await names(g, "sk-narrow") == ["chat", "all/gpt-*"]
        ready.set()
        async with asyncio.timeout(60):
            while "all/gpt-5" not in await names(g):
                await asyncio.sleep(0)
        [asked] = up.requests  # both aliases share one list
        assert (asked.method, asked.path, asked.headers["authorization"]) == (
            "GET",
            "/v1/models",
            "Bearer sk-one",
        )
        assert await names(g) == [
            "chat",
            "all/gpt-5",
            "all/own",
            "all/ft:a",
            "all/fixed",
            "tuned/a",
            "plain/*",
        ]
        assert await names(g, "sk-narrow") == ["chat", "all/gpt-5"]
        found = {one["id"]: one for one in (await listed(g))["data"]}
        assert (found["all/gpt-5"]["context_length"], found["all/own"]["context_length"]) == (400000, 4096)
        assert (await listed(g, "/v1/models/all/own"))["context_length"] == 4096
        googles = await listed(g, "/v1beta/models/all/own")
        assert googles["inputTokenLimit"] == 4096
        anthropics = await listed(g, "/v1/models?limit=100", **{"anthropic-version": "2023-06-01"})
        assert "all/gpt-5" in [one["id"] for one in anthropics["data"]]


async def test_an_upstream_that_lists_nothing_changes_nothing() -> None:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(sized(b"{}", 500, JSON))

    async with RawServer(answer) as up, gateway(config(up)) as g:
        async with asyncio.timeout(60):
            while not up.requests:
                await asyncio.sleep(0)
        assert await names(g) == ["chat", "all/*", "all/fixed", "tuned/*", "plain/*"]


@pytest.mark.parametrize(("alias", "upstream", "model", "reason"), [
    ("chat", {"backend": "openai", "base_url": "http://127.0.0.1:1/v1"}, "m", "is for aliases that end in *"),
    ("a/*", {"backend": "openai", "base_url": "http://127.0.0.1:1/v1"}, "m", "is for aliases that end in *"),
    ("a/*", {"backend": "bedrock", "region": "eu-central-1", "api_key": "k"}, "*", "has no list of models"),
    ("a/*", {"backend": "echo"}, "*", "has no list of models"),
])  # fmt: skip
def test_what_cannot_be_expanded_is_a_problem(
    alias: str, upstream: dict[str, Any], model: str, reason: str
) -> None:
    aliases = {alias: {"tiers": [[{"upstream": "one", "model": model}]], "expand": True}}
    with pytest.raises(ConfigError) as refused:
        load_mapping({"upstreams": {"one": upstream}, "aliases": aliases})
    assert any(reason in problem and "expand" in problem for problem in refused.value.problems)
