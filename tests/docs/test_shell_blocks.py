"""Every command that the pages show is run: curl in a shell, `sluice` in this process. ELSEWHERE has the few that
are not, and where they are. The quick start has a file of its own, test_quickstart.py."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

import click
import pytest
import yaml
from click.testing import CliRunner

from sluice.cli import cli
from sluice.commands import models
from sluice.config.rule_file import bundled_place
from tests.docs.blocks import BLOCKS, PAGES, ROOT, Block, blocks
from tests.docs.conftest import GATEWAY
from tests.docs.test_blocks import completed
from tests.e2e.gateway_process import KEY, GatewayProcess, serving

ELSEWHERE = {
    "make run": "tests/test_run.py",
    "make test": "scripts/test_tools.sh",  # it is what runs this
    "make image": "tests/deploy/test_image.py",
    "docker build": "tests/deploy/test_image.py",  # the same Dockerfile by buildah: no Docker daemon here
    "docker compose": "tests/deploy/test_files.py",  # the file is checked: no Docker daemon here
    "helm install": "tests/deploy/test_pods.py",
    "helm test": "tests/deploy/test_pods.py",
    "claude": "tests/clients/run.py",
}
"""Commands that are not run here: where they, or what they rest on, are."""
NEVER_ENDING = "/admin/overview/live"
SHORT = ("--for", "2s")
"""What each simulation is given in addition: an hour of arrivals says no more about the command."""
COMMANDS = [block for block in blocks("sh") if block.page != "docs/quickstart.md"]


def lines_of(block: Block) -> list[str]:
    """Whole commands, the lines of each joined; comments, and answers that a page shows below, are left
    out."""
    joined = re.sub(r"\\\n\s*", "", block.text)
    return [line for line in joined.splitlines() if re.match(r"[A-Z_]+=|[a-z.]", line)]


def words_of(line: str) -> list[str]:
    """The command and its arguments, without comments and the variables before it."""
    return [word for word in shlex.split(line, comments=True) if not re.match(r"[A-Z_]+=", word)]


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_a_command_does_what_its_page_says(
    block: Block, gateway: GatewayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(block, tmp_path, monkeypatch)
    printed = "".join(run(block, line, gateway, tmp_path) for line in lines_of(block))
    if (shown := output_of(block)) is not None:
        assert_shows(shown, printed)


def run(block: Block, line: str, gateway: GatewayProcess, folder: Path) -> str:
    """Returns what the command prints. Fails where it does."""
    words = words_of(line)
    match [Path(words[0]).name, *words[1:]] if words else ["export"]:
        case ["curl", *_]:
            return run_curl(line, gateway)
        case ["sluice", "serve", "--config", name, *rest]:
            with serving((folder / name).read_text(), cwd=folder, shell=f'exec "$@" {shlex.join(rest)}'):
                return ""
        case ["sluice", *arguments] | ["docker", "run", "--rm", "sluice-gateway", *arguments]:
            return run_sluice([word.replace("/etc/sluice", str(folder)) for word in arguments], gateway)
        case ["export"]:
            return ""
        case [name, *rest]:
            assert {name, f"{name} {rest[0] if rest else ''}"} & {*ELSEWHERE}, (
                f"{block}: {line}: run it, or say in ELSEWHERE where it is"
            )
            for word in rest:
                if re.match(r"(?:deploy|config|scripts|bench)/", word):
                    assert (ROOT / word).exists(), word
            if name == "make":
                assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), line
    return ""


def run_curl(line: str, gateway: GatewayProcess) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    here = re.sub(r"(?:http://)?127\.0\.0\.1:8080", gateway.api, line)
    here = re.sub(r"(?:http://)?127\.0\.0\.1:8081", gateway.admin, here).replace("sk-sluice-dev", KEY)
    here = here.replace('"demo"', f'"{uuid4()}"')  # a conversation begins
    ending = " | head -n 2 | grep ." if NEVER_ENDING in line else ""
    curl = "curl() { command curl --fail --noproxy '*' \"$@\"; }"
    script = f"set -e\n{curl}\nKEY={KEY} ADMIN={KEY} SLUICE_ADMIN_KEY={KEY}\n{here}{ending}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (here, done.stderr, gateway.output()[-2000:])
    assert done.stdout or "/export" in line, here
    return done.stdout


def run_sluice(words: list[str], gateway: GatewayProcess) -> str:
    """Of a command that asks a running gateway the test's is asked, wherever its page says it listens."""
    command = command_of(words)
    if any("--url" in parameter.opts for parameter in command.params) and "--url" not in words:
        words = [*words, "--url", gateway.admin]
    if words[0] == "simulate":
        words = [*words, *SHORT]
    done = CliRunner().invoke(cli, words, env={"SLUICE_ADMIN_KEY": KEY, "SLUICE_API_KEY": KEY})
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.output


def command_of(words: list[str]) -> click.Command:
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group) or word not in command.commands:
            break
        command = command.commands[word]
    return command


# --- what the pages say is there


