"""The state of targets in one process, and merged over several."""

from typing import TYPE_CHECKING

import msgspec

from sluice.runtime.fleet import BREAKERS, WINDOW, TargetState
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState

if TYPE_CHECKING:
    from sluice.telemetry.recent import RecentCalls


def states_of(snapshot: Snapshot, state: ProcessState) -> list[TargetState]:
    """Returns the state of all targets of the current configuration, in its order."""
    now, aliases = state.clock(), aliases_of(snapshot)
    answered = _answered(state.recent) if state.recent is not None else {}
    found = []
    for (upstream, model), standing in snapshot.standings.items():
        health, load = standing.health, standing.load
        failed_at = health.last_failed_at
        found.append(
            TargetState(
                upstream=upstream,
                model=model,
                aliases=aliases.get(f"{upstream}/{model}", []),
                breaker=BREAKERS[health.state],
                ready_in=max(0.0, health.ready_at() - now),
                in_flight=load.in_flight,
                first_token=load.first_token or None,
                last_error=health.last_error,
                failed_ago=now - failed_at if health.last_error is not None else None,
                answered=answered.get(f"{upstream}/{model}", {}),
            )
        )
    return found


def _answered(recent: "RecentCalls") -> dict[str, dict[str, int]]:
    """Counts the calls of the last `WINDOW` seconds that ended without an error, by target and alias."""
    found: dict[str, dict[str, int]] = {}
    calls, _ = recent.within(WINDOW)
    for seen in calls:
        target, alias = getattr(seen.line, "target", None), getattr(seen.line, "alias", None)
        if isinstance(target, str) and isinstance(alias, str) and getattr(seen.line, "error", None) is None:
            counts = found.setdefault(target, {})
            counts[alias] = counts.get(alias, 0) + 1
    return found


def aliases_of(snapshot: Snapshot) -> dict[str, list[str]]:
    """Returns the aliases that lead to each target, by its label."""
    found: dict[str, list[str]] = {}
    for name, route in snapshot.routes.items():
        for label in dict.fromkeys(target.label for target in route.targets):
            found.setdefault(label, []).append(name)
    return found


def merged(states: list[TargetState]) -> TargetState:
    """Merges one target's state in several processes: the sums of its calls, the worst breaker, the longest
    wait, the latest error.
    """
    answered: dict[str, int] = {}
    for alias, count in (pair for state in states for pair in state.answered.items()):
        answered[alias] = answered.get(alias, 0) + count
    known = [state.first_token for state in states if state.first_token is not None]
    failed = min(
        (state for state in states if state.failed_ago is not None),
        key=lambda s: s.failed_ago or 0.0,
        default=None,
    )
    return msgspec.structs.replace(
        states[0],
        breaker=max((state.breaker for state in states), key=BREAKERS.index),
        ready_in=max(state.ready_in for state in states),
        in_flight=sum(state.in_flight for state in states),
        first_token=sum(known) / len(known) if known else None,
        last_error=failed.last_error if failed is not None else None,
        failed_ago=failed.failed_ago if failed is not None else None,
        answered=answered,
    )
