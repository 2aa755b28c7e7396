"""GET /v1/limits: shows what is left of the caller's limits, and of those of its tenant and teams."""

from typing import Any

import msgspec

from sluice.api.callers import Callers
from sluice.api.rendering import NOT_STORED
from sluice.api.request import Request
from sluice.api.table import OwnRoute
from sluice.errors import Forbidden, ModelNotFound
from sluice.identity.principal import Principal
from sluice.runtime.snapshot import Snapshot

LIMITS = "/v1/limits"
_json = msgspec.json.Encoder().encode


class CallerLimits:
    """The limits route of one snapshot."""

    def __init__(self, runtime: Snapshot, callers: Callers) -> None:
        self._runtime = runtime
        self._callers = callers

    def routes(self) -> list[OwnRoute]:
        return [OwnRoute("GET", LIMITS, self._left)]

    async def _left(self, request: Request, request_id: str) -> None:
        """Reads the limits. Raises Forbidden for a page's token and for an end user that the caller may not
        query, NotFound for one without limits of its own, ModelNotFound, and Unavailable if the store does not
        answer.
        """
        principal = await self._callers.identify(request)
        if principal.kind == "browser":
            raise Forbidden("A page's token may not see what its key has left")
        names = self._runtime.end_users
        user = (
            names.known(principal, request.query.get("user", ""), request.headers)
            if names is not None
            else ""
        )
        body = await self._limits_of(principal, request.query.get("model", ""), user)
        request.reply(200, _json(body), NOT_STORED)

    async def _limits_of(self, principal: Principal, model: str, user: str) -> dict[str, Any]:
        routes, limits = self._runtime.routes, self._runtime.limits
        route = (
            (routes.get(model) or self._runtime.wildcards.route_of(model, principal.may)) if model else None
        )
        if model and (route is None or route.wildcard or not principal.may(model)):
            raise ModelNotFound("There is no such model, or this key may not use it", param="model")
        found = await limits.left(principal, route, user)
        return {"object": "list", "key": principal.key_id, "tenant": principal.tenant, "data": found}
