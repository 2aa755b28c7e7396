"""docs/bench.svg shows what bench/REPORT.md says: sorted, dated, with units, for who does not see it, too."""

import re
from xml.etree import ElementTree

import pytest

from scripts.bench_picture import NAMES, PANELS, PICTURE, REPORT, picture


def test_the_picture_is_that_of_the_report() -> None:
    assert picture(REPORT.read_text()) == PICTURE.read_text(), "run: python scripts/bench_picture.py"


def test_it_is_dated_and_each_panel_is_sorted() -> None:
    text = PICTURE.read_text()
    ElementTree.fromstring(text)
    assert re.search(r"\d{4}-\d\d-\d\d, .*lower is better", text)
    panels = text.split('<text class="h"')[1:]
    assert len(panels) == len(PANELS)
    for panel in panels:
        values = [float(value.replace(",", "")) for value in re.findall(r'class="v"[^>]*>([\d.,]+)<', panel)]
        assert values == sorted(values)
        assert len(values) == len(re.findall("<rect", panel)) > 5
    assert all(name in text for name in NAMES.values())


def test_a_report_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table"):
        picture("# Bench report\n\n2026-01-01T00:00Z.\n")
