"""Every command and configuration in the README and in docs/ is run or checked; what cannot be says why, and
is counted."""

import ast
import base64
import itertools
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import trustme
import yaml

from sluice.cli import cli
from sluice.config.loader import check
from sluice.config.vendors import bundled_vendors
from sluice.simulate.scenario import load_scenario
from tests.docs.blocks import BLOCKS, PAGES, ROOT, Block, blocks, blocks_of
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving

NOT_RUN = 4
"""Blocks that say why they are not run. Another one is a decision: change this number with it."""
CLIENTS = ROOT / ".cache/clients-venv/bin/python"
COMMANDS = re.compile(
    r"^(?:\$ )?(?:curl|sluice|make|docker|helm|kubectl|pip|npm|kill|export|systemctl) ", re.MULTILINE
)
MADE = {"make", "helm", "docker", "claude"}
"""Commands whose arguments are checked, but which are not run."""


def test_each_block_says_what_it_is_and_few_are_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    not_run = [block for block in BLOCKS if block.not_run is not None]
    with capsys.disabled():
        print(f"\nblocks in {len(PAGES)} pages: {len(BLOCKS)}, of these not run: {len(not_run)}")
    assert len(not_run) == NOT_RUN, [f"{block}: {block.not_run}" for block in not_run]
    assert {block.language for block in BLOCKS} <= {
        "",
        "sh",
        "yaml",
        "json",
        "toml",
        "python",
        "javascript",
        "js",
        "html",
    }
    assert [str(block) for block in BLOCKS if not block.language and COMMANDS.search(block.text)] == []


def test_no_fence_is_overlooked() -> None:
    for path in PAGES:
        assert len(re.findall(r"^\s*```", path.read_text(), re.MULTILINE)) == 2 * len(blocks_of(path)), path


# --- configurations


SCENARIOS = [block for block in blocks("yaml") if block.page == "docs/simulate.md"]


@pytest.mark.parametrize("block", SCENARIOS, ids=str)
def test_a_scenario_is_one(block: Block, tmp_path: Path) -> None:
    (file := tmp_path / "scenario.yaml").write_text(block.text)
    load_scenario(str(file))


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if block not in SCENARIOS], ids=str)
def test_a_configuration_passes_check(block: Block, tmp_path: Path) -> None:
    text = with_files(completed(block.text), tmp_path)
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    environ = {name: "sk-of-the-environment-0123456789abcdef" for name in re.findall(r"\$\{(\w+)[:}]", text)}
    environ |= {
        vendor.api_key_env: "sk-of-a-vendor" for vendor in bundled_vendors().values() if vendor.api_key_env
    }
    found = check(str(file), environ=environ)
    assert [str(problem) for problem in (*found.problems, *found.warnings)] == []


def completed(text: str) -> str:
    """The part of a configuration that a page shows, with the sections that it needs beside it."""
    numbers = itertools.count(1)
    text = re.sub("sha256:…", lambda _: f"sha256:{next(numbers):064x}", text)
    given: dict[str, Any] = yaml.safe_load(text)
    named = set(re.findall(r"\bupstream: ([\w-]+)", text))
    if "upstreams" not in given:
        sections = "".join(f"  {name}: {{ backend: echo }}\n" for name in sorted(named) or ["echo"])
        text += f"\nupstreams:\n{sections}"
    if "aliases" not in given:
        tiers = ", ".join(
            f"[{{ upstream: {name}, model: m }}]" for name in given.get("upstreams") or ["echo"]
        )
        names = {"chat", *itertools.chain.from_iterable(_aliases_of(key) for key in given.get("keys", ()))}
        text += "\naliases:\n" + "".join(f'  "{name}": {{ tiers: [{tiers}] }}\n' for name in sorted(names))
    if "keys" not in given and "jwt" not in given:
        text += f'\nkeys: [{{ id: docs, digest: "{DIGEST}" }}]\n'
    return text


def _aliases_of(key: dict[str, Any]) -> Iterator[str]:
    """The aliases that a key's section names."""
    yield from (name for name in key.get("aliases", ()) if name != "*")
    yield from key.get("limits", {}).get("aliases", ())
    if "default_alias" in key:
        yield key["default_alias"]


