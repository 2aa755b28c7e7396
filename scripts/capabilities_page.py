"""Write the tables of docs/capabilities.md anew, of what the backends say: python
scripts/capabilities_page.py"""

from pathlib import Path
from typing import Any

from sluice.backends.protocol import CarriesOperations, find_backend, installed
from sluice.model.features import EVERYTHING, FEATURES
from sluice.proxy.capable import takes_of

PAGE = Path(__file__).parents[1] / "docs" / "capabilities.md"
BEGIN, END = "<!-- scripts/capabilities_page.py -->\n", "<!-- end -->\n"
OPTIONS: dict[str, dict[str, Any]] = {
    "bedrock": {"region": "eu-central-1"},
    "bedrock-anthropic": {"region": "eu-central-1"},
    "vertex-anthropic": {"project": "p"},
}
"""What a backend cannot be without."""
WEIGHTS = {
    "content": "refused always",
    "answer": "refused; left out with `unsupported: drop`",
    "preference": "left out; refused with `unsupported: refuse`",
}
OPERATIONS = {
    "embeddings (`/v1/embeddings`)": ("embeddings", "openai"),
    "completions (`/v1/completions`)": ("completions", "completions"),
    "reranking (`/v1/rerank`)": ("rerank", "rerank"),
    "moderations (`/v1/moderations`)": ("moderations", "openai"),
    "images (`/v1/images/generations`)": ("images", "openai"),
    "speech (`/v1/audio/speech`)": ("speech", "openai"),
    "transcriptions and translations (`/v1/audio/…`)": ("transcriptions", "openai"),
    "edits of images (`/v1/images/edits`)": ("image_edits", "openai"),
    "counting tokens (`/v1/messages/count_tokens`)": ("count_tokens", "anthropic"),
}
"""Operations beside chat, by their names and the callers' dialects."""
WITHOUT = ("echo",)
"""Backends that are for tests."""


def backends() -> dict[str, Any]:
    """The backends that come along, with the least of options."""
    return {
        name: find_backend(name)(**OPTIONS.get(name, {}))
        for name in sorted(installed())
        if name not in WITHOUT
    }


def operations() -> str:
    """A row for each operation, a column for each backend."""
    made = backends()
    head = f"| operation | {' | '.join(made)} |\n|---|{':-:|' * len(made)}\n"
    rows = []
    for title, asked in OPERATIONS.items():
        cells = [
            isinstance(backend, CarriesOperations) and backend.operation(*asked) for backend in made.values()
        ]
        rows.append(f"| {title} | {' | '.join('yes' if cell else '-' for cell in cells)} |\n")
    return head + "".join(rows)


def table() -> str:
    """A row for each feature, a column for each backend."""
    taken = {
        name: EVERYTHING if (takes := takes_of(made)) is None else takes for name, made in backends().items()
    }
    head = f"| feature | {' | '.join(taken)} | where it is not there |\n|---|{':-:|' * len(taken)}---|\n"
    cells = {
        name: " | ".join("yes" if name in takes else "-" for takes in taken.values()) for name in FEATURES
    }
    rows = [
        f"| {feature.title} | {cells[name]} | {WEIGHTS[feature.weight]} |\n"
        for name, feature in FEATURES.items()
    ]
    return head + "".join(rows)


def page(text: str) -> str:
    """The page with its table as it has to be. Raises ValueError where the page has no place for it."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} has no place for the table")
    return before + BEGIN + "\n" + table() + "\n" + operations() + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
