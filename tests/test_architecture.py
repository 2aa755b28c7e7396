"""The page of the architecture names files that there are."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/architecture.md"
ROOTS = (
    ROOT,
    ROOT / "gateway/sluice",
    ROOT / "plugins/sluice_plugins",
    ROOT / "gateway/sluice/frontends/anthropic",
)


def test_every_path_that_the_table_of_changes_names_exists() -> None:
    table = PAGE.read_text().partition("| to add | touch |")[2].partition("\n\n")[0]
    named = {
        path
        for path in re.findall(r"`([\w./*-]+)`", table)
        if "/" in path or path.endswith((".py", ".md", ".yaml", ".json"))
    }
    assert len(named) > 40
    missing = {path for path in named if not any(list(root.glob(path.rstrip("/"))) for root in ROOTS)}
    assert not missing
