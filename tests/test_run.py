"""`make run`: another port by PORT, and a line that says what to do where one is taken."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.e2e.gateway_process import free_port

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "run.sh"

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv/bin/sluice").exists(), reason="no .venv (make dev makes it)"
)


def run(**env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [SCRIPT],
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("taken", ["PORT", "ADMIN_PORT"])
def test_a_port_that_is_taken_is_one_line_that_says_how_to_have_another(taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        ports = {"PORT": str(free_port()), "ADMIN_PORT": str(free_port()), taken: str(other.getsockname()[1])}
        done = run(**ports)
        output, errors = done.communicate(timeout=60)
    assert done.returncode == 1
    assert output == ""
    [line] = errors.splitlines()
    assert ports[taken] in line
    assert "make run PORT=" in line


@pytest.mark.parametrize("port", ["no", "0", "70000", "-1", "80 80"])
def test_what_is_no_port_is_said(port: str) -> None:
    done = run(PORT=port)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 2
    assert "PORT=8090" in errors


def test_it_shows_calls_on_the_port_that_was_asked_for() -> None:
    port = str(free_port())
    process = run(PORT=port, ADMIN_PORT=str(free_port()))
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if f"http://127.0.0.1:{port}/v1/chat/completions" in line:
            break
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0, seen
    assert any(f"http://127.0.0.1:{port}/v1/chat/stream" in line for line in seen)
