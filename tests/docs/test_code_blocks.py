"""The code that the pages show: Python and JavaScript are run against a gateway, JSON and TOML are read.

Elsewhere: docs/plugins.md in tests/api/test_plugins_page.py and tests/e2e/test_dialect_example.py, docs/testing.md
in tests/testing/test_gateway.py, Python and HTML of docs/widget.md in tests/ui/test_widget_in_chromium.py.
"""

import json
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.conftest import GATEWAY
from tests.e2e.gateway_process import KEY, GatewayProcess

CLIENTS = ROOT / ".cache/clients-venv/bin/python"
MODULES = ROOT / ".cache/clients"
ELSEWHERE = {"docs/plugins.md", "docs/testing.md", "docs/widget.md", "docs/embedding.md"}
PYTHON = [block for block in blocks("python") if block.page not in ELSEWHERE]
JAVASCRIPT = blocks("js", "javascript")
ORIGIN = "https://shop.example.com"


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_toml(block: Block) -> None:
    tomllib.loads(block.text)


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_is_answered(block: Block, gateway: GatewayProcess) -> None:
    if not CLIENTS.exists():
        pytest.skip("the clients' own packages are not there: scripts/test_tools.sh")
    code = block.text.replace("http://127.0.0.1:8080", gateway.api).replace("sk-sluice-dev", KEY)
    environ = {"NO_PROXY": "*", "no_proxy": "*", "HOME": "/nonexistent"}
    done = subprocess.run(
        [CLIENTS, "-c", code], capture_output=True, text=True, check=False, timeout=100, env=environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()


async def test_the_application_of_the_page_on_embedding_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = [block for block in blocks("python") if block.page == "docs/embedding.md"]
    (tmp_path / "gateway.yaml").write_text(GATEWAY)
    monkeypatch.chdir(tmp_path)
    served: list[web.Application] = []
    monkeypatch.setattr(web, "run_app", lambda app, **_: served.append(app))
    exec(block.text, {})
    async with TestClient(TestServer(served[0])) as client:
        chat = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}
        answer = await client.post("/llm/v1/chat/completions", json=chat, headers={"x-api-key": KEY})
        assert (await answer.json())["choices"][0]["message"]["content"] == "You said: hi"
        for path in ("metrics", "readyz", "admin/keys"):
            answer = await client.get(f"/internal/{path}", headers={"x-admin-api-key": KEY})
            assert answer.status == 200, path


BEFORE: dict[str, Callable[[str], str]] = {
    "docs/ndjson.md": lambda api: (
        f'const token = "{KEY}", show = (text) => process.stdout.write(text), offerRetry = (after) => {{ throw after; }};\n'
    ),
    "docs/keys.md": lambda api: (
        f'const gateway = "{api}", window = {{ fetch: async (url, options) => {{\n'
        f'  const answer = await fetch(url, {{ ...options, headers: {{ ...options.headers, origin: "{ORIGIN}" }} }});\n'
        "  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);\n  return answer;\n} };\n"
    ),
    "docs/widget.md": lambda api: "",
}
"""What a page's code finds where it stands: a browser's `window`, functions of the application."""
AFTER = {
    "docs/keys.md": """
await renew();
const headers = { "content-type": "application/json" };
const said = await window.fetch(gateway + "/v1/chat", { method: "POST", headers, body: '{"sessionId": "s", "message": "hi"}' });
console.log((await said.json()).message);
process.exit();
""",
    "docs/widget.md": 'console.log("imported");',
}


@pytest.mark.parametrize("block", JAVASCRIPT, ids=str)
def test_javascript_is_answered(block: Block, gateway: GatewayProcess) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if '"openai"' in block.text and not (MODULES / "node_modules/openai").is_dir():
        pytest.skip("the clients' own packages are not there: scripts/test_tools.sh")
    code = block.text.replace("http://127.0.0.1:8080", gateway.api).replace("sk-sluice-dev", KEY)
    code = code.replace('"…"', f'"{minted(gateway)}"')
    code = BEFORE.get(block.page, lambda api: "")(gateway.api) + code + AFTER.get(block.page, "")
    place = MODULES if MODULES.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        (Path(folder) / "page.mjs").write_text(code)
        if "@sluice/" in code:
            (modules := Path(folder) / "node_modules/@sluice").mkdir(parents=True)
            (modules / "chat-widget").symlink_to(ROOT / "gateway/sluice/embed")
        done = subprocess.run(
            ["node", "page.mjs"], capture_output=True, text=True, check=False, timeout=60, cwd=folder,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "NO_PROXY": "*", "no_proxy": "*"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def minted(gateway: GatewayProcess) -> str:
    """A token as a server gets one for its page."""
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    body = json.dumps({"origin": ORIGIN}).encode()
    request = Request(gateway.api + "/v1/tokens", body, headers)
    with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
        found: dict[str, Any] = json.load(response)
    return str(found["token"])
