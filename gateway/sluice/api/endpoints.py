"""Routes of frontends that are not calls, such as lists of models: identifies the caller, and sends the
frontend's answer.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.api.bodies import Bodies, BodyNow, body_reader
from sluice.api.callers import Callers
from sluice.api.request import Request
from sluice.api.table import Handler
from sluice.config.types import covering
from sluice.frontends import Endpoint, Frontend, HistoryForCaller, KeptForCaller
from sluice.identity.principal import Principal
from sluice.model.facts import Facts
from sluice.policies.kept import ResponsesOfTenant
from sluice.policies.turns import HistoryOfCaller
from sluice.runtime.snapshot import Snapshot


class Received(msgspec.Struct, frozen=True, eq=False):
    """A frontend's `Inquiry`."""

    id: str
    method: str
    head: Request
    started: int
    _runtime: Snapshot
    _bodies: Bodies
    _principal: Principal | None
    _body_now: BodyNow

    @property
    def models(self) -> Sequence[str]:
        principal = self._principal
        if principal is None:
            return []
        routes = self._runtime.routes
        catalogue = self._runtime.catalogue
        known = dict.fromkeys(catalogue.names(principal.may))
        granted = [
            (name, covering(routes, name))
            for name in principal.aliases
            if name not in known and name not in routes
        ]
        shown = [
            name for name, alias in granted if alias and not (name.endswith("*") and catalogue.expands(alias))
        ]
        return [*known, *sorted(shown)]

    def facts(self, model: str) -> Facts:
        return self._runtime.catalogue.facts(model)

    @property
    def kept(self) -> KeptForCaller | None:
        policy, principal = self._runtime.kept, self._principal
        return (
            ResponsesOfTenant(policy, policy.store, principal.tenant)
            if policy.store is not None and principal is not None
            else None
        )

    @property
    def history(self) -> HistoryForCaller | None:
        principal = self._principal
        return HistoryOfCaller(self._runtime.turns, principal) if principal is not None else None

    async def json(self) -> dict[str, Any]:
        return await self._bodies.object(self.head, self._body_now)


class Endpoints:
    """The endpoints of one snapshot."""

    def __init__(self, runtime: Snapshot, callers: Callers, bodies: Bodies) -> None:
        self._runtime = runtime
        self._callers = callers
        self._bodies = bodies

    def handler(self, frontend: Frontend, endpoint: Endpoint) -> Handler:
        reader = body_reader(frontend)

        async def answer(request: Request, request_id: str) -> None:
            principal = None
            if endpoint.open:
                await self._callers.anybody(request)
            else:
                principal = await self._callers.identify(request, frontend.credential_parameters)
            runtime = self._runtime
            inquiry = Received(
                id=request_id,
                method=request.method,
                head=request,
                started=runtime.started,
                _runtime=runtime,
                _bodies=self._bodies,
                _principal=principal,
                _body_now=reader,
            )
            reply = await endpoint.answer(inquiry)
            request.reply(reply.status, reply.body, reply.headers, reply.content_type)

        return answer
