"""The README's configuration and commands can be used as they stand."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sluice.config.loader import check
from tests.config.test_values import bundled
from tests.e2e.gateway_process import DIGEST, KEY, serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ENVIRON = {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x"}


def blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


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
