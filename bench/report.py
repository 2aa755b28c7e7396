"""The figures as Markdown: all scenarios, the rows that the gateway is judged by, and what each feature
costs."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateways import BESIDE, FEATURES
from scenarios import SCENARIOS, Figures

Results = Mapping[str, Mapping[str, Sequence[Figures]]]
Column = tuple[str, str, float]  # heading, path of the figure, factor

PER_REQUEST: tuple[Column, ...] = (
    ("req/s", "load.rps", 1), ("CPU µs/req", "us_per_request", 1), ("p50 ms", "load.total.p50", 1e-3),
    ("p99 ms", "load.total.p99", 1e-3),
)  # fmt: skip
PACED: tuple[Column, ...] = (
    ("tokens/s", "load.tokens_per_s", 1), ("CPU µs/token", "us_per_event", 1), ("lag p50 µs", "load.lag.p50", 1),
    ("lag p99 µs", "load.lag.p99", 1), ("gap p99 ms", "load.gap.p99", 1e-3), ("TTFT p50 µs", "load.ttft.p50", 1),
    ("TTFT p99 µs", "load.ttft.p99", 1), ("RSS MB", "rss_during", 1e-6),
)  # fmt: skip
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "small": PER_REQUEST,
    "short": PER_REQUEST,
    "burst": (
        ("tokens/s", "load.tokens_per_s", 1), ("CPU µs/token", "us_per_event", 1), ("CPU µs/req", "us_per_request", 1),
        ("TTFT p50 ms", "load.ttft.p50", 1e-3),
    ),
    "lowrate": (
        ("TTFT p50 µs", "load.ttft.p50", 1), ("TTFT p99 µs", "load.ttft.p99", 1), ("total p50 µs", "load.total.p50", 1),
        ("total p99 µs", "load.total.p99", 1),
    ),
    "open": (
        ("open", "active", 1), ("RSS before MB", "rss_before", 1e-6), ("RSS during MB", "rss_during", 1e-6),
        ("kB/stream", "bytes_per_stream", 1e-3),
    ),
}  # fmt: skip
LAST: tuple[Column, ...] = (
    ("gw CPU %", "gw_cpu_pct", 1), ("mock+load CPU %", "harness_cpu_pct", 1), ("noise %", "noise_pct", 1),
    ("errors", "load.errors", 1),
)  # fmt: skip
START: tuple[Column, ...] = (
    ("healthy s", "ready_s", 1), ("first reply s", "first_reply_s", 1), ("CPU s to start", "startup_cpu_s", 1),
    ("cold import s", "cold_s", 1), ("RSS idle MB", "rss_idle", 1e-6), ("PSS idle MB", "pss_idle", 1e-6),
)  # fmt: skip
SUMMARY: tuple[tuple[str, str, str, float], ...] = (
    ("stream of 1 token, CPU µs", "short", "us_per_request", 1),
    ("non-streaming, CPU µs", "small", "us_per_request", 1),
    ("token in a burst, CPU µs", "burst", "us_per_event", 1),
    ("token of 200 paced streams, CPU µs", "paced200", "us_per_event", 1),
    ("kB per open stream", "open", "bytes_per_stream", 1e-3),
    ("first reply s", "start", "first_reply_s", 1),
    ("RSS idle MB", "start", "rss_idle", 1e-6),
)
PRICES = (
    ("short", "us_per_request", "stream of 1 token, CPU µs"),
    ("small", "us_per_request", "non-streaming, CPU µs"),
    ("burst", "us_per_event", "token in a burst, CPU µs"),
)
LATENCY = (("added TTFT p50 µs", "load.ttft.p50"), ("added TTFT p99 µs", "load.ttft.p99"))


def figure(runs: Iterable[Figures], path: str, factor: float = 1) -> float | None:
    """The median over the rounds; None where no round has it."""
    found = [value for run in runs if (value := _at(run, path)) is not None]
    return statistics.median(found) * factor if found else None


def summary(results: Results) -> str:
    """One row for each gateway, with the figures that it is judged by."""
    names = [name for name in results if name != "direct" and name not in FEATURES and name not in BESIDE]
    baseline = results.get("direct", {}).get("lowrate", ())
    rows = []
    for name in names:
        row = [name] + [
            _shown(figure(results[name].get(scenario, ()), path, factor))
            for _, scenario, path, factor in SUMMARY
        ]
        row += [_shown(_added(results[name].get("lowrate", ()), baseline, path)) for _, path in LATENCY]
        rows.append(row)
    return table(
        ["gateway", *(heading for heading, *_ in SUMMARY), *(heading for heading, _ in LATENCY)], rows
    )


def features(results: Results) -> str:
    """What each feature adds to `sluice`, or to `sluice-ndjson` where that is what it was measured with; ""
    without any."""
    columns = PRICES
    named = {name: "default" for name in ("sluice", "sluice-ndjson")} | FEATURES
    rows = [
        [
            name,
            about,
            *(_shown(figure(results[name].get(scenario, ()), path)) for scenario, path, _ in columns),
        ]
        for name, about in named.items()
        if name in results
    ]
    if not any(name in results for name in FEATURES):
        return ""
    return table(["entry", "what", *(heading for *_, heading in columns)], rows, texts=2)


def dialects(results: Results) -> str:
    """What clients of other dialects cost, each of ours above the peers that serve the same; "" where no peer
    was measured."""
    columns = [column for column in PRICES if column[0] != "small"]
    rows = [
        [name, FEATURES[ours], *(_shown(figure(results[name].get(scenario, ()), path)) for scenario, path, _ in columns)]
        for ours in dict.fromkeys(BESIDE.values())
        if any(name in results for name in BESIDE if BESIDE[name] == ours)
        for name in (ours, *(name for name in BESIDE if BESIDE[name] == ours))
        if name in results
    ]  # fmt: skip
    return table(["entry", "what", *(heading for *_, heading in columns)], rows, texts=2) if rows else ""


def everything(results: Results, scenarios: Sequence[str]) -> str:
    """All that was measured, a table for each scenario."""
    started = {
        name: runs["start"] for name, runs in results.items() if name != "direct" and runs.get("start")
    }
    rows = [
        [name, *(_shown(figure(runs, path, factor)) for _, path, factor in START)]
        for name, runs in started.items()
    ]
    parts = ["### start\n", table(["gateway", *(heading for heading, *_ in START)], rows)]
    for scenario in scenarios:
        measured = {name: runs[scenario] for name, runs in results.items() if runs.get(scenario)}
        if not measured:
            continue
        columns = COLUMNS.get(scenario, PACED) + LAST
        headings = ["gateway", *(heading for heading, *_ in columns)]
        rows = [
            [name, *(_shown(figure(runs, path, factor)) for _, path, factor in columns)]
            for name, runs in measured.items()
        ]
        if scenario == "lowrate" and "direct" in measured:
            headings += [heading for heading, _ in LATENCY]
            for row in rows:
                row += [_shown(_added(measured[row[0]], measured["direct"], path)) for _, path in LATENCY]
        parts += [f"### {scenario}: {SCENARIOS[scenario].about}\n", table(headings, rows)]
    return "\n".join(parts)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table, aligned to be read as it is; the first `texts` columns to the left."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(w) if n < texts else cell.rjust(w)
            for n, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |\n"

    rule = "|".join(
        "-" * (width + 1) + ("-" if column < texts else ":") for column, width in enumerate(widths)
    )
    return line(headings) + f"|{rule}|\n" + "".join(map(line, rows))


def _at(figures: Figures, path: str) -> float | None:
    value: Any = figures
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def _added(runs: Sequence[Figures], baseline: Sequence[Figures], path: str) -> float | None:
    here, there = figure(runs, path), figure(baseline, path)
    return None if here is None or there is None else here - there


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
