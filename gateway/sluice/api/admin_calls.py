"""GET /admin/calls: lists the last calls of all workers, with the fields of their log lines, and for operators
with the texts that are kept (`?content=true`)."""

import re

from sluice.api.admin_requests import AdminRequest, AdminRoute, reply
from sluice.errors import BadRequest, NotFound
from sluice.frontends import Reply
from sluice.runtime.fleet import CallQuery, Found, Place, RecentCalls, together
from sluice.runtime.state import ProcessState
from sluice.runtime.views import calls_of

FILTERS = (
    "alias",
    "key",
    "target",
    "frontend",
    "end",
    "error",
    "request_id",
    "status",
    "ttft",
    "tokens_out",
    "retried",
)
MAX_WITH_TEXTS = 20
"""Calls of an answer with texts: masking those takes a process some 30 ms each, and it has a second."""
_SINCE = re.compile(r"[0-9]{1,11}(\.[0-9]{1,6})?")


class AdminCalls:
    def __init__(self, state: ProcessState) -> None:
        self._state = state

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/calls", self._list)]

    async def _list(self, request: AdminRequest) -> Reply:
        """Lists calls, newest first; `next` is the `before` of the next page. Raises NotFound if none are
        kept."""
        if self._state.recent is None:
            raise NotFound("Calls are remembered only with admin.ui: true")
        query = _query(request)
        fleet = self._state.fleet
        found = (
            await fleet.calls(query)
            if fleet is not None
            else RecentCalls([(0, await calls_of(self._state, query))])
        )
        whole = together(query, [_named(number, calls) for number, calls in found.workers])
        more = str(whole.calls[-1][0]) if len(whole.calls) == query.limit else None
        calls = [call for _, call in whole.calls]
        return reply({"calls": calls, "next": more, "kept": whole.kept, "missing_workers": found.missing})


def _query(request: AdminRequest) -> CallQuery:
    """Parses the query. Raises BadRequest."""
    before = request.query.get("before")
    try:
        place = Place.read(before) if before else None
    except ValueError as error:
        raise BadRequest(f"before: {error}", param="before") from None
    since = request.query.get("since") or "0"
    if not _SINCE.fullmatch(since):
        raise BadRequest("since must be a time in seconds since the epoch", param="since")
    wanted = {name: request.query[name] for name in FILTERS if request.query.get(name)}
    content = request.query.get("content", "false")
    if content not in ("true", "false"):
        raise BadRequest("content must be true or false", param="content")
    limit = request.limit
    if content == "true":
        if "limit" not in request.query:
            limit = MAX_WITH_TEXTS
        elif limit > MAX_WITH_TEXTS:
            raise BadRequest(f"limit must be at most {MAX_WITH_TEXTS} with content=true", param="limit")
    return CallQuery(limit, place, wanted, int(float(since) * 1e6), content == "true")


def _named(number: int, found: Found) -> Found:
    """Adds the number of its worker to each call, if there are several workers."""
    if not number:
        return found
    return Found([(place, {"worker": number, **call}) for place, call in found.calls], found.kept)
