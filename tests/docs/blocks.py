"""The fenced blocks of the README and of docs/, and what their pages say of them.

A block that is not run has a comment on the line before it: `<!-- not run: why -->`. What `<!-- runs with:
... -->` stands before is code for the block's gateway: YAML that is added to its configuration.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_FENCE = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    not_run: str | None
    """Why it is neither run nor checked."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text()
    name = path.relative_to(ROOT).as_posix()
    return [
        Block(
            name, text.count("\n", 0, found.start("text")) + 1, found["language"], found["text"], found["why"]
        )
        for found in _FENCE.finditer(text)
    ]


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


def blocks(*languages: str) -> list[Block]:
    """Those that are to be run or checked."""
    return [block for block in BLOCKS if block.language in languages and block.not_run is None]