def with_files(text: str, folder: Path) -> str:
    """The same with files that are there, in place of those that a page names."""
    places = set(re.findall(r"/(?:etc|run|var)/[\w./-]+", text))
    if not places:
        return text
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    pair = authority.issue_cert("localhost")
    pair.private_key_and_cert_chain_pem.write_to_path(folder / "pair.pem")
    for place in sorted(places, key=len, reverse=True):
        made = folder / place[1:].replace("/", "-")
        if place.endswith((".pem", ".crt")):
            shutil.copy(folder / ("ca.pem" if "ca" in Path(place).name else "pair.pem"), made)
        elif place.endswith("tls.key"):
            pair.private_key_pem.write_to_path(made)
        elif place.endswith(".keys"):
            made.write_text(base64.b64encode(bytes(range(32))).decode())
        elif place.endswith(".json"):
            made.write_text(
                '{"type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r"}'
            )
        elif not place.endswith((".db", "spill", ".sock")):
            made.write_text("sk-of-a-file")
        text = text.replace(place, str(made))
    return text


# --- commands

GATEWAY = f"""
upstreams: {{ echo: {{ backend: echo }} }}
aliases:
  echo: {{ tiers: [[{{ upstream: echo, model: echo }}]] }}
  chat: {{ tiers: [[{{ upstream: echo, model: echo }}]] }}
  gpt-5: {{ tiers: [[{{ upstream: echo, model: gpt-5 }}]] }}
keys:
  - id: shop
    digest: "{DIGEST}"
    tenant: acme
    default_alias: echo
    origins: [https://shop.example.com]
    limits: {{ requests: {{ rate: 1000/s }}, budget: {{ month: 100 }} }}
tokens: {{ secret: page-secret-page-secret-page-secret }}
usage: {{ tags: {{ project: {{ header: x-project }}, feature: {{ metadata: feature }} }} }}
responses: {{ store: memory }}
admin: {{ digest: "{DIGEST}" }}
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with serving(GATEWAY) as running:
        yield running


def commands(block: Block) -> list[str]:
    """Whole commands, the lines of each joined; comments, and answers that a page shows below, are left
    out."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    return [line for line in joined.splitlines() if re.match(r"[A-Z_]+=|[a-z.]", line)]


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_a_command_is_run_or_is_one_with_its_options(block: Block, gateway: GatewayProcess) -> None:
    for line in commands(block):
        words = [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]
        match Path(words[0]).name if words else "export":
            case "curl":
                run_curl(line, gateway)
            case "sluice":
                assert_is_a_command(words[1:])
            case "make":
                assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), line
            case name:
                assert name in MADE | {"export", "cd", "git"}, (
                    f"{block}: {line}: run it, or say <!-- not run: why -->"
                )
        for word in words[1:]:
            if re.match(r"(?:deploy|config|scripts|bench)/", word):
                assert (ROOT / word).exists(), word


def run_curl(line: str, gateway: GatewayProcess) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    here = re.sub(r"(?:http://)?127\.0\.0\.1:8080", gateway.api, line)
    here = re.sub(r"(?:http://)?127\.0\.0\.1:8081", gateway.admin, here).replace("sk-sluice-dev", KEY)
    curl = "curl() { command curl --fail --noproxy '*' \"$@\"; }"
    script = f"set -e\n{curl}\nKEY={KEY} ADMIN={KEY} SLUICE_ADMIN_KEY={KEY}\n{here}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, (here, done.stderr, gateway.output()[-2000:])


def assert_is_a_command(words: list[str]) -> None:
    command: click.Command = cli
    while words and isinstance(command, click.Group) and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    assert not isinstance(command, click.Group), words
    options = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options | {"--help"}, words


# --- code


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_is_toml(block: Block) -> None:
    tomllib.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("block", blocks("js", "javascript"), ids=str)
def test_javascript_is_javascript(block: Block, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    (file := tmp_path / "block.mjs").write_text(block.text)
    done = subprocess.run(["node", "--check", file], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


SDKS = [block for block in blocks("python") if "http://127.0.0.1:8080" in block.text]


@pytest.mark.parametrize("block", SDKS, ids=str)
def test_code_of_the_sdks_is_answered(block: Block, gateway: GatewayProcess) -> None:
    if not CLIENTS.exists():
        pytest.skip("the clients' own packages are not there: scripts/test_tools.sh")
    code = block.text.replace("http://127.0.0.1:8080", gateway.api).replace("sk-sluice-dev", KEY)
    environ = {"NO_PROXY": "*", "no_proxy": "*", "HOME": "/nonexistent"}
    done = subprocess.run(
        [CLIENTS, "-c", code], capture_output=True, text=True, check=False, timeout=100, env=environ
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
