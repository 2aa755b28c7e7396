"""The quick start, word by word: its commands in their order, in a shell, against what `make run` serves and what
`sluice init` has written. Nothing but ports differs. And what the playground offers to copy runs, too."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.e2e.gateway_process import GatewayProcess, serving
from tests.test_cli import sluice

QUICKSTART = [block for block in blocks("sh") if block.page == "docs/quickstart.md"]
DEV = (ROOT / "config/gateway.dev.yaml").read_text()
SHELL = """
set -e
curl() { command curl --silent --fail --noproxy '*' "$@"; }
sluice() {
    case $1 in
        chat) shift; $PYTHON -m sluice chat --url "$API" "$@" ;;
        calls | usage) $PYTHON -m sluice "$@" --url "$ADMIN" ;;
        serve) ;; # the test does
        *) $PYTHON -m sluice "$@" ;;
    esac
}
"""


def in_shell(text: str, folder: Path, there: GatewayProcess | None = None) -> str:
    """Returns what the commands print, all of which have to succeed."""
    ports = {"API": there.api, "ADMIN": there.admin} if there is not None else {}
    environ = {
        **os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "HOME": str(folder), **ports
    }  # fmt: skip
    for name in ("SLUICE_API_KEY", "SLUICE_ADMIN_KEY", "SLUICE_CONFIG", "OPENAI_API_KEY"):
        environ.pop(name, None)
    if there is not None:
        text = text.replace("http://127.0.0.1:8080", there.api)
    done = subprocess.run(
        ["bash", "-c", SHELL + text],
        cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=110, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_command_of_the_quick_start_does_what_it_says(tmp_path: Path) -> None:
    texts = [block.text for block in QUICKSTART]
    assert texts[0] == "make run\n"
    tried, provider = texts[1:-1], texts[-1]
    dev = DEV.replace("127.0.0.1:${PORT:-8080}", "127.0.0.1:${API_PORT}", 1).replace(
        "${ADMIN_PORT:-8081}", "${ADMIN_PORT}"
    )
    with serving(dev) as running:
        said = in_shell("".join(tried), tmp_path, running)
    assert '"content":"You"' in said  # curl's
    assert "You said: Hello\n" in said  # sluice chat's
    assert re.search(r"^\S+ +echo +echo/echo .*done", said, re.MULTILINE), said  # sluice calls'
    assert re.search(r"^total +2 +0 ", said, re.MULTILINE), said  # sluice usage's: of both calls
    assert "export OPENAI_API_KEY=sk-…\n" in provider
    said = in_shell(provider.replace("sk-…", "sk-of-nobody"), tmp_path)
    [key] = re.findall(r"key of my-app: +(\S+)", said)
    [admin] = re.findall(r"admin key: +(\S+)", said)
    assert "gateway.yaml: ok" in said
    made = (tmp_path / "gateway.yaml").read_text()
    for port, name in (("8080", "API_PORT"), ("8081", "ADMIN_PORT")):
        assert f'listen: "127.0.0.1:{port}"' in made
        made = made.replace(f'"127.0.0.1:{port}"', f'"127.0.0.1:${{{name}}}"')
    with serving(made, {"OPENAI_API_KEY": "sk-of-nobody"}) as running:
        curl = f"curl {running.api}/v1/models -H 'authorization: Bearer {key}'"
        assert '"id":"chat"' in in_shell(curl, tmp_path, running).replace(" ", "")
        listed = sluice("keys", "list", "--url", running.admin, SLUICE_ADMIN_KEY=admin)
        assert "my-app" in listed.stdout


SNIPPETS = """
import { writeFileSync } from "node:fs";
import { DIALECTS, snippets } from "./dialects.mjs";
const [, , url, key] = process.argv;
for (const [number, name] of Object.keys(DIALECTS).entries()) {
  const nothing = { system: "", history: [], tools: [], images: [], most: 0 };
  const asked = { ...nothing, model: "echo", message: "one $HOME 'two'", stream: true, session: "s" };
  for (const [language, code] of Object.entries(snippets(name, asked, url))) {
    writeFileSync(`${number}.${{ curl: "sh", Python: "py", JavaScript: "mjs" }[language]}`, code.replace("KEY", key));
  }
}
"""


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("node")), reason="curl or node is not installed"
)
def test_what_the_playground_offers_to_copy_runs_in_each_dialect(tmp_path: Path) -> None:
    shutil.copy(ROOT / "gateway/sluice/ui/static/dialects.js", tmp_path / "dialects.mjs")
    (tmp_path / "write.mjs").write_text(SNIPPETS)
    clients = ROOT / ".cache/clients-venv/bin/python"  # has requests
    commands = {"sh": ["bash"], "mjs": ["node"], "py": [str(clients)]}
    dev = DEV.replace("127.0.0.1:${PORT:-8080}", "127.0.0.1:${API_PORT}", 1)
    environ = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
    with serving(dev.replace("${ADMIN_PORT:-8081}", "${ADMIN_PORT}")) as running:
        subprocess.run(
            ["node", "write.mjs", running.api, "sk-sluice-dev"], cwd=tmp_path, check=True, timeout=60
        )
        files = sorted(path for path in tmp_path.iterdir() if path.stem.isdigit())
        assert len(files) == 18
        for path in files:
            if path.suffix == ".py" and not clients.exists():
                continue
            done = subprocess.run(
                [*commands[path.suffix[1:]], path.name],
                cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0, (path.name, done.stderr, path.read_text())
            assert "$HOME" in done.stdout, (path.name, done.stdout)
