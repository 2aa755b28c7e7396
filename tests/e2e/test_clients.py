"""Other people's clients, unmodified, against a running gateway: each streams one chat, and exits with 0 if
all is well.

The scripts are ../shared/clients (its README says what each of them wants); `make test` installs what they
need into .cache. Where a script, its language or its library is absent the test skips and says which.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import corpus
from tests.e2e.gateway_process import DIGEST, KEY, ROOT, GatewayProcess, serving

SLOW = frozenset({"py_litellm", "py_langchain_openai", "py_openai_async_helper"})
"""Clients that take seconds of CPU to be imported, or are tested as SDKs: `make test-corpus` runs them."""
SCRIPTS = ROOT.parent / "shared" / "clients"
PYTHON = ROOT / ".cache" / "clients-venv" / "bin" / "python"
MODULES = ROOT / ".cache" / "clients"
# the llm command line sends this to servers of its extra-openai-models.yaml, whatever --key says
LLM_DIGEST = "sha256:88bc81329b106a602fc0080dac3602d172d9af553a30b53a55bc86ea03192d7d"  # of "DUMMY_KEY"
CONFIG = f"""
upstreams: {{ echo: {{ backend: echo, delay: 2ms }} }}
aliases: {{ echo: {{ tiers: [[{{ upstream: echo, model: echo-1 }}]] }} }}
keys:
  - {{ id: test, digest: "{DIGEST}", aliases: [echo] }}
  - {{ id: llm, digest: "{LLM_DIGEST}", aliases: [echo] }}
limits: {{ address: null }}
"""
PYTHON_CLIENTS = {
    "py_openai": "openai",
    "py_openai_async_helper": "openai",
    "py_langchain_openai": "langchain_openai",
    "py_litellm": "litellm",
    "py_httpx_raw": "httpx",
    "py_requests_ndjson": "requests",
}
NODE_CLIENTS = {
    "js_openai": "openai",
    "js_ai_sdk_compat": "@ai-sdk/openai-compatible",
    "js_ai_sdk_openai": "@ai-sdk/openai",
}

pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason=f"the clients' scripts are not here ({SCRIPTS})")


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with serving(CONFIG) as process:
        yield process


def run(gateway: GatewayProcess, *command: str | Path, path: Path | None = None) -> str:
    """The client's output. It is given nothing of our environment but what it asks for."""
    with tempfile.TemporaryDirectory() as home:
        env = {
            "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
            "HOME": home,
            "BASE_URL": gateway.api + "/v1",
            "URL": gateway.api + "/v1/chat/stream",
            "API_KEY": KEY,
            "MODEL": "echo",
            "PROMPT": "one two three",
            "NO_PROXY": "127.0.0.1",
        }
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL
        )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("client", PYTHON_CLIENTS)
def test_python_client(client: str, gateway: GatewayProcess) -> None:
    if client in SLOW and not corpus.EVERY:
        pytest.skip("make test-corpus runs this client")
    _needs_python(PYTHON_CLIENTS[client])
    assert "You said: one two three" in run(gateway, PYTHON, SCRIPTS / f"{client}.py")


def test_llm_command_line(gateway: GatewayProcess) -> None:
    _needs_python("llm")
    assert "You said: one two three" in run(gateway, "sh", SCRIPTS / "llm_cli.sh", path=PYTHON.parent)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(gateway: GatewayProcess) -> None:
    assert "You said: one two three" in run(gateway, "sh", SCRIPTS / "curl_sse.sh")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("client", NODE_CLIENTS)
def test_node_client(client: str, gateway: GatewayProcess) -> None:
    if not (MODULES / "node_modules" / NODE_CLIENTS[client]).is_dir():
        pytest.skip(
            f"the npm package {NODE_CLIENTS[client]} is not installed (see .cache/log/node-clients.log)"
        )
    # node looks for packages beside the script and above it
    with tempfile.TemporaryDirectory(dir=MODULES) as beside:
        script = shutil.copy(SCRIPTS / f"{client}.mjs", beside)
        assert "You said: one two three" in run(gateway, "node", script)


def _needs_python(module: str) -> None:
    if not any(PYTHON.parent.parent.glob(f"lib/python3*/site-packages/{module}")):
        pytest.skip(f"the Python package {module} is not installed (see .cache/log/python-clients.log)")
