"""What the pages cost a process that serves them: memory, once all of them have been looked at."""

import json
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving

STATIC = Path(__file__).parents[2] / "gateway/sluice/ui/static"
CONFIG = f"""
keys: [{{id: test, digest: "{DIGEST}", default_alias: chat}}]
limits: {{address: null}}
upstreams: {{echo: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}
"""
CALLS = 1_100
"""More than the pages remember."""


def private_memory(pid: int) -> int:
    """Bytes of a process that no other shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def used(there: GatewayProcess, *, pages: bool) -> int:
    call = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True})
    headers = {"x-api-key": KEY, "x-admin-api-key": KEY, "content-type": "application/json"}
    clients = HTTPConnection(there.api.removeprefix("http://"), timeout=60)
    for _ in range(CALLS):
        clients.request("POST", "/v1/chat/completions", call, headers)
        clients.getresponse().read()
    operators = HTTPConnection(there.admin.removeprefix("http://"), timeout=60)
    shown = ("overview", "aliases", "tenants", "calls?limit=200", "config", "keys", "budgets")
    files = [f"/ui/{path.relative_to(STATIC)}" for path in STATIC.rglob("*.*")]
    for path in [*files, *(f"/admin/{name}" for name in shown)] if pages else []:
        operators.request("GET", path, headers=headers)
        response = operators.getresponse()
        response.read()
        assert response.status == 200, path
    return private_memory(there.process.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_pages_take_less_than_15_megabytes() -> None:
    found = []
    for ui in ("false", "true"):
        with serving(f"{CONFIG}admin: {{digest: '{DIGEST}', ui: {ui}}}\n") as there:
            found.append(used(there, pages=ui == "true"))
    without, with_pages = found
    assert with_pages - without < 15 << 20
