"""The views for operators: of one process, and merged over several."""

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from sluice.runtime.fleet import (
    BREAKERS,
    WINDOW,
    CallQuery,
    Found,
    Overview,
    Place,
    ProcessView,
    RecentFigures,
    TargetState,
)
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState
from sluice.runtime.targets import merged, states_of
from sluice.telemetry.metrics import CODES

if TYPE_CHECKING:
    from sluice.telemetry.recent import RecentCalls


def view_of(snapshot: Snapshot, state: ProcessState) -> ProcessView:
    return ProcessView(
        states_of(snapshot, state),
        {name: watch.state() for name, watch in state.watches.items()},
        _recent(state.recent) if state.recent is not None else None,
    )


def _recent(recent: "RecentCalls") -> RecentFigures:
    calls = errors = retried = tokens = 0
    streaming = 0.0
    first_tokens: list[float] = []
    from sluice.telemetry.recent import has_several_attempts  # only where calls are remembered

    lines, complete = recent.within(WINDOW)
    for line in lines:
        calls += 1
        errors += getattr(line, "error", None) is not None
        retried += has_several_attempts(line)
        first_token = getattr(line, "ttft", UNSET)
        if not isinstance(first_token, float | int):
            continue
        first_tokens.append(float(first_token))
        out, rest = getattr(line, "tokens_out", UNSET), getattr(line, "duration", 0.0) - first_token
        if getattr(line, "stream", False) is True and isinstance(out, int) and out and rest > 0:
            tokens += out
            streaming += rest
    return RecentFigures(calls, errors, retried, first_tokens, tokens, streaming, complete)


def overview_of(snapshot: Snapshot, state: ProcessState) -> Overview:
    """Returns the overview of a single process."""
    state.deferred.flush()
    series = [*state.records.series.values()]
    requests = {code: int(sum(one.requests[code].value for one in series)) for code in CODES}
    return Overview(
        requests, int(sum(one.in_flight.value for one in series)), [(0, view_of(snapshot, state))]
    )


def calls_of(state: ProcessState, query: CallQuery) -> Found:
    """Returns the last calls of this process; none if none are remembered."""
    state.deferred.flush()
    recent, before, process = state.recent, query.before, os.getpid()
    if recent is None:
        return Found([], 0)
    place = (before.at, before.process) if before is not None else None
    found = recent.newest(query.limit, place, query.wanted, process, query.since)
    return Found([(Place(at, process), call) for at, call in found], len(recent))


def targets_of_all(workers: Iterable[list[TargetState]]) -> dict[tuple[str, str], TargetState]:
    """Returns each target's state, merged over all processes."""
    known: dict[tuple[str, str], list[TargetState]] = {}
    for states in workers:
        for state in states:
            known.setdefault((state.upstream, state.model), []).append(state)
    return {target: merged(states) for target, states in known.items()}


def breakers(targets: Iterable[TargetState]) -> dict[str, int]:
    """Returns the number of targets by the state of their breaker."""
    found: dict[str, int] = dict.fromkeys(BREAKERS, 0)
    for target in targets:
        found[target.breaker] += 1
    return found


def stores_of_all(views: Iterable[ProcessView]) -> dict[str, Any]:
    """Returns the state of each store: failing, if one of the processes cannot use it."""
    found: dict[str, Any] = {}
    for view in views:
        for name, state in view.stores.items():
            if name not in found or state.get("state") != "ok":
                found[name] = state
    return found


def recent_of_all(views: Iterable[ProcessView]) -> dict[str, Any] | None:
    """Returns the figures of recent calls over all processes, times in seconds; None where none are
    remembered.

    Percentiles are those of all calls together (nearest rank), not means of the processes' own.
    """
    found = [view.recent for view in views if view.recent is not None]
    if not found:
        return None
    first_tokens = sorted(seconds for one in found for seconds in one.first_tokens)
    streaming = sum(one.streaming for one in found)
    return {
        "seconds": WINDOW,
        "calls": sum(one.calls for one in found),
        "errors": sum(one.errors for one in found),
        "retried": sum(one.retried for one in found),
        "first_token_p50": _rank(first_tokens, 0.5),
        "first_token_p95": _rank(first_tokens, 0.95),
        "tokens_per_second": round(sum(one.tokens for one in found) / streaming, 2) if streaming else None,
        "complete": all(one.complete for one in found),
    }


def _rank(ordered: list[float], part: float) -> float | None:
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None
