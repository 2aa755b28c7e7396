"""A real Prometheus that scrapes a gateway each second, with our rules or with others."""

import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from tests.servers import free_port

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "rules.yaml"
PROMETHEUS = shutil.which("prometheus")
PATIENCE = 90.0
OPEN = build_opener(ProxyHandler({})).open


@contextmanager
def prometheus(target: str, *features: str, rules: str | None = None) -> Iterator[str]:
    """A Prometheus with these features that scrapes `target` each second; its address. `rules`: in place of
    ours."""
    assert PROMETHEUS is not None
    with tempfile.TemporaryDirectory() as folder:
        file = RULES
        if rules is not None:
            file = Path(folder) / "rules.yaml"
            file.write_text(rules)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(file)],
            "scrape_configs": [{"job_name": "sluice", "static_configs": [{"targets": [target]}]}],
        }
        settings = Path(folder) / "prometheus.yml"
        settings.write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{free_port()}"
        command = [PROMETHEUS, f"--config.file={settings}", f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address={address}"]
        command += [f"--enable-feature={','.join(features)}"] if features else []
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(30)


def quick_rules() -> str:
    """Ours, without the minutes. What depends on how busy this machine is keeps them."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "for" in rule and group["name"] != "sluice-process":
                rule["for"] = "1s"
    return yaml.safe_dump(rules)


def filled(expr: str, window: str) -> str:
    """A panel's expression as Grafana sends it, with all aliases and upstreams chosen. `window`: a rate's."""
    return re.sub(r"\$(alias|upstream)\b", ".*", expr.replace("$__rate_interval", window))


def ask(server: str, expr: str) -> list[dict[str, Any]]:
    """What an instant query gives. Raises OSError where the server does not take it (HTTPError) or is not up
    yet."""
    with OPEN(f"{server}/api/v1/query?{urlencode({'query': expr})}", timeout=30) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


def ask_range(server: str, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
    """What a query gives in each `step` of this time, in seconds. Raises OSError."""
    query = urlencode({"query": expr, "start": start, "end": end, "step": step})
    with OPEN(f"{server}/api/v1/query_range?{query}", timeout=60) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


def wait_for(server: str, expr: str) -> list[dict[str, Any]]:
    """The first result of a query that gives any."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            if found := ask(server, expr):
                return found
        except OSError:
            pass
        time.sleep(0.1)  # another program's clock: there is nothing to wait on
    raise AssertionError(f"nothing for {expr}")
