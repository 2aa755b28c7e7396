"""The pages are built: `make docs` follows each link and anchor, and lets no page load something from
elsewhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_page_is_in_a_menu() -> None:
    menus = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages == {
        page for page in re.findall(r": (\S+\.md)$", menus, re.MULTILINE) if not page.startswith("project/")
    }


@pytest.mark.skipif(
    not (ROOT / ".cache/docs-venv/installed.lock").exists(),
    reason="what builds the pages is not there: make docs",
)
def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    environ = {**os.environ, "SITE": str(tmp_path / "site"), "SERVE": ""}
    script = ROOT / "scripts/docs.sh"
    done = subprocess.run([script], capture_output=True, text=True, check=False, timeout=110, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "configuration.html").exists()
