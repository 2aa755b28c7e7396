"""Every block in the README and in docs/ is run or checked: configurations here, commands in
test_shell_blocks.py and test_quickstart.py, code in test_code_blocks.py. What cannot be says why, and is counted."""

import base64
import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from sluice.config.loader import check
from sluice.config.vendors import bundled_vendors
from sluice.simulate.scenario import load_scenario
from tests.docs.blocks import BLOCKS, PAGES, Block, blocks, blocks_of
from tests.e2e.gateway_process import DIGEST

NOT_RUN = 3
"""Blocks that say why they are not run. Another one is a decision: change this number with it."""
COMMANDS = re.compile(
    r"^(?:\$ )?(?:curl|sluice|make|docker|helm|kubectl|pip|npm|kill|export|systemctl) ", re.MULTILINE
)


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
