"""Usage by the hour and by tags over HTTP: in every client's dialect, over failover, bounded, and never in
the log."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sluice.identity.keys import digest_of
from tests.e2e.gateways import Running, gateway

KEY, ADMIN = "sk-sluice-one", "sk-sluice-admin"
CONFIG = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
limits: {{address: null}}
admin: {{digest: "{digest_of(ADMIN)}"}}
keys: [{{id: one, tenant: acme, digest: "{digest_of(KEY)}"}}]
upstreams:
  echo: {{backend: echo, tokens: 5}}
  gone: {{backend: openai, base_url: "http://127.0.0.1:9"}}
aliases:
  chat: {{tiers: [[{{upstream: gone, model: m}}], [{{upstream: echo, model: m}}]], retry: {{same_target: 0}}}}
prices: {{models: {{m: {{input: 10, output: 10}}}}}}
usage:
  tags:
    project: {{header: X-Project, most: 2}}
    feature: {{metadata: feature, values: [search, chat]}}
"""


class Lab:
    def __init__(self, g: Running, client: aiohttp.ClientSession) -> None:
        self.g = g
        self.client = client

    async def post(self, path: str, body: Any, **headers: str) -> None:
        named = {"x-api-key": KEY} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(self.g.url + path, json=body, headers=named) as response:
            text = await response.text()
            assert response.status == 200, text

    async def report(self, by: str, **query: str) -> Any:
        url = f"{self.g.admin_url}/admin/usage"
        async with self.client.get(
            url, params={"by": by, **query}, headers={"x-admin-api-key": ADMIN}
        ) as response:
            assert response.status == 200, await response.text()
            return await response.json() if "format" not in query else await response.text()


@asynccontextmanager
async def serving(config: str = CONFIG) -> AsyncIterator[Lab]:
    async with gateway(config) as g, aiohttp.ClientSession() as client:
        yield Lab(g, client)


def said(**fields: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": "12345678"}], "max_tokens": 9, **fields}


async def test_calls_of_every_dialect_are_counted_by_their_tags() -> None:
    async with serving() as it:
        await it.post(
            "/v1/chat/completions", said(metadata={"feature": "search", "other": "x"}), x_project="alpha"
        )
        await it.post(
            "/v1/chat/completions", said(stream=True, metadata={"feature": "spam"}), x_project="alpha"
        )
        await it.post("/v1/messages", said(), x_project="beta", anthropic_version="2023-06-01")
        await it.post(
            "/v1/responses",
            {"model": "chat", "input": "hi", "metadata": {"feature": "chat"}},
            x_project="gamma",
        )
        await it.post("/api/chat", said(stream=False))
        projects = await it.report("tag:project")
        assert projects["by"] == ["tag:project"]
        assert {row["tag:project"]: row["requests"] for row in projects["rows"]} == {
            "": 1,
            "alpha": 2,
            "beta": 1,
            "other": 1,
        }
        features = await it.report("tag:feature,key")
        counted = {row["tag:feature"]: row["requests"] for row in features["rows"]}
        assert counted == {"": 2, "search": 1, "chat": 1, "other": 1}
        assert {row["key"] for row in features["rows"]} == {"one"}
        whole = await it.report("")
        assert projects["total"] == features["total"] == whole["total"]
        assert whole["total"]["requests"] == 5
        assert whole["total"]["cost_usd"] > 0
        text = json.dumps(it.g.log_lines) + it.g.runtime.exposition().decode()
        assert not [value for value in ("alpha", "beta", "gamma", "spam") if value in text]


async def test_hours_add_up_to_the_day() -> None:
    async with serving() as it:
        for _ in range(3):
            await it.post("/v1/chat/completions", said())
        hours = await it.report("hour,model")
        assert hours["total"] == (await it.report("day"))["total"]
        assert hours["total"]["requests"] == 3
        for row in hours["rows"]:
            assert row["hour"].endswith(":00Z")
            assert row["model"] == "echo/m"
        text = await it.report("hour", format="csv")
        assert text.startswith("hour,requests")


async def test_hours_can_be_left_out() -> None:
    async with serving(CONFIG.replace("usage:\n", "usage:\n  hourly_days: 0\n")) as it:
        await it.post("/v1/chat/completions", said())
        assert (await it.report("hour"))["rows"] == []
        assert (await it.report("day"))["total"]["requests"] == 1


@pytest.mark.parametrize("by", ["hour,tag:project", "tag:project,tag:feature", "tag:", "minute"])
async def test_what_is_not_counted_together_is_refused(by: str) -> None:
    async with serving() as it:
        url = f"{it.g.admin_url}/admin/usage"
        async with it.client.get(url, params={"by": by}, headers={"x-admin-api-key": ADMIN}) as response:
            assert response.status == 400