def prepare(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that commands name stand in the folder that they run in, which has none but these."""
    monkeypatch.chdir(folder)
    for name in ("SLUICE_CONFIG", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LITELLM_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)
    configured = [one.text for one in blocks("yaml") if one.page == block.page]
    usual = completed(configured[0]) if configured and "serve" in block.text else GATEWAY
    for name in re.findall(r"\$\{(\w+)[:}]", usual):
        monkeypatch.setenv(name, "sk-of-the-environment")
    places = {
        "gateway.yaml": usual,
        "old.yaml": GATEWAY,
        "new.yaml": GATEWAY,
        "config.yaml": (ROOT / "tests/docs/litellm.yaml").read_text(),
        "models.yaml": bundled_place().read_text(),
        "calls.ndjson": RECORD + "\n",
        "azure.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n",
    }
    for name, text in places.items():
        (folder / name).write_text(text)
    (folder / "config").symlink_to(ROOT / "config")
    (table := folder / "the-packages-own.yaml").write_text(bundled_place().read_text())
    monkeypatch.setattr(models, "bundled_place", lambda: table)


RECORD = json.dumps(
    {"record": "call", "timestamp": "2026-11-30T12:00:00Z", "alias": "chat", "duration": 1.5, "tokens_in": 9}
)


def output_of(block: Block) -> str | None:
    """What stands right below the block, in a block of its own that has no language."""
    following = BLOCKS[BLOCKS.index(block) + 1 :]
    text = (ROOT / block.page).read_text().splitlines()
    end = block.line + block.text.count("\n")
    return next(
        (
            one.text
            for one in following
            if one.page == block.page and not one.language and not "".join(text[end : one.line - 2]).strip()
        ),
        None,
    )


def assert_shows(shown: str, printed: str) -> None:
    """`…` stands for anything."""
    pattern = re.escape(shown.strip()).replace("…", ".*")
    assert re.search(pattern, printed, re.DOTALL), printed


# --- answers and routes in blocks without a language


def test_each_output_is_compared_or_is_a_picture() -> None:
    compared = {output_of(block) for block in COMMANDS}
    others = [block for block in BLOCKS if not block.language and block.text not in compared]
    assert {block.page for block in others} == {"docs/architecture.md", "docs/keys.md", "docs/operations.md"}


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.page == "docs/keys.md" and not block.language], ids=str
)
def test_the_routes_that_a_page_lists_answer_in_their_order(block: Block, gateway: GatewayProcess) -> None:
    key = KEY
    for line in block.text.splitlines():
        method, path, body = re.fullmatch(r"([A-Z]+) +(/\S+) *(\{.*?\})?.*", line).groups()  # type: ignore[union-attr]
        text = (body or "{}").replace(", …", "")
        headers = {"x-api-key": key, "x-admin-api-key": KEY, "content-type": "application/json"}
        if path.startswith("/v1/tokens"):
            headers |= {"origin": "https://shop.example.com"} if path.endswith("renew") else {}
        data = text.encode() if method in ("POST", "PATCH") else None
        where = gateway.api if path.startswith("/v1/") else gateway.admin
        request = Request(where + path.replace("ID", "of-the-page"), data, headers, method=method)
        if '"id"' in text:
            request.data = json.dumps({**json.loads(text), "id": "of-the-page"}).encode()
        with build_opener(ProxyHandler({})).open(request, timeout=60) as response:
            assert response.status // 100 == 2, line
            answer = response.read()
        if path == "/v1/tokens":
            key = json.loads(answer)["token"]


OLD = f"""
upstreams: {{ openai: {{ backend: openai, api_key: a }}, echo: {{ backend: echo }} }}
aliases: {{ chat: {{ tiers: [[{{ upstream: openai, model: m }}]] }} }}
keys: [{{ id: shop, digest: "sha256:{1:064d}" }}, {{ id: intern, digest: "sha256:{2:064d}" }}]
"""


def test_the_differences_that_the_page_of_operations_shows_are_said_so(tmp_path: Path) -> None:
    [shown] = [block for block in BLOCKS if block.page == "docs/operations.md" and not block.language]
    old: dict[str, Any] = yaml.safe_load(OLD)
    new: dict[str, Any] = yaml.safe_load(OLD)
    new["upstreams"]["openai"] |= {"api_key": "b", "max_connections": 2048}
    new["aliases"]["fast"] = new["aliases"]["chat"]
    del new["keys"][1]
    new["server"] = {"workers": 2}
    for name, config in (("old.yaml", old), ("new.yaml", new)):
        (tmp_path / name).write_text(yaml.safe_dump(config))
    done = CliRunner().invoke(cli, ["config", "diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml")])
    assert done.output == shown.text


# --- commands within sentences and tables


def inline() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for found in re.findall(r"`((?:sluice|make) [^`]+)`", text):
            yield path.name, found


def test_every_command_within_a_sentence_is_one_with_its_options() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = [*inline()]
    assert len(found) > 150
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    found += [
        ("CONTRIBUTING.md", f"make {verb}") for verb in re.findall(r"^ +make (\S+)", contributing, re.M)
    ]
    for page, line in found:
        name, *words = shlex.split(line, comments=True)
        if name == "make":
            assert words[0] in verbs, (page, line)
            continue
        command = command_of(words)
        options = {"--help", *(one for parameter in command.params for one in parameter.opts)}
        options |= {one for parameter in command.params for one in parameter.secondary_opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, (page, line)
        known = command is not cli or words[0].startswith("-") or words[0].isupper()
        assert known, (page, line)


def test_what_is_run_elsewhere_is_there_and_is_still_shown() -> None:
    shown = [" ".join(words_of(line)[:2]) for block in blocks("sh") for line in lines_of(block)]
    for command, place in ELSEWHERE.items():
        assert (ROOT / place).exists(), place
        assert any(line.startswith(command) for line in shown), command
