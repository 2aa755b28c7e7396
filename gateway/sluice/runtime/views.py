"""The views for operators: of one process, and merged over several."""

import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from sluice.runtime.fleet import (
    BREAKERS,
    STEP,
    WINDOW,
    CallQuery,
    Found,
    Overview,
    Place,
    ProcessView,
    RecentFigures,
    RecentStep,
    TargetState,
)
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState
from sluice.runtime.targets import merged, states_of
from sluice.telemetry.table import CODES

if TYPE_CHECKING:
    from sluice.telemetry.logs import LogLine
    from sluice.telemetry.recent import RecentCalls


def view_of(snapshot: Snapshot, state: ProcessState) -> ProcessView:
    return ProcessView(
        states_of(snapshot, state),
        {name: watch.state() for name, watch in state.watches.items()},
        _recent(state.recent) if state.recent is not None else None,
    )


def _recent(recent: "RecentCalls") -> RecentFigures:
    steps: dict[int, RecentStep] = {}
    calls, complete = recent.within(WINDOW)
    for seen in calls:
        at = seen.at // 1_000_000
        step = steps.setdefault(at - at % STEP, RecentStep())
        _count(step, seen.line)
    return RecentFigures(steps, complete)


def _count(step: RecentStep, line: "LogLine") -> None:
    from sluice.telemetry.recent import has_several_attempts  # only where calls are remembered

    step.calls += 1
    step.errors += getattr(line, "error", None) is not None
    step.retried += has_several_attempts(line)
    first_token = getattr(line, "ttft", UNSET)
    if not isinstance(first_token, float | int):
        return
    step.first_tokens.append(float(first_token))
    out, rest = getattr(line, "tokens_out", UNSET), getattr(line, "duration", 0.0) - first_token
    if getattr(line, "stream", False) is True and isinstance(out, int) and out and rest > 0:
        step.tokens += out
        step.streaming += rest


def overview_of(snapshot: Snapshot, state: ProcessState) -> Overview:
    """Returns the overview of a single process."""
    state.deferred.flush()
    series = [*state.records.series.values()]
    requests = {code: int(sum(one.requests[code].value for one in series)) for code in CODES}
    return Overview(
        requests, int(sum(one.in_flight.value for one in series)), [(0, view_of(snapshot, state))]
    )


async def calls_of(state: ProcessState, query: CallQuery) -> Found:
    """Returns the last calls of this process; none if none are remembered."""
    state.deferred.flush()
    recent, before, process = state.recent, query.before, os.getpid()
    if recent is None:
        return Found([], 0)
    place = (before.at, before.process) if before is not None else None
    found = recent.newest(query.limit, place, query.wanted, process, query.since)
    if query.content:
        for _, call in found:
            call.update(await _content_of(state, recent, call["number"]))
    return Found([(Place(at, process), call) for at, call in found], len(recent))


async def _content_of(state: ProcessState, recent: "RecentCalls", number: int) -> dict[str, Any]:
    """Returns the texts of a call, or why there are none. Masking them takes its time, hence the thread."""
    try:
        draft = recent.draft(number)
    except KeyError:
        return {"content": None, "no_content": "none"}
    if draft is None:
        return {"content": None, "no_content": "forgotten"}
    return {"content": await state.beside(draft.texts)}


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
    steps: dict[int, RecentStep] = {}
    total = RecentStep()
    for figures in found:
        for at, step in figures.steps.items():
            steps.setdefault(at, RecentStep()).add(step)
            total.add(step)
    return {
        "seconds": WINDOW,
        "calls": total.calls,
        "errors": total.errors,
        "retried": total.retried,
        **_first_tokens(total),
        "tokens_per_second": round(total.tokens / total.streaming, 2) if total.streaming else None,
        "complete": all(one.complete for one in found),
        "step": STEP,
        "steps": [
            {"at": at, "calls": step.calls, "errors": step.errors, **_first_tokens(step)}
            for at, step in sorted(steps.items())
        ],
    }


def _first_tokens(step: RecentStep) -> dict[str, float | None]:
    ordered = sorted(step.first_tokens)
    return {"first_token_p50": _rank(ordered, 0.5), "first_token_p95": _rank(ordered, 0.95)}


def _rank(ordered: list[float], part: float) -> float | None:
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else None
