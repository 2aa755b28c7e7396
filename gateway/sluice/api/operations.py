"""Answers calls of operations other than chat by those of an alias's targets that carry the operation."""

from typing import Any, cast

import msgspec

from sluice.api.bodies import Bodies
from sluice.api.callers import Callers
from sluice.api.calls import CallEntry, Calls
from sluice.api.refusals import Refusals
from sluice.api.request import Request
from sluice.errors import BadRequest
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest
from sluice.model.operations import OperationRequest
from sluice.proxy.call import Call
from sluice.proxy.operations import route_for
from sluice.proxy.target import Route
from sluice.proxy.writer import ResponseWriter
from sluice.resume.streams import ResumableStreams
from sluice.routing.strategies import NO_TRAITS, traits_of
from sluice.runtime.snapshot import Snapshot


class OperationCalls(Calls):
    """The calls of one operation, such as embeddings."""

    def __init__(
        self,
        runtime: Snapshot,
        callers: Callers,
        bodies: Bodies,
        refusals: Refusals,
        streams: ResumableStreams,
    ) -> None:
        super().__init__(runtime, callers, bodies, refusals, streams)
        self._count: Any = runtime.metrics.child
        self._routes: dict[tuple[str, str, str], Route | None] = {}
        self._answer = self._carried

    async def answer(self, request: Request, request_id: str, entry: CallEntry) -> None:
        try:
            await super().answer(request, request_id, entry)
        finally:
            if request.status:
                code = f"{request.status // 100}xx"
                self._count("operation_requests", entry.operation, entry.frontend.name, code).inc()

    async def _carried(self, call: Call, writer: ResponseWriter) -> None:
        """Answers by the pipeline, or by the request's own fallback if no target carries it."""
        if call.chat.messages or call.route.operation:
            return await self._runtime.pipeline.answer(call, writer)
        writer.begin("application/json", call.headers)
        writer.write(cast(OperationRequest, call.chat).otherwise, last=True)
        call.finish("done")

    def _call(
        self, chat: ChatRequest, request: Request, request_id: str, entry: CallEntry, principal: Principal
    ) -> Call:
        """Makes the call. Raises BadRequest if no target of the alias carries the operation."""
        call = super()._call(chat, request, request_id, entry, principal)
        route = self._route(call.route, entry, chat.dialect)
        call.traits = NO_TRAITS
        if route is None:
            if chat.messages:  # a chat can stand for it
                return super()._call(chat, request, request_id, entry, principal)
            if cast(OperationRequest, chat).otherwise:
                return call
            message = f"No upstream of this model carries {entry.operation}"
            raise BadRequest(message, param="model", code="unsupported_operation")
        call.route = route
        if not route.single_target:
            traits = traits_of(chat, principal.key_id, principal.tenant, request.headers)
            call.traits = msgspec.structs.replace(traits, tokens=cast(OperationRequest, chat).longest)
        return call

    def _route(self, route: Route, entry: CallEntry, dialect: str) -> Route | None:
        if route.called:
            return route_for(route, entry.operation, dialect)
        name = (route.name, entry.operation, dialect)
        if name not in self._routes:
            self._routes[name] = route_for(route, entry.operation, dialect)
        return self._routes[name]
