"""The README's configuration and commands can be used as they stand."""

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from sluice.cli import cli
from sluice.config.loader import check
from tests.api.serving import shapes
from tests.config.test_values import bundled
from tests.e2e.gateway_process import DIGEST, KEY, serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ENVIRON = {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x"}


def blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def problems(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("sha256:…", "sha256:" + "0" * 64))
    return [
        str(problem) for problem in check(str(path), environ=ENVIRON, find=bundled().__getitem__).problems
    ]


def test_the_real_provider_configuration_is_good(tmp_path: Path) -> None:
    assert problems(blocks()[0], tmp_path) == []


def test_the_routing_example_fits_into_it(tmp_path: Path) -> None:
    real = blocks()[0]
    head, _, tail = real.partition("aliases:")
    assert problems(head + blocks()[1] + tail[tail.index("\nkeys:") :], tmp_path) == []


def test_the_limits_fit_into_it_too(tmp_path: Path) -> None:
    upstreams = blocks()[0].partition("\naliases:")[0]
    assert problems(upstreams + "\n" + blocks()[2], tmp_path) == []


def test_the_issuers_fit_into_it_too(tmp_path: Path) -> None:
    assert problems(blocks()[0] + blocks()[3], tmp_path) == []


async def test_every_route_stands_among_the_endpoints() -> None:
    told = section("Endpoints")
    clients, operators = await shapes()
    assert [path for path in (*clients, *operators) if path.partition("/*")[0] not in told] == []


def test_every_command_is_one_with_its_options() -> None:
    for line in re.findall(r"`sluice ([^`]+)`", section("Commands")):
        command: click.Command = cli
        names = re.findall(r"^[a-z ]*[a-z]", line)[0].split()
        for name in names:
            assert isinstance(command, click.Group)
            command = command.commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options, line


GATEWAY = f"""
upstreams: {{ echo: {{ backend: echo }} }}
aliases: {{ echo: {{ tiers: [[{{ upstream: echo, model: echo }}]] }} }}
keys: [{{ id: shop, digest: "{DIGEST}", default_alias: echo, origins: [https://shop.example.com] }}]
tokens: {{ secret: page-secret-page-secret-page-secret }}
admin: {{ digest: "{DIGEST}" }}
"""


def test_its_curl_lines_are_answered(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    commands = [
        block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if block.startswith("curl")
    ]
    assert len(commands) == 5
    with serving(GATEWAY) as running:
        for command in commands:
            here = command.replace("http://127.0.0.1:8080", "127.0.0.1:8080").replace("sk-sluice-dev", KEY)
            here = here.replace("127.0.0.1:8080", running.api).replace("127.0.0.1:8081", running.admin)
            script = f"set -e\ncurl() {{ command curl --fail --noproxy '*' \"$@\"; }}\nKEY={KEY} ADMIN={KEY}\n{here}"
            done = subprocess.run(
                ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=20
            )
            assert done.returncode == 0, (here, done.stderr)
            assert done.stdout, here
