"""The views for operators: of one process, and merged over several."""

import os
from collections.abc import Iterable
from typing import Any

from sluice.runtime.fleet import BREAKERS, CallQuery, Found, Overview, Place, ProcessView, TargetState
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState
from sluice.runtime.targets import merged, states_of
from sluice.telemetry.metrics import CODES


def view_of(snapshot: Snapshot, state: ProcessState) -> ProcessView:
    return ProcessView(
        states_of(snapshot, state), {name: watch.state() for name, watch in state.watches.items()}
    )


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
    found = recent.newest(
        query.limit, (before.at, before.process) if before is not None else None, query.wanted, process
    )
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
