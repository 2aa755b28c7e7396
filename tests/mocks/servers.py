"""Providers that others mocked, each a process of its own on a free loopback port, with the rules of
`rules/`.

They are installed by scripts/test_tools.sh into .cache, at the versions of package-lock.json and
scripts/locks/mocks.lock.
"""

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import STARTS, free_port

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache"
MODULES = CACHE / "mocks" / "node_modules"
SCRIPTS = CACHE / "mocks-venv" / "bin"
LISTENS = re.compile(r"listening on http|running on http|server running on|\* Running on", re.IGNORECASE)

Command = Callable[[int], Sequence[str]]


def rules_of(name: str) -> Path:
    """The file of a mock's rules."""
    [found] = (HERE / "rules").glob(f"{name}.*")
    return found


def _rules(name: str) -> str:
    return str(rules_of(name))


def _node(script: str, *arguments: str) -> list[str]:
    return ["node", str(MODULES / script), *arguments]


COMMANDS: Mapping[str, Command] = {
    "aimock": lambda port: _node("@copilotkit/aimock/dist/cli.js", "-p", f"{port}", "-f", _rules("aimock")),
    "mock-llm": lambda port: _node("@dwmkerr/mock-llm/dist/main.js", "--config", _rules("mock-llm")),
    "llmock": lambda port: [str(SCRIPTS / "llmock"), "serve", "--host", "127.0.0.1", "--port", f"{port}"],
    "stubllm": lambda port: [
        str(SCRIPTS / "stubllm"), "serve", "--port", f"{port}", "--fixture-file", _rules("stubllm"),
    ],
    "fakellm": lambda port: [
        str(SCRIPTS / "fakellm"), "serve", "--port", f"{port}", "--config", _rules("fakellm"),
    ],
    "llm-mock-api": lambda port: [
        str(SCRIPTS / "llm-mock-api"), "start", "-p", f"{port}", "-r", _rules("llm-mock-api"), "--log-level", "info",
    ],
    "moto": lambda port: [str(SCRIPTS / "moto_server"), "-H", "127.0.0.1", "-p", f"{port}"],
}  # fmt: skip


@contextmanager
def mock(name: str) -> Iterator[str]:
    """Its URL, while it runs. Skips the test where it is not installed."""
    command = COMMANDS[name]
    program = Path(next(part for part in command(0) if "/" in part))
    if not program.exists():
        pytest.skip(f"no {name} (make test fetches it into .cache)")
    for _ in range(STARTS):
        port = free_port()
        process = _started(command(port), port)
        if process is not None:
            break
    else:
        raise RuntimeError(f"{name} did not start")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _started(command: Sequence[str], port: int) -> "subprocess.Popen[str] | None":
    env = {
        **os.environ,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "NO_COLOR": "1",
    }
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    for line in process.stdout:
        if LISTENS.search(line):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return process
    process.kill()
    process.wait()
    return None
