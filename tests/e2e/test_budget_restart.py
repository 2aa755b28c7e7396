"""A budget is spent over restarts, wherever its bucket lives."""

from pathlib import Path

import pytest

from tests.e2e.gateways import DIGEST, gateway
from tests.e2e.test_costs import PRICES, ended, session
from tests.fakes.faulty import Provider, healthy
from tests.servers import redis_server

pytest.importorskip("sluice.policies.limits", reason="no policy takes budgets in this version")


def config(provider: Provider, folder: Path, store: str) -> str:
    """An answer costs 0.00494 dollars; 0.00806 are reserved for it."""
    return f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat, limits: {{budget: {{day: 0.01}}}}}}]
limits: {{address: null, store: "{store}", output_tokens: 100}}
state: sqlite:{folder}/state.db
upstreams: {{up: {{backend: openai, base_url: "{provider.url}/v1", api_key: x}}}}
aliases: {{chat: {{tiers: [[{{upstream: up, model: fake-2}}]]}}}}
prices: {{models: {PRICES}}}
"""


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_a_restart_gives_no_money_back(tmp_path: Path, kind: str) -> None:
    body = {"messages": [{"role": "user", "content": "Count"}]}
    statuses, told = [], {}
    with redis_server() as redis:
        async with Provider(healthy) as provider:
            text = config(provider, tmp_path, f"{redis.url}&timeout=30" if kind == "redis" else kind)
            for _ in range(3):
                async with gateway(text) as g, session(g) as client:
                    async with client.post("/v1/chat/completions", json=body) as response:
                        statuses.append(response.status)
                        told = dict(response.headers)
                    await ended(g)
    assert statuses == [200, 429, 429]
    assert told["x-should-retry"] == "false"
    assert 0 < int(told["Retry-After"]) <= 86400
