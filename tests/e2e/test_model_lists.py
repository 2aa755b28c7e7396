"""Lists of models have what is known of them, in each dialect's own fields."""

from typing import Any

import aiohttp

from tests.e2e.gateways import HEAD, KEY, gateway

CONFIG = f"""{HEAD}
upstreams:
  one: {{backend: openai, base_url: "http://127.0.0.1:1/v1"}}
  two: {{backend: anthropic, base_url: "http://127.0.0.1:1", api_key: k}}
aliases:
  chat: {{tiers: [[{{upstream: one, model: gpt-4o}}]]}}
  both: {{tiers: [[{{upstream: one, model: gpt-5}}, {{upstream: two, model: claude-opus-4-5-20251101}}]]}}
  few: {{tiers: [[{{upstream: one, model: gpt-5, context: 1000, vision: false}}]]}}
  own: {{tiers: [[{{upstream: one, model: my-model}}]]}}
  "any/*": {{tiers: [[{{upstream: one, model: "*"}}]]}}
"""
KEYS = {"authorization": f"Bearer {KEY}"}


async def asked(client: aiohttp.ClientSession, path: str, body: Any = None, **headers: str) -> Any:
    method = "POST" if body is not None else "GET"
    async with client.request(method, path, json=body, headers={**KEYS, **headers}) as response:
        assert response.status == 200
        return await response.json(content_type=None)


async def test_each_dialect_has_its_own_fields() -> None:
    async with gateway(CONFIG) as g, aiohttp.ClientSession(g.url) as client:
        listed = {one["id"]: one for one in (await asked(client, "/v1/models"))["data"]}
        assert listed["chat"]["context_length"] == 128000
        assert listed["chat"]["max_completion_tokens"] == 16384
        assert listed["chat"]["architecture"] == {
            "input_modalities": ["text", "image", "file"],
            "output_modalities": ["text"],
        }
        assert listed["both"]["context_length"] == 200000
        assert listed["both"]["architecture"]["input_modalities"] == ["text", "image"]
        assert (listed["few"]["context_length"], listed["few"]["architecture"]["input_modalities"]) == (
            1000,
            ["text"],
        )
        for name in ("own", "any/*"):
            assert listed[name].keys() == {"id", "object", "created", "owned_by"}
        assert (await asked(client, "/v1/models/chat"))["context_length"] == 128000

        anthropics = await asked(client, "/v1/models?limit=100", **{"anthropic-version": "2023-06-01"})
        both = next(one for one in anthropics["data"] if one["id"] == "both")
        assert (both["max_input_tokens"], both["max_tokens"]) == (200000, 64000)
        assert both["capabilities"] == {"image_input": {"supported": True}, "pdf_input": {"supported": False}}

        googles = await asked(client, "/v1beta/models/chat")
        assert (googles["inputTokenLimit"], googles["outputTokenLimit"]) == (128000, 16384)
        assert "inputTokenLimit" not in await asked(client, "/v1beta/models/own")

        shown = await asked(client, "/api/show", {"model": "few:latest"})
        assert shown["model_info"]["sluice.context_length"] == 1000
        assert shown["capabilities"] == ["completion", "tools"]
        assert "vision" in (await asked(client, "/api/show", {"model": "chat"}))["capabilities"]
