"""GET /admin/calls: the last calls that this process has answered, as their log lines have them."""

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.errors import BadRequest, NotFound
from sluice.frontends import Reply
from sluice.runtime.state import ProcessState

FILTERS = ("alias", "key", "target", "frontend", "end", "error", "request_id")


class AdminCalls:
    def __init__(self, state: ProcessState) -> None:
        self._state = state

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/calls", self._list)]

    async def _list(self, request: AdminRequest) -> Reply:
        """Newest first; `next` is the `before` of the page behind. Raises NotFound where none are kept."""
        recent = self._state.recent
        if recent is None:
            raise NotFound("Calls are remembered only with admin.ui: true")
        self._state.deferred.flush()
        limit, before = request.limit, request.query.get("before", "0")
        if not (before.isascii() and before.isdigit() and len(before) < 16):
            raise BadRequest("before must be the number of a call", param="before")
        wanted = {name: request.query[name] for name in FILTERS if request.query.get(name)}
        calls = recent.newest(limit, int(before), wanted)
        more = calls[-1]["number"] if len(calls) == limit else None
        return reply({"calls": calls, "next": more, "kept": len(recent)})
