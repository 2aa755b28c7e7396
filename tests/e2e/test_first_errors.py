"""What alerts count is there at zero from the start, where a single error makes one fire: an increase sees a first
error only where there was a zero before it."""

import re
from pathlib import Path

import yaml

from tests.e2e.gateways import DIGEST, gateway
from tests.fakes.faulty import Provider, healthy
from tests.fakes.rawserver import refused_url

RULES = yaml.safe_load((Path(__file__).parents[2] / "deploy/prometheus/rules.yaml").read_text())
COUNTED = re.compile(r"\bincrease\((sluice_\w+_total)(?:\{(.*?)\})?\[")
SELECTORS = sorted(
    {found for group in RULES["groups"] for rule in group["rules"] for found in COUNTED.findall(rule["expr"])}
)
ELSEWHERE = {"sluice_worker_restarts_total", "sluice_budget_soft_total", "sluice_jwks_fetches_total"}
"""The supervisor's; at zero from the first call that such a budget holds for; counted again with each fetch."""


def matches(line: str, name: str, matchers: str) -> bool:
    found = re.fullmatch(name + r"(?:\{(.*)\})? 0\.0", line)
    labels = dict(re.findall(r'(\w+)="(.*?)"', (found[1] or "") if found else ""))
    return found is not None and all(
        (re.fullmatch(value, labels.get(label, "")) is not None) is not how.startswith("!")
        for label, how, value in re.findall(r'(\w+)(=~|!~|!=|=)"(.*?)"', matchers)
    )


async def test_each_counter_of_an_alert_begins_at_zero(tmp_path: Path) -> None:
    gone = refused_url()
    async with Provider(healthy) as provider:
        config = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
keys: [{{id: test, digest: "{DIGEST}"}}]
admin: {{digest: "{DIGEST}", store: "sqlite:{tmp_path}/keys", pepper: "0123456789abcdef0123456789abcdef"}}
limits: {{store: "shared:{tmp_path}/limits"}}
state: "sqlite:{tmp_path}/turns"
jwt: [{{issuer: "{gone}", audience: a, algorithms: [ES256], jwks_url: "{gone}/jwks", default_alias: chat}}]
upstreams: {{one: {{backend: openai, base_url: "{provider.url}", credentials: [{{name: a, api_key: b}}]}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
tracing: {{endpoint: "{gone}"}}
metrics: {{push: {{endpoint: "{gone}", every: 60s}}}}
records: [{{name: out, webhook: {{url: "{gone}/x"}}}}]
"""
        async with gateway(config) as running:
            shown = running.runtime.exposition().decode().splitlines()
    asked = [one for one in SELECTORS if one[0] not in ELSEWHERE]
    missing = [one for one in asked if not any(matches(line, *one) for line in shown)]
    assert missing == []
