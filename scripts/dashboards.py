"""Write the dashboards in deploy/grafana anew, from dashboards.yaml: python scripts/dashboards.py

What is the same for all panels stands here, in Grafana's JSON model
(https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "grafana"
WIDTH, HEIGHT = 12, 8
"""Of a panel, of Grafana's 24 columns."""
SOURCE = {"type": "prometheus", "uid": "${source}"}
DASHBOARDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())


def text(name: str) -> str:
    """The file of one dashboard."""
    return json.dumps(dashboard(name), indent=1) + "\n"


def dashboard(name: str) -> dict[str, Any]:
    """One of DASHBOARDS in Grafana's JSON model."""
    return {
        "uid": f"sluice-{name}",
        "title": DASHBOARDS[name]["title"],
        "tags": ["sluice"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [_source(), _variable("alias", "requests_total"), _variable("upstream", "breaker_state")]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(DASHBOARDS[name]["panels"])],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _variable(label: str, metric: str) -> dict[str, Any]:
    query = f"label_values(sluice_{metric}, {label})"
    return {
        "name": label, "type": "query", "datasource": SOURCE, "query": {"query": query, "refId": label}, "definition": query,
        "refresh": 2, "includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _panel(number: int, panel: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number + 1,
        "title": panel["title"],
        "description": panel.get("about", ""),
        "datasource": SOURCE,
        "gridPos": {"x": number % 2 * WIDTH, "y": number // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        **(_table(panel) if panel.get("table") else _chart(panel)),
    }


def _chart(panel: dict[str, Any]) -> dict[str, Any]:
    stacked, states = panel.get("stack", False), panel.get("states")
    look: dict[str, Any] = {
        "lineWidth": 1,
        "fillOpacity": 20 if stacked else 5,
        "stacking": {"mode": "normal" if stacked else "none"},
    }
    defaults: dict[str, Any] = {"unit": panel.get("unit", "short"), "min": 0, "custom": look}
    if panel.get("log"):
        look["scaleDistribution"] = {"type": "log", "log": 10}
        del defaults["min"]
    if panel.get("whole"):
        defaults["decimals"] = 0
        look["axisSoftMax"] = 5
    if states is not None:  # a state holds until the next one: no slope between them
        look["lineInterpolation"] = "stepAfter"
        options = {str(value): {"text": text, "index": value} for value, text in enumerate(states)}
        defaults |= {
            "decimals": 0,
            "max": len(states) - 1,
            "mappings": [{"type": "value", "options": options}],
        }
    return {
        "type": "timeseries",
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {
                "displayMode": "table",
                "placement": panel.get("legend", "right"),
                "calcs": ["lastNotNull", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [{**_target(at, query), "legendFormat": query["legend"]} for at, query in _queries(panel)],
    }


def _table(panel: dict[str, Any]) -> dict[str, Any]:
    """What holds now, a row for each series."""
    organize = {"excludeByName": {"Time": True}, "renameByName": {"Value": panel["table"]}}
    return {
        "type": "table",
        "fieldConfig": {"defaults": {"unit": panel.get("unit", "none")}, "overrides": []},
        "options": {},
        "transformations": [{"id": "organize", "options": organize}],
        "targets": [
            {**_target(at, query), "format": "table", "instant": True} for at, query in _queries(panel)
        ],
    }


def _queries(panel: dict[str, Any]) -> Iterator[tuple[int, dict[str, str]]]:
    yield from enumerate(panel["queries"])


def _target(at: int, query: dict[str, str]) -> dict[str, Any]:
    return {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": query["expr"]}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))
