"""GET /admin/overview: how this process does, in one small answer that a page may ask for every other second."""

import os
import platform
import time
from typing import Any

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.frontends import Reply
from sluice.routing.health import BreakerState
from sluice.runtime.snapshot import Snapshot
from sluice.telemetry.metrics import CODES
from sluice.version import VERSION


class AdminOverview:
    def __init__(self, runtime: Snapshot) -> None:
        self._runtime = runtime

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/overview", self._overview)]

    async def _overview(self, request: AdminRequest) -> Reply:
        self._runtime.deferred.flush()
        return reply({**self._process(), **self._figures(), **self._configured()})

    def _process(self) -> dict[str, Any]:
        state = self._runtime.state
        return {
            "version": VERSION,
            "python": platform.python_version(),
            "process": os.getpid(),
            "started": state.started,
            "now": round(time.time(), 3),
            "status": "draining" if state.draining else "ready",
            "stores": {name: watch.state() for name, watch in state.watches.items()},
        }

    def _figures(self) -> dict[str, Any]:
        """Counted since the process has started."""
        series = [*self._runtime.records.series.values()]
        requests = {code: int(sum(one.requests[code].value for one in series)) for code in CODES}
        return {"requests": requests, "in_flight": int(sum(one.in_flight.value for one in series))}

    def _configured(self) -> dict[str, Any]:
        runtime = self._runtime
        config, standings = runtime.config, [*runtime.standings.values()]
        states = {state.name.lower(): sum(one.health.state is state for one in standings) for state in BreakerState}
        return {
            "listen": config.server.listen,
            "frontends": [*runtime.frontends],
            "aliases": len(config.aliases),
            "upstreams": len(config.upstreams),
            "keys": len(config.keys) + len(runtime.keys.table),
            "targets": states,
            "remembers_calls": runtime.state.recent is not None,
        }
