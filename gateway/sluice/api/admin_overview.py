"""GET /admin/overview: the state of the gateway, over all workers, in one small answer. `admin_live` sends it
again and again.
"""

import asyncio
import os
import platform
import time
from collections.abc import Callable
from typing import Any

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.api.admin_usage import usage_today
from sluice.errors import BadRequest
from sluice.frontends import Reply
from sluice.runtime.fleet import Overview
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.views import breakers, overview_of, recent_of_all, stores_of_all, targets_of_all
from sluice.usage import UsageFailed
from sluice.version import VERSION

TODAY_EVERY = 5.0
"""Seconds between two readings of the day's usage, which may be thousands of rows."""
TODAY_PATIENCE = 2.0
"""Seconds that one reading may take: the other figures do not wait for a store that does not answer."""


class AdminOverview:
    """`wall` gives seconds since the epoch."""

    def __init__(self, runtime: Snapshot, wall: Callable[[], float] = time.time) -> None:
        self._runtime = runtime
        self._wall = wall
        self._today: dict[str, Any] | None = None
        self._today_due = 0.0

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/overview", self._overview)]

    async def _overview(self, request: AdminRequest) -> Reply:
        return reply(await self.figures())

    async def figures(self) -> dict[str, Any]:
        """Returns the answer. Raises Unavailable if the supervisor does not answer."""
        fleet = self._runtime.state.fleet
        found = (
            await fleet.overview() if fleet is not None else overview_of(self._runtime, self._runtime.state)
        )
        today = await self._usage_today()
        cost = {"cost_today_usd": today["cost_usd"] if today is not None else None, "today": today}
        return {**self._process(), **_figures(found), **cost, **self._configured()}

    async def _usage_today(self) -> dict[str, Any] | None:
        """Returns what was used since midnight UTC, at most TODAY_EVERY seconds old; None if the store does
        not answer."""
        clock = self._runtime.state.clock
        if clock() >= self._today_due:
            self._today_due = clock() + TODAY_EVERY
            runtime = self._runtime
            try:
                async with asyncio.timeout(TODAY_PATIENCE):
                    self._today = await usage_today(runtime.usage, runtime.loaded.prices, self._wall)
            except (UsageFailed, TimeoutError, BadRequest):
                self._today = None
        return self._today

    def _process(self) -> dict[str, Any]:
        state = self._runtime.state
        return {
            "version": VERSION,
            "python": platform.python_version(),
            "process": os.getpid(),
            "started": state.started,
            "now": round(self._wall(), 3),
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
        "recent": recent_of_all(views),
        "requests": found.requests,
        "in_flight": found.in_flight,
        "targets": breakers(targets_of_all(view.targets for view in views).values()),
        "workers": len(views),
        "missing_workers": found.missing,
    }
