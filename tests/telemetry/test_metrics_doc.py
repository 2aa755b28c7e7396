"""docs/metrics.md says what is exported."""

import re
from pathlib import Path

from sluice.telemetry.table import TABLE

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
EXPORTED = {
    f"sluice_{name}{'_total' if spec.kind == 'counter' else ''}": spec for name, spec in TABLE.items()
}


def test_every_metric_stands_there_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*)\|", PAGE, re.MULTILINE)
    told = [(name, kind, tuple(filter(None, labels.strip().split(", ")))) for name, kind, labels in rows]
    assert sorted(told) == sorted((name, spec.kind, spec.labels) for name, spec in EXPORTED.items())
