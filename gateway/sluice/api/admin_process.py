"""POST /admin/reload: what operators have the running gateway do. The same from whichever worker's connection it is asked."""

from typing import Any

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.errors import Conflict
from sluice.frontends import Reply
from sluice.runtime.fleet import Fleet, Reload
from sluice.runtime.state import ProcessState

STATUSES = {"ok": 200, "invalid": 422, "needs_restart": 409, "failed": 500}


class AdminProcess:
    def __init__(self, state: ProcessState) -> None:
        self._state = state

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("POST", "/admin/reload", self.reload)]

    async def reload(self, request: AdminRequest) -> Reply:
        """200: it is followed by every process. Else no process has changed, and the answer says why."""
        done = await self._fleet().reload()
        return reply(shown(done), STATUSES[done.result])

    def _fleet(self) -> Fleet:
        fleet = self._state.fleet
        if fleet is None:
            raise Conflict("This gateway is part of another process, which has its configuration")
        return fleet


def shown(reload: Reload) -> dict[str, Any]:
    """A reload as operators see it, the problems of the file included."""
    return {
        "result": reload.result,
        "hash": reload.hash,
        "at": round(reload.at, 3),
        "seconds": round(reload.seconds, 3),
        "problems": list(reload.problems),
        "needs_restart": list(reload.needs_restart),
        "warnings": list(reload.warnings),
    }
