"""docs/configuration.md has every option of the schema, with its value, its default and its description."""

import json
from pathlib import Path

import pytest

from scripts.config_page import PAGE, SCHEMA, page

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_schema_says() -> None:
    text = PAGE.read_text()
    assert page(text, json.loads(SCHEMA.read_text())) == text, "run: python scripts/config_page.py"


def test_every_section_and_option_stands_there() -> None:
    text = PAGE.read_text()
    defs = json.loads(SCHEMA.read_text())["$defs"]
    for section in defs.values():
        for name in section.get("properties", {}):
            assert f"| `{name}` |" in text, name


def test_a_page_without_a_place_for_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="no place"):
        page("# Configuration\n", json.loads(SCHEMA.read_text()))
