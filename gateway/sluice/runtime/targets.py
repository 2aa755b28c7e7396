"""The state of targets in one process, and merged over several."""

import msgspec

from sluice.runtime.fleet import BREAKERS, TargetState
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState


def states_of(snapshot: Snapshot, state: ProcessState) -> list[TargetState]:
    """Returns the state of all targets of the current configuration, in its order."""
    now, aliases = state.clock(), aliases_of(snapshot)
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
            )
        )
    return found


def aliases_of(snapshot: Snapshot) -> dict[str, list[str]]:
    """Returns the aliases that lead to each target, by its label."""
    found: dict[str, list[str]] = {}
    for name, route in snapshot.routes.items():
        for label in dict.fromkeys(target.label for target in route.targets):
            found.setdefault(label, []).append(name)
    return found


def merged(states: list[TargetState]) -> TargetState:
    """Merges one target's state in several processes: the sum of its calls, the worst breaker, the longest
    wait, the latest error.
    """
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
    )
