"""GET /admin/overview: the state of the gateway, over all workers, in one small answer that a page may
request every other second.
"""

import os
import platform
import time
from typing import Any

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.frontends import Reply
from sluice.runtime.fleet import Overview
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.views import breakers, overview_of, stores_of_all, targets_of_all
from sluice.version import VERSION


class AdminOverview:
    def __init__(self, runtime: Snapshot) -> None:
        self._runtime = runtime

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/overview", self._overview)]

    async def _overview(self, request: AdminRequest) -> Reply:
        fleet = self._runtime.state.fleet
        found = (
            await fleet.overview() if fleet is not None else overview_of(self._runtime, self._runtime.state)
        )
        return reply({**self._process(), **_figures(found), **self._configured()})

    def _process(self) -> dict[str, Any]:
        state = self._runtime.state
        return {
            "version": VERSION,
            "python": platform.python_version(),
            "process": os.getpid(),
            "started": state.started,
            "now": round(time.time(), 3),
            "status": "draining" if state.draining else "ready",
        }

    def _configured(self) -> dict[str, Any]:
        runtime = self._runtime
        config = runtime.config
        return {
            "listen": config.server.listen,
            "frontends": [*runtime.frontends],
            "aliases": len(config.aliases),
            "upstreams": len(config.upstreams),
            "keys": len(config.keys) + len(runtime.keys.table),
            "remembers_calls": runtime.state.recent is not None,
        }


def _figures(found: Overview) -> dict[str, Any]:
    views = [view for _, view in found.workers]
    return {
        "stores": stores_of_all(views),
        "requests": found.requests,
        "in_flight": found.in_flight,
        "targets": breakers(targets_of_all(view.targets for view in views).values()),
        "workers": len(views),
        "missing_workers": found.missing,
    }
