"""What a target cannot do: another one is asked, the caller is refused with the field's name, or an alias has
it left out."""

import json
from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.e2e.test_fitted import ANTHROPIC, ONE
from tests.e2e.test_whole import says
from tests.fakes.rawserver import RawServer

IMAGE = {
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/a.png"}}]}
    ]
}


def config(up: RawServer, other: RawServer) -> str:
    return f"""{HEAD}
upstreams:
  claude: {{backend: anthropic, base_url: "{up.url}"}}
  local: {{backend: ollama, base_url: "{up.url}"}}
  gpt: {{backend: openai, base_url: "{other.url}/v1"}}
aliases:
  chat: {{tiers: [[{{upstream: claude, model: claude-3-7-sonnet-latest}}]]}}
  both: {{tiers: [[{{upstream: local, model: l}}], [{{upstream: claude, model: c}}], [{{upstream: gpt, model: g}}]]}}
  strict: {{tiers: [[{{upstream: claude, model: c}}]], unsupported: refuse}}
  lenient: {{tiers: [[{{upstream: claude, model: c}}]], unsupported: drop}}
"""


async def ask(g: Running, model: str, **fields: Any) -> tuple[int, Any, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
    async with (
        aiohttp.ClientSession(g.url, headers={"x-api-key": KEY}) as client,
        client.post("/v1/chat/completions", json=body) as response,
    ):
        return response.status, await response.json(), response.headers.get("x-sluice-target", "")


@pytest.mark.parametrize(("fields", "param"), [
    ({"logprobs": True}, "logprobs"), ({"n": 2}, "n"), ({"web_search_options": {}}, "web_search_options"),
    ({"modalities": ["text", "audio"]}, "modalities"), ({"functions": [{"name": "f"}]}, "functions"),
])  # fmt: skip
async def test_what_no_target_can_do_is_refused_with_its_name(fields: dict[str, Any], param: str) -> None:
    async with (
        RawServer(says(ANTHROPIC)) as up,
        RawServer(says(ONE)) as other,
        gateway(config(up, other)) as g,
    ):
        status, body, _ = await ask(g, "chat", **fields)
        assert (status, body["error"]["code"], body["error"]["param"]) == (
            400,
            "unsupported_parameter",
            param,
        )
        assert not up.requests


async def test_a_target_that_can_is_asked_instead() -> None:
    async with (
        RawServer(says(ANTHROPIC)) as up,
        RawServer(says(ONE)) as other,
        gateway(config(up, other)) as g,
    ):
        status, _, target = await ask(g, "both", logprobs=True)
        assert (status, target) == (200, "gpt/g")
        assert json.loads(other.requests[0].body)["logprobs"] is True
        assert not up.requests
        assert (await ask(g, "both", **IMAGE))[2] == "claude/c"
        assert g.requests[-1]["attempts"] == ["claude/c ok"]


async def test_preferences_are_dropped_and_counted() -> None:
    async with (
        RawServer(says(ANTHROPIC)) as up,
        RawServer(says(ONE)) as other,
        gateway(config(up, other)) as g,
    ):
        status, _, _ = await ask(g, "chat", seed=7, user="u", logit_bias={"7": 1})
        assert status == 200
        for field in ("seed", "user", "logit_bias"):
            line = f'sluice_dropped_fields_total{{field="{field}",model="claude-3-7-sonnet-latest",upstream="claude"}}'
            assert g.metric(line) == 1


async def test_an_alias_refuses_all_or_drops_all() -> None:
    async with (
        RawServer(says(ANTHROPIC)) as up,
        RawServer(says(ONE)) as other,
        gateway(config(up, other)) as g,
    ):
        status, body, _ = await ask(g, "strict", seed=7)
        assert (status, body["error"]["code"], body["error"]["param"]) == (
            400,
            "unsupported_parameter",
            "seed",
        )
        assert not up.requests
        status, body, _ = await ask(g, "lenient", seed=7, logprobs=True, n=2)
        assert (status, len(body["choices"])) == (200, 1)
        assert g.metric('sluice_dropped_fields_total{field="n",model="c",upstream="claude"}') == 1
