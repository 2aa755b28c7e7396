"""Rules and dashboards: they name what there is, fire when they should, and a real Prometheus answers each of
their queries."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request

import pytest
import yaml

from sluice.telemetry.table import TABLE
from tests.deploy.prometheus_server import OPEN, PATIENCE, PROMETHEUS, ask, filled, prometheus, wait_for
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: dict[str, Any] = yaml.safe_load((FOLDER / "rules.yaml").read_text())
ALL = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule["alert"] for rule in ALL if "alert" in rule]
EXPORTED = {f"sluice_{name}{'_total' if spec.kind == 'counter' else ''}" for name, spec in TABLE.items()}
PROMTOOL = shutil.which("promtool")
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))

GATEWAY = f"""
upstreams: {{ echo: {{ backend: echo }}, gone: {{ backend: openai, base_url: "http://127.0.0.1:9/v1" }} }}
aliases:
  echo: {{ tiers: [[{{ upstream: echo, model: echo }}]] }}
  gone: {{ tiers: [[{{ upstream: gone, model: m }}]] }}
keys: [{{ id: test, digest: "{DIGEST}", limits: {{ requests: {{ rate: 1000/s }} }} }}]
"""


def queries() -> Iterator[tuple[str, str]]:
    """Every expression of every rule and panel, by a name."""
    for rule in ALL:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.stem}: {panel['title']} {target['refId']}", target["expr"]


@pytest.mark.parametrize(("name", "expr"), list(queries()))
def test_a_query_names_metrics_that_there_are(name: str, expr: str) -> None:
    named = {re.sub(r"_(bucket|count|sum)$", "", metric) for metric in re.findall(r"\bsluice_\w+", expr)}
    assert named <= EXPORTED
    recorded = {rule["record"] for rule in ALL if "record" in rule}
    assert set(re.findall(r"\bsluice:[\w:]+", expr)) <= recorded


def test_every_alert_has_a_section_in_the_runbooks_and_a_test() -> None:
    sections = re.findall(r"^## (Sluice\w+)$", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)
    tests = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == set(ALERTS)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize("command", [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")])
def test_promtool_takes_the_rules_and_their_tests(command: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *command], cwd=FOLDER, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboards_are_those_of_the_script() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import dashboards
    finally:
        sys.path.pop(0)
    assert {file.stem for file in DASHBOARDS} == set(dashboards.DASHBOARDS)
    for file in DASHBOARDS:
        assert file.read_text() == dashboards.text(file.stem), "python scripts/dashboards.py"


# --- a real one


def call(gateway: GatewayProcess, alias: str) -> None:
    body = {"model": alias, "stream": True, "messages": [{"role": "user", "content": "one two three"}]}
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = Request(f"{gateway.api}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        OPEN(request, timeout=30).read()
    except OSError:
        assert alias == "gone"


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
def test_a_real_prometheus_answers_every_query_and_sees_what_happened() -> None:
    with serving(GATEWAY) as gateway, prometheus(gateway.admin.removeprefix("http://")) as server:
        call(gateway, "echo")  # a series begins with what it has first: a rate is of what comes later
        wait_for(server, 'sluice_time_to_first_token_seconds_count{alias="echo"} == 1')
        for alias in ("echo", "gone") * 5:
            call(gateway, alias)
        wait_for(server, 'increase(sluice_requests_total{alias="gone",code="5xx"}[1m]) > 0')
        for name, expr in queries():
            try:
                ask(server, filled(expr, "1m"))
            except OSError as error:
                raise AssertionError(f"{name}: {expr}") from error
        (bad,) = wait_for(server, 'sluice:bad_calls:ratio_rate5m{alias="gone"} > 0.99')
        assert bad["metric"]["alias"] == "gone"
        assert wait_for(server, 'sum(sluice_requests_total{alias="echo",code="2xx"})')[0]["value"][1] == "6"
        wait_for(server, 'sluice:first_token_seconds:p95_5m{alias="echo"} >= 0')
        wait_for(server, 'ALERTS{alertname="SluiceAliasDown",alias="gone"}')


TRACED = """
tracing: { endpoint: "http://127.0.0.1:9" }
"""
WORKERS = """
server:
  { listen: "127.0.0.1:${API_PORT}", admin_listen: "127.0.0.1:${ADMIN_PORT}", drain_delay: 0s, workers: 3 }
"""


def exemplars(server: str, expr: str) -> list[dict[str, Any]]:
    """Those of the last hour, as soon as there are any."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        now = time.time()
        asked = urlencode({"query": expr, "start": now - 3600, "end": now + 60})
        with OPEN(f"{server}/api/v1/query_exemplars?{asked}", timeout=30) as answer:
            found = [one for series in json.load(answer)["data"] for one in series["exemplars"]]
        if found:
            return found
        time.sleep(0.1)  # another program's clock: there is nothing to wait on
    raise AssertionError(f"no exemplars for {expr}")


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
def test_a_real_prometheus_finds_the_traces_of_slow_buckets() -> None:
    name = "sluice_time_to_first_token_seconds"
    with (
        serving(GATEWAY + TRACED) as gateway,
        prometheus(gateway.admin.removeprefix("http://"), "exemplar-storage") as server,
    ):
        call(gateway, "echo")
        wait_for(server, f'{name}_count{{alias="echo"}} == 1')
        [found] = exemplars(server, f"{name}_bucket")
        [line] = gateway.records("request")
        assert found["labels"] == {"trace_id": line["trace_id"]}
        assert float(found["value"]) == pytest.approx(line["ttft"], abs=1e-5)


@pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
@pytest.mark.parametrize("workers", ["", WORKERS], ids=["one process", "three workers"])
def test_a_real_prometheus_reads_native_histograms(workers: str) -> None:
    name = "sluice_time_to_first_token_seconds"
    features = ("native-histograms", "exemplar-storage")
    with (
        serving(workers + GATEWAY + TRACED) as gateway,
        prometheus(gateway.admin.removeprefix("http://"), *features) as server,
    ):
        for _ in range(5):
            call(gateway, "echo")
        wait_for(
            server, f'histogram_count({name}{{alias="echo"}}) == 5'
        )  # counted before anybody asked for native ones
        for _ in range(10):
            call(gateway, "echo")
        wait_for(server, f'histogram_count({name}{{alias="echo"}}) == 15')
        [total] = wait_for(server, f'histogram_sum({name}{{alias="echo"}})')
        lines = gateway.records("request")
        assert float(total["value"][1]) == pytest.approx(sum(line["ttft"] for line in lines), abs=1e-3)
        [median] = wait_for(server, f'histogram_quantile(0.5, {name}{{alias="echo"}})')
        assert float(median["value"][1]) <= 2 * max(line["ttft"] for line in lines)
        wait_for(server, 'sum(sluice_requests_total{alias="echo",code="2xx"}) == 15')
        wait_for(server, "process_resident_memory_bytes > 1e6")
        traces = {one["labels"]["trace_id"] for one in exemplars(server, name)}
        assert traces <= {line["trace_id"] for line in lines}
