"""docs/metrics.md says what is exported."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sluice.telemetry.metrics import TABLE

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
RULES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
EXPORTED = {f"sluice_{name}{'_total' if spec.kind == 'counter' else ''}": spec for name, spec in TABLE.items()}


def test_every_metric_stands_there_with_its_type_and_labels() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*)\|", PAGE, re.MULTILINE)
    told = [(name, kind, tuple(filter(None, labels.strip().split(", ")))) for name, kind, labels in rows]
    assert sorted(told) == sorted((name, spec.kind, spec.labels) for name, spec in EXPORTED.items())


def test_alerts_name_metrics_that_there_are() -> None:
    named = {re.sub(r"_bucket$", "", name) for name in re.findall(r"\bsluice_\w+", RULES)}
    assert named <= EXPORTED.keys()


def test_alerts_are_rules_that_prometheus_takes(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    checked = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
