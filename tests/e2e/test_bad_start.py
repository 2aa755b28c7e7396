"""A gateway that cannot start says why in one line, and exits with 1."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.gateway_process import DIGEST, ROOT, free_port

CANARY = "c4n4ry"
RIGHT = f"""
server: {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}"}}
upstreams: {{echo: {{backend: echo}}}}
aliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}
keys: [{{id: test, digest: "{DIGEST}"}}]
"""


def start(folder: Path, text: str | None, **env: str) -> subprocess.CompletedProcess[str]:
    """`sluice serve`, which is to fail; killed if it has not after a while."""
    path = folder / "gateway.yaml"
    if text is not None:
        path.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "sluice", "serve", "--config", str(path)],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "API_PORT": str(free_port()),
            "ADMIN_PORT": str(free_port()),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert not [word for word in words if word not in line], line
    assert "Traceback" not in line
    assert CANARY not in line


WRONG: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "no file": (None, ("gateway.yaml", "no such file")),
    "unknown key": (RIGHT + "limitz: {store: memory}\n", ("gateway.yaml:6:1", "limitz", "limits")),
    "unknown key within": (
        RIGHT.replace("tiers:", "histroy: {}, tiers:"),
        ("gateway.yaml:4:", "aliases.chat", "history"),
    ),
    "a sink's directory that cannot be": (
        RIGHT + "records: [{name: hook, webhook: {url: 'http://127.0.0.1:9/'}, spill: /dev/null/spill}]\n",
        ("the sink hook of call records", "/dev/null/spill"),
    ),
    "a sink's file that cannot be": (
        RIGHT + "records: [{name: archive, file: {path: /dev/null/calls}}]\n",
        ("the sink archive of call records", "/dev/null/calls"),
    ),
    "not YAML": (RIGHT + "log: [unclosed\n", ("gateway.yaml:",)),
    "a tab": (RIGHT + "log:\n\tlevel: info\n", ("gateway.yaml:7:1",)),
    "a list": ("- x\n", ("gateway.yaml:1:1",)),
    "doubled key": (RIGHT + "upstreams: {}\n", ("gateway.yaml:6:1", "upstreams")),
    "missing variable": (
        RIGHT + 'limits: {store: "${NOT_SET_ANYWHERE}"}\n',
        ("gateway.yaml:6:", "NOT_SET_ANYWHERE"),
    ),
    "missing file": (RIGHT + 'limits: {store: "${file:/nowhere/x}"}\n', ("gateway.yaml:6:", "/nowhere/x")),
    "unknown backend": (RIGHT.replace("backend: echo", "backend: ecko"), ("gateway.yaml:3:", "ecko", "echo")),
    "unknown upstream": (
        RIGHT.replace("upstream: echo", "upstream: ecko"),
        ("gateway.yaml:4:", "ecko", "echo"),
    ),
    "wrong type": (
        RIGHT.replace("server: {", "server: {body_limit: many, "),
        ("gateway.yaml:2:", "server.body_limit"),
    ),
    "key instead of a digest": (
        RIGHT.replace(DIGEST, f"sk-sluice-{CANARY}"),
        ("gateway.yaml:5:", "keys[0].digest"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_configuration_is_one_line_and_exit_1(case: str, tmp_path: Path) -> None:
    text, words = WRONG[case]
    one_line(start(tmp_path, text, SECRET=CANARY), *words)


@pytest.mark.parametrize("taken", ["API_PORT", "ADMIN_PORT"])
def test_a_port_in_use_is_one_line_and_exit_1(taken: str, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        option = {"API_PORT": "server.listen", "ADMIN_PORT": "server.admin_listen"}[taken]
        one_line(start(tmp_path, RIGHT, **{taken: port}), port, option, "in use")
