"""The figures of a simulation, as one JSON document and as text; and how many replicas a load needs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sluice.simulate.driver import Simulated
from sluice.simulate.measured import OK, PERCENTS, AliasFigures, percentile
from sluice.simulate.scenario import ReplicaModel, Scenario

CPU_SECONDS = 10
"""Seconds over which the need for processors is averaged: shorter bursts wait in the socket."""


def document(simulated: Simulated, scenario: Scenario) -> dict[str, Any]:
    """Returns the document. Times are in seconds, money in US dollars. Only `took` and `cpu` differ between
    two runs with the same arguments."""
    measured, seconds = simulated.measured, max(simulated.seconds, 1e-9)
    counted = max(seconds - float(scenario.warmup), 1e-9)
    tokens = measured.token_rate.levels()
    requests = measured.requests.levels()
    return {
        "seed": scenario.seed,
        "replicas": scenario.replicas,
        "simulated_seconds": _round(seconds),
        "warmup_calls": measured.warmup_calls,
        **_figures(measured.all),
        "refused_by": dict(measured.refusals.most_common()),
        "client_retries": measured.retries,
        "attempts": measured.attempts,
        "calls_with_several_attempts": measured.failed_over,
        "breakers_opened": simulated.opened,
        "cost_usd": round(measured.cost, 6),
        "cost_usd_per_hour": round(measured.cost / counted * 3600, 6),
        "attempts_without_price": measured.unpriced,
        "peaks": {
            "requests_per_second": round(max(requests, default=0.0)),
            "tokens_per_second": round(max(tokens, default=0.0)),
            "streams": round(max(measured.streams.levels(), default=0.0)),
            "calls_by_replica": list(simulated.most_streams),
        },
        "aliases": {name: _figures(figures) for name, figures in sorted(measured.aliases.items())},
        "keys": {name: dict(sorted(outcomes.items())) for name, outcomes in sorted(measured.keys.items())},
        "targets": {
            name: {
                "attempts": sum(figures.outcomes.values()),
                "outcomes": dict(figures.outcomes.most_common()),
                "first_token": _percentiles(figures.first_token),
                "tokens_in": figures.input,
                "tokens_out": figures.output,
                "cost_usd": round(figures.cost, 6),
                "most_streams": simulated.upstreams[name].most,
                "most_waiting_for_a_place": simulated.upstreams[name].longest_line,
                "refused_by_provider": simulated.upstreams[name].refused,
            }
            for name, figures in sorted(measured.targets.items())
        },
        "needed": needed(requests, tokens, measured.streams.levels(), scenario.replica),
        "faults": sorted(set(simulated.crashes)),
        "took": {"seconds": round(simulated.took, 2), "cpu_seconds": round(simulated.cpu, 2)},
    }


def needed(
    requests: Sequence[float], tokens: Sequence[float], streams: Sequence[float], replica: ReplicaModel
) -> dict[str, Any]:
    """Returns how many replicas of one core each the load needs in its busiest second, and which resource
    decides it."""
    cores = cores_over_time(requests, tokens, replica) or [0.0]
    window = min(CPU_SECONDS, len(cores))
    most, total = 0.0, sum(cores[:window])
    for second in range(window, len(cores) + 1):
        most = max(most, total / window)
        if second < len(cores):
            total += cores[second] - cores[second - window]
    open_streams = max(streams, default=0.0)
    reasons = {
        "cpu": math.ceil(most / replica.load),
        "memory": math.ceil(open_streams * replica.stream / max(1, replica.memory - replica.idle)),
        "streams": math.ceil(open_streams / replica.streams),
    }
    return {
        "replicas": max(1, *reasons.values()),
        "for": max(reasons, key=lambda name: reasons[name]),
        "by": reasons,
        "cores": round(most, 4),
        "memory_bytes": round(open_streams * replica.stream),
    }


def cores_over_time(requests: Sequence[float], tokens: Sequence[float], replica: ReplicaModel) -> list[float]:
    """Returns the processor time that the load of each second takes, in cores."""
    return [
        _at(requests, second) * replica.request + _at(tokens, second) * replica.token
        for second in range(max(len(requests), len(tokens)))
    ]


def _at(levels: Sequence[float], second: int) -> float:
    return levels[second] if second < len(levels) else 0.0


def _figures(of: AliasFigures) -> dict[str, Any]:
    return {
        "calls": of.calls,
        "outcomes": dict(sorted(of.outcomes.items(), key=lambda item: (item[0] != OK, -item[1], item[0]))),
        "first_token": _percentiles(of.first_token),
        "duration": _percentiles(of.duration),
        "waited": _percentiles(of.waited),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    named = {f"p{percent:g}": _round(percentile(ordered, percent)) for percent in PERCENTS}
    return {**named, "max": _round(ordered[-1])} if ordered else {}


def _round(seconds: float) -> float:
    return round(seconds, 6)


# --- text


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """Returns the document as text for people."""
    calls, outcomes = found["calls"], found["outcomes"]
    took = found["took"]
    yield (
        f"{calls} calls in {_time(found['simulated_seconds'])} ({found['replicas']} replica(s), seed {found['seed']}); "
        f"took {took['seconds']} s"
    )
    if found["warmup_calls"]:
        yield f"not counted, as they came while it warmed up: {found['warmup_calls']}"
    yield ""
    yield from _table(
        ["outcome", "calls", "share"],
        [[name, str(number), f"{number / max(calls, 1):.2%}"] for name, number in outcomes.items()],
    )
    if found["refused_by"]:
        yield ""
        yield "429 by: " + ", ".join(f"{name} {number}" for name, number in found["refused_by"].items())
    yield ""
    rows = [_times(name, figures) for name, figures in (("all", found), *found["aliases"].items())]
    yield from _table(
        [
            "alias",
            "calls",
            "ok",
            *(f"{what} {p}" for what in ("TTFT", "total") for p in _SHOWN),
            "waited p99",
        ],
        rows,
    )
    yield ""
    yield from _table(
        ["target", "attempts", "ok", "TTFT p50", "p99", "tokens in", "out", "cost $", "most streams"],
        [
            [
                name,
                str(figures["attempts"]),
                f"{figures['outcomes'].get('ok', 0) / max(figures['attempts'], 1):.2%}",
                _time(figures["first_token"].get("p50")),
                _time(figures["first_token"].get("p99")),
                str(figures["tokens_in"]),
                str(figures["tokens_out"]),
                f"{figures['cost_usd']:.4f}",
                str(figures["most_streams"]),
            ]
            for name, figures in found["targets"].items()
        ],
    )
    yield ""
    yield (
        f"attempts: {found['attempts']}; calls with several: {found['calls_with_several_attempts']}; breakers opened "
        f"{found['breakers_opened']} time(s); clients tried again {found['client_retries']} time(s)"
    )
    unpriced = found["attempts_without_price"]
    yield f"cost: ${found['cost_usd']:.4f}, ${found['cost_usd_per_hour']:.4f} an hour" + (
        f"; {unpriced} attempt(s) have no price" if unpriced else ""
    )
    peaks, need = found["peaks"], found["needed"]
    yield (
        f"peaks: {peaks['requests_per_second']} requests/s, {peaks['tokens_per_second']} tokens/s, {peaks['streams']} streams"
    )
    by = ", ".join(f"{number} by {name}" for name, number in need["by"].items())
    yield f"needed: {need['replicas']} replica(s) of one core ({by}); {need['cores']:g} cores at the highest"
    if found["faults"]:
        yield f"faults of the gateway (please report them): {', '.join(found['faults'])}"


_SHOWN = ("p50", "p95", "p99")


def _times(name: str, figures: Mapping[str, Any]) -> list[str]:
    calls = figures["calls"]
    return [
        name,
        str(calls),
        f"{figures['outcomes'].get(OK, 0) / max(calls, 1):.2%}",
        *(_time(figures[what].get(p)) for what in ("first_token", "duration") for p in _SHOWN),
        _time(figures["waited"].get("p99")),
    ]


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:.1f}s" if seconds < 600 else f"{seconds / 60:.1f}m"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "  ".join(cells).rstrip()
