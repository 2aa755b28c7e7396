"""What alerts and panels count is there at zero from the start, where a single event is to be seen: an increase sees a
first event only where there was a zero before it."""

import json
import re
from pathlib import Path

import yaml

from tests.e2e.gateways import DIGEST, gateway
from tests.fakes.faulty import Provider, healthy
from tests.fakes.rawserver import refused_url

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())
DASHBOARDS = [json.loads(file.read_text()) for file in (DEPLOY / "grafana").glob("*.json")]
COUNTED = re.compile(r"\bincrease\((sluice_\w+_total)(?:\{(.*?)\})?\[")
EXPRESSIONS = [
    *[rule["expr"] for group in RULES["groups"] for rule in group["rules"]],
    *[query["expr"] for board in DASHBOARDS for panel in board["panels"] for query in panel["targets"]],
]
CHOICE = re.compile(r'=~"(\w+(?:\|\w+)+)"')
ELSEWHERE = {
    "sluice_worker_restarts_total", "sluice_budget_soft_total", "sluice_jwks_fetches_total", "sluice_cost_usd_total",
}  # fmt: skip
"""The supervisor's; at zero from the first call that such a budget holds for; counted again with each fetch;
grows with each call."""


def selectors() -> set[tuple[str, str]]:
    """(metric, its matchers) whose increase is asked for, each of `a|b` apart. Good outcomes are only compared
    with."""
    found = {one for expr in EXPRESSIONS for one in COUNTED.findall(expr.replace("$upstream", ".*"))}
    return {
        (name, CHOICE.sub(f'="{value}"', matchers))
        for name, matchers in found
        if name not in ELSEWHERE and matchers != 'outcome="ok"'
        for value in "".join(CHOICE.findall(matchers)).split("|")
    }


def matches(line: str, name: str, matchers: str) -> bool:
    found = re.fullmatch(name + r"(?:\{(.*)\})? 0\.0", line)
    labels = dict(re.findall(r'(\w+)="(.*?)"', (found[1] or "") if found else ""))
    return found is not None and all(
        (re.fullmatch(value, labels.get(label, "")) is not None) is not how.startswith("!")
        for label, how, value in re.findall(r'(\w+)(=~|!~|!=|=)"(.*?)"', matchers)
    )


async def test_each_counter_of_an_alert_or_panel_begins_at_zero(tmp_path: Path) -> None:
    gone = refused_url()
    async with Provider(healthy) as provider:
        config = f"""
server: {{listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0", drain_delay: 0}}
keys: [{{id: test, digest: "{DIGEST}"}}]
admin: {{digest: "{DIGEST}", store: "sqlite:{tmp_path}/keys", pepper: "0123456789abcdef0123456789abcdef"}}
limits: {{store: "shared:{tmp_path}/limits"}}
state: "sqlite:{tmp_path}/turns"
jwt: [{{issuer: "{gone}", audience: a, algorithms: [ES256], jwks_url: "{gone}/jwks", default_alias: chat}}]
upstreams:
  one: {{backend: openai, base_url: "{provider.url}", credentials: [{{name: a, api_key: b}}, {{name: c, api_key: d}}]}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
tracing: {{endpoint: "{gone}"}}
metrics: {{push: {{endpoint: "{gone}", every: 60s}}}}
records: [{{name: out, webhook: {{url: "{gone}/x"}}}}]
"""
        async with gateway(config) as running:
            shown = running.runtime.exposition().decode().splitlines()
    missing = [one for one in sorted(selectors()) if not any(matches(line, *one) for line in shown)]
    assert missing == []
