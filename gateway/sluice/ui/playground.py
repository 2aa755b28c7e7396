"""Calls from the pages: an operator's request is answered like any client's, on behalf of one of the
gateway's keys.

POST /ui/play/{path} has the client's path. Its limits, budgets, log line, usage and metrics are those of the
key that `x-sluice-key` names; the key's secret is not needed. `x-sluice-only` names the one target of the
alias, "upstream/model", that has to answer; callers themselves cannot choose.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import msgspec

from sluice.api.admin import Admit
from sluice.api.admin_roles import NEEDED, check_role
from sluice.api.callers import Callers
from sluice.api.cors import Cors
from sluice.api.request import Request
from sluice.errors import BadRequest, Forbidden
from sluice.identity.principal import Principal
from sluice.proxy.target import Route, Target
from sluice.routing.strategies import RoutedTier
from sluice.runtime.snapshot import Snapshot

PREFIX = "/ui/play"
ROUTE = f"POST {PREFIX}/{{+path}}"
KEY_HEADER = "x-sluice-key"
ONLY_HEADER = "x-sluice-only"


class ActingCallers(Callers):
    """Identifies an operator's requests as those of the key that they name."""

    def __init__(self, runtime: Snapshot, cors: Cors) -> None:
        super().__init__(runtime, cors)
        self.narrowed = _narrowed

    def recognize(self, request: Request, hidden: tuple[str, ...] = ()) -> Principal:
        """Returns the key's principal. Raises BadRequest, Forbidden."""
        key_id = request.headers.get(KEY_HEADER, "")
        if not key_id:
            raise BadRequest(f"{KEY_HEADER} must name the key that the call is made for", param=KEY_HEADER)
        principal = self._runtime.authenticator.key(key_id)
        if principal is None:
            raise Forbidden("There is no such key that may be used")
        request.caller = principal.key_id
        return principal


def _narrowed(route: Route, request: Request) -> Route:
    """Returns the route with only the target that the request names. Raises BadRequest."""
    wanted = request.headers.get(ONLY_HEADER, "")
    if not wanted:
        return route
    for tier in route.tiers:
        for target in tier.targets:
            if isinstance(target, Target) and target.label == wanted:
                only = RoutedTier([target], tier.strategy, tier.affinity, pooled=tier.pooled)
                return msgspec.structs.replace(route, tiers=(only,), shadow=None, single_target=False)
    raise BadRequest(f"{ONLY_HEADER} must name a target of {route.name}", param=ONLY_HEADER)


class Playground:
    """Answers these calls. `answer` answers a client's request; `admit` identifies operators."""

    def __init__(self, admit: Admit, answer: Callable[[Request], Awaitable[None]]) -> None:
        self._admit = admit
        self._answer = answer

    async def play(self, request: Request, request_id: str) -> None:
        check_role(await self._admit(request), NEEDED[ROUTE], ROUTE)
        request.extra[:] = [pair for pair in request.extra if pair[0] not in ("x-request-id", "request-id")]
        request.path = "/" + quote(request.parameters["path"], safe="/:@%+~!$&'()*,;=-._")
        await self._answer(request)
