#!/usr/bin/env python3
"""Plots of one run, as PNG: plots.py FOLDER < run.json. Prints what it wrote. The only user of matplotlib."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from gateways import BESIDE, FEATURES
from report import figure

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS, OTHERS = "#0b6e99", "#b8c4cc"
BARS = (
    ("short", "us_per_request", "CPU µs per stream of 1 token"),
    ("small", "us_per_request", "CPU µs per non-streaming request"),
    ("burst", "us_per_event", "CPU µs per token, 64-token bursts"),
    ("paced200", "us_per_event", "CPU µs per token, 200 paced streams"),
)
FEATURE_BARS = BARS[0], BARS[2]


def costs(results: Mapping[str, Any]) -> Any:
    """What a unit of work costs, gateway by gateway."""
    names = [name for name in results if name != "direct" and name not in FEATURES and name not in BESIDE]
    return _bars(results, names, BARS, lambda name: name.startswith("sluice"))


def features(results: Mapping[str, Any]) -> Any:
    """What each feature costs, beside the default."""
    names = [name for name in ("sluice", "sluice-ndjson", *FEATURES) if name in results]
    return _bars(results, names, FEATURE_BARS, lambda name: name in ("sluice", "sluice-ndjson"))


def streams(results: Mapping[str, Any]) -> Any:
    """The price of a token at one rate over more and more streams: flat is linear."""
    picture, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, runs in results.items():
        points = [
            (int(scenario.removeprefix("streams")), cost)
            for scenario in runs
            if scenario.startswith("streams")
            and (cost := figure(runs[scenario], "us_per_event"))
            and name != "direct"
        ]
        if points:
            wide = 2.5 if name.startswith("sluice") else 1.2
            axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name, linewidth=wide)
    axes.set(xscale="log", xlabel="streams open (8,000 tokens/s altogether)", ylabel="CPU µs per token")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return picture


def _bars(
    results: Mapping[str, Any],
    names: Sequence[str],
    rows: Sequence[tuple[str, str, str]],
    ours: Callable[[str], bool],
) -> Any:
    columns = 2
    height = 0.28 * len(names) + 1.2
    size = (6 * columns, height * (len(rows) // columns))
    picture, grid = plt.subplots(
        len(rows) // columns, columns, figsize=size, layout="constrained", squeeze=False
    )
    for axes, (scenario, path, title) in zip(grid.flat, rows, strict=True):
        found = [(name, cost) for name in names if (cost := figure(results[name].get(scenario, ()), path))]
        found.sort(key=lambda bar: bar[1], reverse=True)  # the lowest, the best, at the top
        colours = [OURS if ours(name) else OTHERS for name, _ in found]
        bars = axes.barh([name for name, _ in found], [cost for _, cost in found], color=colours)
        axes.bar_label(
            bars,
            [f"{cost:,.0f}" if cost >= 100 else f"{cost:.1f}" for _, cost in found],
            padding=3,
            fontsize=8,
        )
        axes.set_title(f"{title} (lower is better)", fontsize=10)
        if found and max(cost for _, cost in found) > 20 * min(cost for _, cost in found):
            axes.set_xscale("log")
            axes.set_xlim(right=max(cost for _, cost in found) * 4)
        else:
            axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    return picture


def main() -> None:
    folder = Path(sys.argv[1])
    saved = json.load(sys.stdin)
    results = saved["results"]
    wanted = {"cost-per-unit": costs}
    if any(name in results for name in FEATURES):
        wanted["price-of-features"] = features
    if any(scenario.startswith("streams") for scenario in saved["scenarios"]):
        wanted["cost-by-streams"] = streams
    for name, draw in wanted.items():
        path = folder / f"{name}.png"
        draw(results).savefig(path, dpi=110)
        print(path)


if __name__ == "__main__":
    main()
