"""Running an SDK's driver (`drivers/`): one process over all asks, in the environment that
scripts/test_tools.sh made."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import corpus

ROOT = Path(__file__).resolve().parent.parent.parent
DRIVERS = Path(__file__).resolve().parent / "drivers"
PYTHON = ROOT / ".cache" / "clients-venv" / "bin" / "python"
MODULES = ROOT / ".cache" / "clients"

PACKAGES = {
    "py_openai": "openai",
    "py_openai_helper": "openai",
    "py_openai_responses": "openai",
    "py_langchain": "langchain_openai",
    "py_langchain_responses": "langchain_openai",
    "py_anthropic": "anthropic",
    "py_anthropic_whole": "anthropic",
    "py_genai": "google/genai",
    "py_ollama": "ollama",
    "py_vertex": "google/genai",
    "js_openai": "openai",
    "js_openai_helper": "openai",
    "js_openai_responses": "openai",
    "js_anthropic": "@anthropic-ai/sdk",
    "js_ai_sdk_compat": "@ai-sdk/openai-compatible",
    "js_ai_sdk_openai": "@ai-sdk/openai",
    "js_ai_sdk_anthropic": "@ai-sdk/anthropic",
}
"""What each driver needs."""


class Ask(msgspec.Struct, frozen=True):
    """One call of the SDK. `body` holds model, messages and what else it shall send."""

    name: str
    base_url: str
    key: str
    body: dict[str, Any]


class Failure(msgspec.Struct, frozen=True):
    """An error as the SDK describes it. `status` is null where it came inside a 200."""

    name: str = msgspec.field(name="class")
    status: int | None = None
    code: Any = None
    message: str = ""


class Shown(msgspec.Struct):
    """What the SDK shows of an answer. `calls` are pairs of name and arguments, `usage` the input and output
    tokens."""

    name: str
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, Any]] = []
    finish: str | int | None = None
    usage: tuple[int | None, int | None] | None = None
    error: Failure | None = None


CORE = frozenset({
    "py_openai", "py_openai_responses", "py_anthropic", "py_anthropic_whole", "py_genai", "py_ollama", "js_ai_sdk_openai",
})  # fmt: skip
"""One SDK for each dialect, and the most used one of JavaScript; `make test-corpus` runs the others, too."""


def need(driver: str) -> None:
    """Skip the test, with the reason, where the driver is for `make test-corpus`, or its language or library is
    not installed."""
    package = PACKAGES[driver]
    if driver not in CORE and not corpus.EVERY:
        pytest.skip("make test-corpus runs this SDK")
    if driver.startswith("py_"):
        if not any(PYTHON.parent.parent.glob(f"lib/python3*/site-packages/{package}")):
            pytest.skip(f"the Python package {package} is not installed (see .cache/log/python-clients.log)")
    elif shutil.which("node") is None:
        pytest.skip("node is not installed")
    elif not (MODULES / "node_modules" / package).is_dir():
        pytest.skip(f"the npm package {package} is not installed (see .cache/log/node-clients.log)")


async def printed(script: str, *given: object) -> Any:
    """What a short Python script writes to its output, as JSON, where the Python SDKs are installed; it reads
    `given` as a list of JSON. The process is given nothing of our environment."""
    process = await asyncio.create_subprocess_exec(
        str(PYTHON),
        "-c",
        script,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"NO_PROXY": "127.0.0.1"},
    )
    out, _ = await process.communicate(json.dumps(given).encode())
    return json.loads(out)


async def answers(driver: str, asks: Sequence[Ask]) -> dict[str, Shown]:
    """What the SDK shows for each ask, by the ask's name. The process is given nothing of our environment."""
    with tempfile.TemporaryDirectory(dir=MODULES if driver.startswith("js_") else None) as home:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": home,
            "NO_PROXY": "127.0.0.1",
            "LANGSMITH_TRACING": "false",
        }
        if driver.startswith("js_"):  # node looks for packages beside the script and above it
            shutil.copytree(DRIVERS, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            command = ["node", f"{home}/{driver}.mjs"]
        else:
            command = [str(PYTHON), "-B", str(DRIVERS / f"{driver}.py")]
        process = await asyncio.create_subprocess_exec(
            *command,
            env=env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        try:
            out, err = await process.communicate(msgspec.json.encode(asks))
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 0, f"{driver} ended with {process.returncode}:\n{err.decode()[-4000:]}"
    # json, as msgspec refuses the half of a surrogate pair that an SDK may show
    shown = [msgspec.convert(json.loads(line), Shown) for line in out.splitlines()]
    assert len(shown) == len(asks)
    return {answer.name: answer for answer in shown}
