"""Draw the panels of deploy/grafana as Grafana would, to be looked at:
dashboard_pictures.py FOLDER [--seconds 300] [--workers 2]

A gateway is loaded while its faults come and go (tests/deploy/faulty_night.py), a real Prometheus scrapes it,
and each panel's queries are sent over that time. Writes a PNG per dashboard, and names the panels that have
nothing to draw. Needs prometheus, redis-server and matplotlib, which no lock has:

    pip install --target .cache/plots matplotlib
    PYTHONPATH=.cache/plots .venv/bin/python scripts/dashboard_pictures.py /tmp/pictures
"""

import argparse
import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gateway"), str(ROOT / "plugins")]

from tests.deploy.faulty_night import Seen, a_night  # noqa: E402
from tests.deploy.prometheus_server import ask, ask_range, filled  # noqa: E402

STEP = 3
WINDOW = "12s"
"""$__rate_interval: four scrapes of 3 s."""


def series_of(seen: Seen, panel: dict[str, Any]) -> dict[str, dict[float, float]]:
    """What a panel draws: values by time, by legend."""
    drawn: dict[str, dict[float, float]] = {}
    for target in panel["targets"]:
        for one in ask_range(seen.server, filled(target["expr"], WINDOW), seen.start, seen.end, STEP):
            label = lambda match, metric=one["metric"]: metric.get(match[1], "")  # noqa: E731
            legend = re.sub(r"{{(\w+)}}", label, target["legendFormat"])
            values = {at: float(value) for at, value in one["values"] if value not in ("NaN", "+Inf", "-Inf")}
            if values:
                drawn.setdefault(legend, {}).update(values)
    return drawn


SCALES = {
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
}


def shown(value: float, unit: str) -> str:
    """A number as Grafana shows it in this unit."""
    match unit:
        case "percentunit":
            return f"{value * 100:.3g}%"
        case "reqps":
            return f"{value:.3g} req/s"
        case "currencyUSD":
            return f"${value:.3g}"
        case "s" | "bytes":
            scale, name = next((one for one in SCALES[unit] if abs(value) >= one[0]), SCALES[unit][-1])
            return f"{value / scale:.3g} {name}" if value else f"0 {unit if unit == 's' else 'B'}"
    suffix = unit.removeprefix("suffix:") if unit.startswith("suffix:") else ""
    return f"{value:.4g}{suffix}"


def said(value: float, defaults: dict[str, Any]) -> str:
    """A number as the panel shows it."""
    for mapping in defaults.get("mappings", ()):
        if f"{value:g}" in mapping["options"]:
            return str(mapping["options"][f"{value:g}"]["text"])
    return f"{value:.0f}" if defaults.get("decimals") == 0 else shown(value, defaults["unit"])


def tabulate(axes: Any, panel: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
    axes.axis("off")
    names = sorted({name for row in rows for name in row["metric"] if name != "__name__"})
    called = panel["transformations"][0]["options"]["renameByName"]["Value"]
    cells = [[*(row["metric"].get(name, "") for name in names), row["value"][1]] for row in rows]
    if cells:
        axes.table(cells[:14], colLabels=[*names, called], loc="upper left", cellLoc="left", fontsize=7)


def draw(axes: Any, panel: dict[str, Any], series: dict[str, dict[float, float]], start: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
    axes.yaxis.set_major_formatter(lambda value, _: said(value, defaults).replace("$", r"\$"))
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if not series:
        axes.text(0.5, 0.5, "No data", ha="center", transform=axes.transAxes)
    times = sorted({at for values in series.values() for at in values})
    below = [0.0] * len(times)
    stacked = custom["stacking"]["mode"] == "normal"
    for name, values in series.items():
        last, most = values[max(values)], max(values.values())
        label = f"{name}   {said(last, defaults)}   {said(most, defaults)}".replace("$", r"\$")
        x = [at - start for at in times]
        if stacked:
            top = [low + values.get(at, 0.0) for low, at in zip(below, times, strict=True)]
            axes.fill_between(x, below, top, alpha=0.4, step=None)
            axes.plot(x, top, linewidth=1, label=label)
            below = top
        else:
            y = [values.get(at, float("nan")) for at in times]
            drawstyle = "steps-post" if custom.get("lineInterpolation") == "stepAfter" else "default"
            axes.plot(
                x, y, linewidth=1, label=label, drawstyle=drawstyle, marker="." if len(values) < 3 else None
            )
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: said(value, defaults))
    if "mappings" in defaults:
        axes.set_yticks(range(defaults["max"] + 1))
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    if "axisSoftMax" in custom:
        axes.set_ylim(top=max(axes.get_ylim()[1], custom["axisSoftMax"]))
    if "max" in defaults:
        axes.set_ylim(top=defaults["max"] * 1.02)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step.get("value") is not None:
            axes.axhline(step["value"], color=step["color"], linestyle="--", linewidth=0.8)
    if series and panel["options"]["legend"]["placement"] == "bottom":
        axes.legend(
            fontsize=6,
            loc="upper left",
            bbox_to_anchor=(0.0, -0.1),
            title="last, max",
            title_fontsize=6,
            frameon=False,
        )
    elif series:
        axes.legend(
            fontsize=6,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            title="last, max",
            title_fontsize=6,
            frameon=False,
        )


def pictures(seen: Seen, folder: Path) -> None:
    for file in sorted((ROOT / "deploy" / "grafana").glob("*.json")):
        panels = json.loads(file.read_text())["panels"]
        rows = (len(panels) + 1) // 2
        figure, grid = plt.subplots(rows, 2, figsize=(18, 2.9 * rows), squeeze=False)
        for at, axes in enumerate(grid.flat):
            if at >= len(panels):
                axes.axis("off")
                continue
            if panels[at]["type"] == "table":
                tabulate(
                    axes,
                    panels[at],
                    [row for one in panels[at]["targets"] for row in ask(seen.server, one["expr"])],
                )
                continue
            series = series_of(seen, panels[at])
            draw(axes, panels[at], series, seen.start)
            if not series:
                print(f"nothing to draw: {file.stem}: {panels[at]['title']}")
        figure.tight_layout()
        figure.subplots_adjust(right=0.84, wspace=0.62)
        figure.savefig(folder / f"{file.stem}.png", dpi=75)
        plt.close(figure)


async def main(folder: Path, seconds: float, workers: int) -> None:
    async with a_night(workers, seconds, (folder / "calls.jsonl").absolute()) as seen:
        pictures(seen, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(given.folder, given.seconds, given.workers))
