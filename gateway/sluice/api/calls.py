"""Answers a call in any client dialect: identity, body, frontend, alias, pipeline."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from sluice.api.bodies import Bodies, BodyNow, body_reader, form_now
from sluice.api.callers import Callers
from sluice.api.refusals import Refusals
from sluice.api.request import Request, WholeWriter
from sluice.errors import Forbidden, GatewayError, ModelNotFound, without_frames
from sluice.frontends import CallRoute, Envelope, Frontend, Header, Parse, Prepare
from sluice.identity.principal import NOT_OF_THE_PREFIX, Principal
from sluice.model.chat import ChatRequest
from sluice.proxy.call import MAX_INLINE_BYTES, Call
from sluice.proxy.writer import ResponseWriter
from sluice.resume.streams import ResumableStreams
from sluice.routing.strategies import NO_TRAITS, traits_of
from sluice.runtime.snapshot import Snapshot
from sluice.wire.forwarding import own_lines


def renames(frontend: Envelope) -> bool:
    """Returns whether a dialect has its own names for response headers."""
    return type(frontend).headers is not Envelope.headers


class CallEntry(msgspec.Struct, frozen=True, eq=False):
    """A route of calls, and its handler. `hidden`: query parameters that may hold a key. `operation`: "" is
    chat.

    `body_now` reads bodies. `rename` translates response headers to the dialect's names; None: they stay.
    """

    frontend: Frontend
    parse: Parse
    prepare: Prepare | None
    hidden: tuple[str, ...]
    answer: "Callable[[Request, str, CallEntry], Awaitable[None]]"
    body_now: BodyNow
    operation: str = ""
    form: bool = False
    rename: Callable[[Sequence[Header]], Sequence[Header]] | None = None

    def __call__(self, request: Request, request_id: str) -> Awaitable[None]:
        return self.answer(request, request_id, self)


class Calls:
    """Answers the calls of one snapshot. Errors are rendered, counted and logged here; nothing is raised."""

    def __init__(
        self,
        runtime: Snapshot,
        callers: Callers,
        bodies: Bodies,
        refusals: Refusals,
        resumable: ResumableStreams,
    ) -> None:
        self._runtime = runtime
        self._callers = callers
        self._narrowed = callers.narrowed
        self._bodies = bodies
        self._refusals = refusals
        self._resumable = resumable
        self._answer = runtime.pipeline.answer
        self._finished = runtime.records.finished

    def entry(self, frontend: Frontend, route: CallRoute) -> CallEntry:
        hidden = frontend.credential_parameters
        rename = frontend.headers if renames(frontend) else None
        reader = form_now if route.form else body_reader(frontend)
        return CallEntry(
            frontend,
            route.parse,
            route.prepare,
            hidden,
            self.answer,
            reader,
            operation=route.operation,
            form=route.form,
            rename=rename,
        )

    async def answer(self, request: Request, request_id: str, entry: CallEntry) -> None:
        """Answers one call, or refuses it."""
        runtime, callers, frontend = self._runtime, self._callers, entry.frontend
        call: Call | None = None
        error: GatewayError | None = None
        principal: Principal | None = None
        address = ""
        try:
            address = runtime.addresses(request.peer, request.headers)
            callers.admit(request, address)
            try:
                principal = callers.recognize(request, entry.hidden)
            except GatewayError as unknown:
                principal = await callers.unrecognized(unknown, request, address, entry.hidden)
            try:
                body: Any = entry.body_now(request)
                if body is None:
                    body = await (self._bodies.form(request) if entry.form else self._bodies.late(request))
                size = len(body)
                if size <= MAX_INLINE_BYTES or (entry.form and not isinstance(body, bytes)):
                    chat = entry.parse(body, request)
                else:
                    chat = await runtime.beside(entry.parse, body, request)
                call = self._call(chat, request, request_id, entry, principal)
            except GatewayError:
                await runtime.limits.charge(address)  # without a call, only the address is charged
                raise
            call.address, call.size = address, size
            alias, writer = call.route.config, request if chat.stream else WholeWriter(request)
            if alias.resumable and chat.stream and frontend.numbered and chat.resumes:
                await self._resumable.answer(call, request)
            elif alias.on_disconnect == "cancel":
                await self._answer(call, writer)
            else:
                await self._answer_to_the_end(call, writer)
        except GatewayError as refused:
            error = refused
            known = [*call.headers, *call.attribution()] if call is not None else ()
            self._refusals.refuse(request, frontend, refused, request_id, known)
        except Exception as crash:
            error = self._refusals.crashed(request, frontend, crash, request_id)
        finally:
            self._finished(
                request,
                call,
                error,
                request_id=request_id,
                frontend=frontend.name,
                principal=principal,
                address=address,
            )
            if error is not None:
                without_frames(error)
            del error

    async def _answer_to_the_end(self, call: Call, writer: ResponseWriter) -> None:
        """Answers a call that outlives its client: in a task of its own, for a bounded time."""
        task = asyncio.create_task(self._answer(call, writer))
        try:
            await asyncio.shield(task)
        finally:
            if not task.done():
                writer.detach()
                self._runtime.outlives(call, task)

    def _call(
        self, chat: ChatRequest, request: Request, request_id: str, entry: CallEntry, principal: Principal
    ) -> Call:
        """Reads the request, and makes its call. Raises ModelNotFound, Forbidden, BadRequest."""
        runtime = self._runtime
        name = chat.model or principal.default_alias or ""
        route = runtime.routes.get(name)
        if route is None and (other := entry.frontend.other_name(name)):
            name, route = other, runtime.routes.get(other)
        if route is None and name:
            route = runtime.wildcards.route_of(name, principal.may)
        if route is None or route.wildcard or not principal.may(name):
            what = (
                "Say which model to use" if not name else "There is no such model, or this key may not use it"
            )
            raise ModelNotFound(what, param="model")
        if self._narrowed is not None:
            route = self._narrowed(route, request)
        if principal.session_prefix and chat.session is not None:
            session = principal.session(chat.session)
            if session is None:
                raise Forbidden(NOT_OF_THE_PREFIX)
            chat = msgspec.structs.replace(chat, session=session)
        if entry.prepare is not None:
            chat = entry.prepare(chat, route.config)
        headers, frontend = request.headers, entry.frontend
        series = runtime.records.series[frontend.name, route.name]
        traits = (
            NO_TRAITS if route.single_target else traits_of(chat, principal.key_id, principal.tenant, headers)
        )
        call = Call(request_id, request.received, frontend, principal, route, chat, series, traits)
        if runtime.tracer is None:
            call.lines = own_lines(request_id, headers)
        else:
            call.lines, call.trace = own_lines(request_id, {}), runtime.tracer.begin(headers)
        if runtime.recorder is not None:
            call.content = runtime.recorder.content(route.config, principal)
        if runtime.end_users is not None:
            call.end_user = runtime.end_users.owner(principal, chat, headers)
        if runtime.tags is not None:
            call.tags = runtime.tags.of(chat, headers)
        if runtime.forwardable:
            call.forward = {name: headers[name] for name in runtime.forwardable if name in headers}
        return call
