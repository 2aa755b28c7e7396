"""Routes by which operators control the running gateway: POST /admin/reload, /admin/restart and /admin/drain,
GET /admin/status and /admin/targets, POST /admin/targets/{upstream}/{model}/disable, enable and drain.

Any worker can answer: `sluice.runtime.fleet` carries each request out in all of them.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.errors import Conflict, NotFound
from sluice.frontends import Reply
from sluice.runtime.fleet import Fleet, Reload, TargetState
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.targets import merged
from sluice.version import VERSION

STATUSES = {"ok": 200, "invalid": 422, "needs_restart": 409, "failed": 500}
SWITCHES: dict[str, str | None] = {"disable": "disabled", "drain": "draining", "enable": None}


class AdminProcess:
    """The routes of one snapshot. `wall` gives seconds since the epoch."""

    def __init__(self, runtime: Snapshot, wall: Callable[[], float] = time.time) -> None:
        self._runtime = runtime
        self._state = runtime.state
        self._wall = wall

    def routes(self) -> list[AdminRoute]:
        target = "/admin/targets/{upstream}/{+model}"
        switches = [
            AdminRoute("POST", f"{target}/{verb}", partial(self.switch, state))
            for verb, state in SWITCHES.items()
        ]
        return [
            AdminRoute("POST", "/admin/reload", self.reload),
            AdminRoute("POST", "/admin/restart", self.restart),
            AdminRoute("POST", "/admin/drain", self.drain),
            AdminRoute("GET", "/admin/status", self.status),
            AdminRoute("GET", "/admin/targets", self.targets),
            *switches,
        ]

    async def reload(self, request: AdminRequest) -> Reply:
        """Reloads the configuration. 200: all processes use it now. Otherwise none has changed, and the
        answer says why.
        """
        done = await self._fleet().reload()
        return reply(shown(done), STATUSES[done.result])

    async def restart(self, request: AdminRequest) -> Reply:
        """Starts a restart; /admin/status reports its progress."""
        await self._fleet().restart()
        return reply({"restarting": True}, 202)

    async def drain(self, request: AdminRequest) -> Reply:
        """Starts a drain: the gateway exits when the calls in flight have ended."""
        await self._fleet().drain()
        return reply({"draining": True}, 202)

    async def status(self, request: AdminRequest) -> Reply:
        found = await self._fleet().status()
        following = self._state.following
        last = shown(following.last) if following.last is not None else None
        config = {"hash": following.hash, "since": round(following.since, 3), "last_reload": last}
        return reply({"version": VERSION, **found, "config": config})

    async def targets(self, request: AdminRequest) -> Reply:
        found = await self._fleet().targets()
        by_target: dict[tuple[str, str], list[tuple[int, TargetState]]] = {}
        for number, states in sorted(found.workers, key=lambda worker: worker[0]):
            for state in states:
                by_target.setdefault((state.upstream, state.model), []).append((number, state))
        now = self._wall()
        targets = [_target(known, found.off, now) for known in by_target.values()]
        return reply({"targets": targets, "missing_workers": found.missing})

    async def switch(self, state: str | None, request: AdminRequest) -> Reply:
        """Switches a target off or on, in all workers. Raises NotFound if the configuration has no such
        target."""
        upstream, model = request.parameters["upstream"], request.parameters["model"]
        if (upstream, model) not in self._runtime.names.targets:
            raise NotFound("There is no such target: GET /admin/targets lists them")
        await self._fleet().switch(f"{upstream}/{model}", state)
        return reply({"upstream": upstream, "model": model, "state": state or "enabled"})

    def _fleet(self) -> Fleet:
        fleet = self._state.fleet
        if fleet is None:
            raise Conflict("This gateway is part of another process, which controls it")
        return fleet


def shown(reload: Reload) -> dict[str, Any]:
    """Returns the JSON object of a reload, with the problems of the file."""
    return {
        "result": reload.result,
        "hash": reload.hash,
        "at": round(reload.at, 3),
        "seconds": round(reload.seconds, 3),
        "problems": list(reload.problems),
        "needs_restart": list(reload.needs_restart),
        "warnings": list(reload.warnings),
    }


def _target(known: list[tuple[int, TargetState]], off: dict[str, str], now: float) -> dict[str, Any]:
    """Returns the JSON object of a target over all workers, and for each of them if there are several."""
    whole = merged([state for _, state in known])
    state = off.get(whole.label, "enabled")
    if state == "draining" and not whole.in_flight:
        state = "drained"
    found = {
        "upstream": whole.upstream,
        "model": whole.model,
        "state": state,
        "aliases": whole.aliases,
        **_figures(whole, now),
    }
    if len(known) > 1:
        found["workers"] = [{"worker": number, **_figures(one, now)} for number, one in known]
    return found


def _figures(state: TargetState, now: float) -> dict[str, Any]:
    failed = state.failed_ago
    return {
        "breaker": state.breaker,
        "ready_at": round(now + state.ready_in, 3) if state.ready_in else None,
        "last_error": state.last_error,
        "last_error_at": round(now - failed, 3) if failed is not None else None,
        "in_flight": state.in_flight,
        "first_token_seconds": round(state.first_token, 6) if state.first_token is not None else None,
    }
