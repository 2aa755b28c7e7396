"""Write the dashboards in deploy/grafana anew, from dashboards.yaml: python scripts/dashboards.py

What is the same for all panels stands here, in Grafana's JSON model
(https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/).
"""

import json
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
    stacked = panel.get("stack", False)
    look = {
        "lineWidth": 1,
        "fillOpacity": 20 if stacked else 5,
        "stacking": {"mode": "normal" if stacked else "none"},
    }
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel["title"],
        "datasource": SOURCE,
        "gridPos": {"x": number % 2 * WIDTH, "y": number // 2 * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0, "custom": look}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": SOURCE,
                "expr": query["expr"],
                "legendFormat": query["legend"],
            }
            for at, query in enumerate(panel["queries"])
        ],
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))
