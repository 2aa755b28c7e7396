"""The routes: what each path answers, and the one place that knows status codes. No sockets here.

Every request comes to `Api.__call__`: it gets its id, is dispatched, and whatever goes wrong is rendered in the dialect
of its route. A chat call is always downhill: identity, body, frontend, alias, pipeline.
"""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from sluice.api.admin_budgets import AdminBudgets
from sluice.api.admin_keys import ROUTES as OF_A_KEY
from sluice.api.admin_keys import AdminKeys
from sluice.api.admin_usage import usage_of
from sluice.api.openapi import document
from sluice.api.rendering import (
    EXPOSED_HEADERS,
    NOT_STORED,
    allowed_headers,
    conversation_object,
    headers_of,
    message_object,
    renewed_object,
    status_of,
    token_object,
)
from sluice.api.request import Request, WholeWriter
from sluice.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    UnsupportedMediaType,
    without_frames,
)
from sluice.frontends import Frontend
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.widget.dialect import WidgetStream, WidgetWhole, check_message
from sluice.identity import KeysWanted
from sluice.identity.browser import token_request
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest, with_system
from sluice.proxy.call import LARGE, Call
from sluice.proxy.writer import ResponseWriter
from sluice.resume.streams import ResumableStreams, place_of
from sluice.routing.strategies import NOTHING, asked_of
from sluice.runtime.runtime import Runtime
from sluice.wire.forwarding import own_lines
from sluice.wire.jsontext import parse_object

SMALL = 64 << 10
"""Bytes of what is no call: keys, tokens."""
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_json = msgspec.json.Encoder().encode
INLINE = 32 << 10
"""Compressed bytes that are decompressed on the event loop; more are in a thread."""


Handler = Callable[["Api", Request, str], Awaitable[None]]


class Api:
    """The client-facing routes (`routes=API`) or the admin port's (`routes=ADMIN`) of one runtime."""

    def __init__(self, runtime: Runtime, routes: Mapping[str, Mapping[str, "Handler"]]) -> None:
        self.runtime = runtime
        self._routes = routes
        self._names = _names_of(routes)
        called = {path: methods["POST"] for path, methods in routes.items() if methods.get("POST") in CALLS}
        self._calls = {name: called[path] for name, path in self._names.items() if path in called}
        self._prefixes = {name: path for name, path in self._names.items() if path.endswith("*")}
        served = ", ".join(path for path in SHOWN if path in routes)
        self._nothing = f"There is nothing at this path. Served are {served}" if served else "There is nothing at this path"
        self.widget_stream = WidgetStream()
        self.widget_whole = WidgetWhole()
        self.openai = OpenAI()
        self._scraping = asyncio.Lock()
        self._keys = AdminKeys(runtime.keys, runtime.config, runtime.log)
        self._budgets = AdminBudgets(runtime.store, runtime.config, runtime.keys.table, runtime.log, time.time)
        self._resumable = ResumableStreams(
            runtime.journals,
            {frontend.name: frontend for frontend in (self.widget_stream, self.openai)},
            answer=runtime.pipeline.answer,
            outlives=runtime.outlives,
            write_idle=float(runtime.config.server.write_idle),
        )

    def __call__(self, request: Request) -> Awaitable[None]:
        asked = request.headers.get("x-request-id", "")
        request_id = asked if asked and REQUEST_ID.fullmatch(asked) else f"{random.getrandbits(128):032x}"
        request.extra += (("x-request-id", request_id), ("request-id", request_id))
        calls = self._calls.get(request.path) if request.method == "POST" else None
        return self._other(request, request_id) if calls is None else calls(self, request, request_id)

    async def _other(self, request: Request, request_id: str) -> None:
        """Answer a request that is no call."""
        route = self._names.get(request.path) or self._prefix_of(request)
        refused: GatewayError | None = None
        crashed = False
        address = ""
        try:
            handler = self._handler_of(request, self._methods_of(request, route))
            if handler is not None:
                await handler(self, request, request_id)
        except GatewayError as error:
            refused = error
            address = self._address(request) if isinstance(error, Unauthorized) else ""
            self._refuse(request, self._dialect_of(request.path), error, request_id)
        except Exception as crash:
            crashed = True
            self._crashed(request, self._dialect_of(request.path), crash, request_id)
        if route not in RECORDED or refused is not None or crashed:
            frontend = self._dialect_of(request.path).name
            self.runtime.records.other(request, request_id, frontend, route or "other", refused, address)
        del refused  # it knows this frame by its traceback

    def _handler_of(self, request: Request, methods: Mapping[str, "Handler"] | None) -> "Handler | None":
        """Who answers this request to a route that has these methods; None where it has been answered."""
        if methods is None:
            raise NotFound(self._nothing)
        method = request.method
        if method == "OPTIONS":
            self._preflight(request, methods)
            return None
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise MethodNotAllowed(_allowed(methods))
        return handler

    def _methods_of(self, request: Request, route: str) -> Mapping[str, "Handler"] | None:
        """The methods of what this request of `route` names, and who answers them; None where there is nothing.

        One route holds a key and its actions, which have methods of their own.
        """
        methods = self._routes.get(route)
        if methods is None or route != A_KEY:
            return methods
        _, _, action = request.path.removeprefix("/admin/keys/").partition("/")
        return {method: methods[method] for method in OF_A_KEY[action]} if action in OF_A_KEY else None

    def _prefix_of(self, request: Request) -> str:
        """The route with a parameter at its end that this request's path belongs to, which is then written as the route has it.

        "" where there is none.
        """
        path = request.path
        for prefix, route in self._prefixes.items():
            if path.startswith(prefix[:-1]) and len(path) >= len(prefix):
                request.path = route[:-1] + path[len(prefix) - 1 :].rstrip("/")
                return route
        return ""

    def _dialect_of(self, path: str) -> Frontend:
        """Whose errors a path answers with: an unknown one below /v1 those of OpenAI, whose clients look for it there."""
        ours = path.startswith(OURS) and not path.startswith("/v1/chat/completions")
        return self.openai if not ours and path.startswith(OPENAI) else self.widget_whole

    # --- errors

    def _refuse(
        self,
        request: Request,
        frontend: Frontend,
        error: GatewayError,
        request_id: str,
        known: Sequence[tuple[str, str]] = (),
    ) -> None:
        """`known`: the headers that the answer would have had."""
        status = status_of(error, frontend)
        try:
            request.reply(status, _json(frontend.error(error, request_id)), [*known, *headers_of(error, status)])
        except Exception as crash:  # nothing has been said: what cannot be written can still be answered
            self.runtime.records.crashed(crash, request_id)
            request.reply(500, _json(frontend.error(GatewayError("Internal server error"), request_id)))

    def _crashed(self, request: Request, frontend: Frontend, crash: Exception, request_id: str) -> GatewayError:
        """A fault of ours: told to the log (where, not what), and never to the caller."""
        self.runtime.records.crashed(crash, request_id)
        error = GatewayError("Internal server error")
        if request.begun:
            request.abort()
        else:
            self._refuse(request, frontend, error, request_id)
        return error

    # --- CORS

    def _preflight(self, request: Request, methods: Mapping[str, "Handler"]) -> None:
        allowed = _allowed(methods)
        headers = [("Allow", allowed)]
        origin = request.headers.get("origin", "")
        if origin in self.runtime.origins and is_for_pages(request.path):
            headers = [
                *self._cors(origin),
                ("Access-Control-Allow-Methods", allowed),
                ("Access-Control-Allow-Headers", allowed_headers(request.headers.get("access-control-request-headers", ""))),
                ("Access-Control-Max-Age", "600"),
            ]
        request.reply(204, b"", headers)

    def _cors(self, origin: str) -> list[tuple[str, str]]:
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", EXPOSED_HEADERS),
            ("Vary", "Origin"),
        ]

    async def _identify(self, request: Request) -> Principal:
        """Who is asking, within the address's limit."""
        address = self._address(request)
        self._admit(request, address)
        try:
            principal = self._recognize(request)
        except GatewayError as unknown:
            principal = await self._unrecognized(unknown, request, address)
        await self.runtime.limits.charge(address)
        return principal

    def _address(self, request: Request) -> str:
        return self.runtime.addresses(request.peer, request.headers)

    def _admit(self, request: Request, address: str) -> None:
        """Before anybody asks who is asking: an address that has nothing left is refused. Raises RateLimited."""
        if "origin" in request.headers:
            origin = request.headers["origin"]
            if origin in self.runtime.origins and is_for_pages(request.path):
                request.extra += self._cors(origin)
        self.runtime.limits.check(address)

    def _recognize(self, request: Request) -> Principal:
        """Who is asking. A key that is bound to origins is refused to other pages. Raises GatewayError."""
        principal = self.runtime.authenticator.identify(request.raw_headers, request.headers)
        request.caller = principal.key_id
        if principal.origins:
            origin = request.headers.get("origin", "")
            if (origin or principal.kind == "browser") and origin not in principal.origins:
                raise Forbidden("This key may not be used from this origin")
        return principal

    async def _unrecognized(self, why: GatewayError, request: Request, address: str) -> Principal:
        """A try that failed is charged to its address; only a token whose issuer's keys are not known yet waits, once."""
        try:
            if not isinstance(why, KeysWanted):
                raise why
            await why.keys.renew()
            try:
                return self._recognize(request)
            except KeysWanted as again:
                raise Unauthorized(again.reason) from None
        except GatewayError as error:
            await self.runtime.limits.charge(address)
            if isinstance(error, Unauthorized):
                self.runtime.records.auth_failures[error.reason].inc()
            raise
        finally:
            del why  # it knows this frame by its traceback

    async def _admit_operator(self, request: Request) -> None:
        """Guessing the admin key costs what guessing any other does."""
        await self.runtime.limits.charge(self._address(request))
        try:
            self.runtime.check_admin(request.raw_headers)
        except Unauthorized as error:
            self.runtime.records.auth_failures[error.reason].inc()
            raise

    # --- chat

    async def chat(self, request: Request, request_id: str, frontend: Frontend) -> None:
        """One chat call in any client dialect."""
        runtime = self.runtime
        call: Call | None = None
        error: GatewayError | None = None
        principal: Principal | None = None
        address = ""
        try:
            address = runtime.addresses(request.peer, request.headers)
            self._admit(request, address)
            try:
                principal = self._recognize(request)
            except GatewayError as unknown:
                principal = await self._unrecognized(unknown, request, address)
            try:
                body = self._body_now(request)
                if body is None:
                    body = await self._late_body(request)
                size = len(body)
                if size <= LARGE:
                    chat = frontend.parse(body, request.headers)
                else:
                    chat = await runtime.beside(frontend.parse, body, request.headers)
                call = self._call(chat, size, request, request_id, frontend, principal, address)
            except GatewayError:
                await runtime.limits.charge(address)  # what is no call is charged to its address alone
                raise
            alias = call.route.config
            writer = request if call.chat.stream else WholeWriter(request)
            if call.chat.stream and alias.resumable:
                await self._resumable.answer(call, request)
            elif alias.on_disconnect == "cancel":
                await runtime.pipeline.answer(call, writer)
            else:
                await self._answer_to_the_end(call, writer)
        except GatewayError as refused:
            error = refused
            known = [*call.headers, *call.attribution()] if call is not None else ()
            self._refuse(request, frontend, refused, request_id, known)
        except Exception as crash:
            error = self._crashed(request, frontend, crash, request_id)
        finally:
            runtime.records.finished(
                request, call, error, request_id=request_id, frontend=frontend.name, principal=principal, address=address
            )
            if error is not None:
                without_frames(error)
            del error

    async def _answer_to_the_end(self, call: Call, writer: ResponseWriter) -> None:
        """The call outlives its client: in a task of its own, for a bounded time."""
        task = asyncio.create_task(self.runtime.pipeline.answer(call, writer))
        try:
            await asyncio.shield(task)
        finally:
            if not task.done():
                writer.detach()
                self.runtime.outlives(call, task)

    async def resume(self, request: Request, request_id: str) -> None:
        """What a client missed of a stream, and what comes: of the one that the path names, or `Last-Event-ID`."""
        last = request.headers.get("last-event-id", "")
        stream = request.path.removeprefix("/v1/chat/stream/") if request.path.startswith("/v1/chat/stream/") else ""
        if request.method != "GET" or not (stream or last):
            raise MethodNotAllowed("GET, OPTIONS" if stream else "OPTIONS, POST")
        principal = await self._identify(request)
        place = place_of(stream, request.query.get("after", ""), last)
        refused = False
        try:
            await self._resumable.resume(place, request, principal, request_id)
        except GatewayError:  # it is recorded as what it is: a request that was refused
            refused = True
            raise
        finally:
            if not refused:
                self.runtime.records.resumed(request, request_id, principal, place.stream)

    async def _json_object(self, request: Request) -> dict[str, Any]:
        """The body of what is no call. Raises GatewayError, PayloadTooLarge beyond SMALL bytes among them."""
        body = self._body_now(request)
        body = await self._late_body(request) if body is None else body
        if len(body) > SMALL:
            raise PayloadTooLarge(f"The body may have {SMALL} bytes")
        return parse_object(body)

    def _body_now(self, request: Request) -> bytes | None:
        """The body, where all of it has come and it is not compressed. Raises UnsupportedMediaType."""
        headers = request.headers
        media_type = headers.get("content-type", "")
        if media_type != "application/json" and media_type.partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaType("Send application/json")
        return None if "content-encoding" in headers else request.body_now()

    async def _late_body(self, request: Request) -> bytes:
        """The body, waited for and decompressed. Raises UnsupportedMediaType, PayloadTooLarge, BadRequest."""
        coding = request.headers.get("content-encoding", "")
        if not coding:
            return await request.body()
        from sluice.wire.content_coding import BrokenCoding, ContentDecoder, UnknownCoding, decoded

        limit = int(self.runtime.config.server.body_limit)
        try:
            ContentDecoder(coding)  # one that is not known is refused before the body is read
            body = await request.body()
            small = len(body) <= INLINE
            plain = decoded(body, coding, limit) if small else await self.runtime.beside(decoded, body, coding, limit)
        except UnknownCoding:
            raise UnsupportedMediaType("Send the body as it is, or as gzip, deflate, br or zstd", codings=True) from None
        except BrokenCoding as broken:
            raise BadRequest(f"The body cannot be decoded by its Content-Encoding: {broken}") from None
        if plain is None:
            raise PayloadTooLarge(f"The body may have {limit} bytes when it is decompressed")
        return plain

    def _call(
        self,
        chat: ChatRequest,
        size: int,
        request: Request,
        request_id: str,
        frontend: Frontend,
        principal: Principal,
        address: str,
    ) -> Call:
        name = chat.model or principal.default_alias or ""
        route = self.runtime.routes.get(name)
        if route is None or not principal.may(name):
            what = "Say which model to use" if not name else "There is no such model, or this key may not use it"
            raise ModelNotFound(what, param="model")
        if principal.session_prefix and chat.session is not None:
            session = principal.session(chat.session)
            if session is None:
                raise Forbidden("This token's sessions begin with its session prefix", param="sessionId")
            chat = msgspec.structs.replace(chat, session=session)
        if frontend.name == "widget":
            check_message(chat, route.config.max_message_chars)
            if chat.session is None:  # its own messages: no history, but the alias's prompt all the same
                chat = with_system(chat, route.config.system)
        series = self.runtime.records.series[frontend.name, name]
        asked = NOTHING if route.plain else asked_of(chat, principal.key_id, principal.tenant, request.headers)
        call = Call(request_id, request.received, frontend, principal, route, chat, series, asked, address, size)
        headers = request.headers
        call.lines = own_lines(request_id, headers)
        if self.runtime.forwardable:
            call.forward = {name: headers[name] for name in self.runtime.forwardable if name in headers}
        return call

    # --- models

    async def models(self, request: Request, request_id: str) -> None:
        """OpenAI's list of models: the aliases that the key may use."""
        principal = await self._identify(request)
        names = [name for name in self.runtime.routes if principal.may(name)]
        request.reply(200, _json({"object": "list", "data": [self._model(name) for name in names]}))

    async def model(self, request: Request, request_id: str) -> None:
        principal = await self._identify(request)
        name = unquote(request.path.removeprefix("/v1/models/"))
        if name not in self.runtime.routes or not principal.may(name):
            raise ModelNotFound("There is no such model, or this key may not use it", param="model")
        request.reply(200, _json(self._model(name)))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.runtime.started, "owned_by": "sluice"}

    # --- tokens

    async def tokens(self, request: Request, request_id: str) -> None:
        """A token for a web page, minted by a key."""
        principal = await self._identify(request)
        asked = token_request(await self._json_object(request))
        request.reply(200, _json(token_object(self.runtime.authenticator.mint(principal, asked))), NOT_STORED)

    async def renew_token(self, request: Request, request_id: str) -> None:
        """A page's token goes on, for as long as it may be renewed."""
        address = self._address(request)
        self._admit(request, address)
        try:
            minted = self.runtime.authenticator.renew(request.raw_headers, request.headers.get("origin", ""))
        except Unauthorized as error:
            self.runtime.records.auth_failures[error.reason].inc()
            raise
        finally:
            await self.runtime.limits.charge(address)
        await self._object(request)
        request.reply(200, _json(renewed_object(minted)), NOT_STORED)

    # --- conversations

    async def conversations(self, request: Request, request_id: str) -> None:
        await self._admit_operator(request)
        newest, total = await self.runtime.conversations.newest(_limit_of(request.query))
        request.reply(200, _json({"conversations": [conversation_object(found) for found in newest], "total": total}))

    async def conversation(self, request: Request, request_id: str) -> None:
        await self._admit_operator(request)
        found = await self.runtime.conversations.get(unquote(request.path.removeprefix("/v1/admin/conversations/")))
        if found is None:
            request.reply(404, _json({"error": "Conversation not found", "requestId": request_id}))
            return
        conversation, turns = found
        messages = [message_object(turn) for turn in turns]
        request.reply(200, _json({"conversation": conversation_object(conversation), "messages": messages}))

    # --- keys

    async def keys(self, request: Request, request_id: str) -> None:
        """All of them, or a new one."""
        await self._admit_operator(request)
        if request.method == "POST":
            request.reply(201, _json(await self._keys.create(await self._object(request))))
        else:
            request.reply(200, _json(await self._keys.listed(_limit_of(request.query), request.query.get("after", ""))))

    async def key(self, request: Request, request_id: str) -> None:
        """One of them, or what is to become of it."""
        await self._admit_operator(request)
        method = "GET" if request.method == "HEAD" else request.method
        path = request.path.removeprefix("/admin/keys/")
        wire = await self._object(request) if method in ("PATCH", "POST") else {}
        request.reply(200, _json(await self._keys.answer(method, path, wire)))

    async def _object(self, request: Request) -> dict[str, Any]:
        """The body, an object; an empty one where there is no body."""
        sent = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
        return await self._json_object(request) if sent else {}

    # --- budgets

    async def budgets(self, request: Request, request_id: str) -> None:
        """What is spent, reserved and left of budgets, or a correction of one."""
        await self._admit_operator(request)
        if request.method == "PATCH":
            request.reply(200, _json(await self._budgets.correct(await self._object(request))))
        else:
            request.reply(200, _json(await self._budgets.listed(request.query, _limit_of(request.query))))

    # --- usage

    async def usage(self, request: Request, request_id: str) -> None:
        await self._admit_operator(request)
        accept = request.headers.get("accept", "")
        self.runtime.later.flush()
        body, content_type, headers = await usage_of(self.runtime.usage, request.query, accept, time.time)
        request.reply(200, body, headers, content_type)

    # --- the process

    async def health(self, request: Request, request_id: str) -> None:
        request.reply(200, b'{"status":"ok"}')

    async def ready(self, request: Request, request_id: str) -> None:
        """With `?verbose` also what the stores do: they are no reason not to be ready, for calls go on without them."""
        ready = not self.runtime.draining
        found: dict[str, Any] = {"status": "ready" if ready else "draining"}
        if "verbose" in request.query:
            found["stores"] = {name: watch.state() for name, watch in self.runtime.watches.items()}
        request.reply(200 if ready else 503, _json(found))

    async def metrics(self, request: Request, request_id: str) -> None:
        """Sent as it is made: in pieces, of which one turn of the event loop makes one, however many scrapers there are."""
        pieces = self.runtime.scrape()
        piece, following = await self._piece(pieces), await self._piece(pieces)
        if following is None or request.method == "HEAD":
            request.reply(200, piece or b"", content_type=EXPOSITION)
            return
        request.begin(EXPOSITION, ())
        while piece is not None:
            request.write(piece)
            await request.writable()
            piece, following = following, await self._piece(pieces)
        request.write(b"", last=True)

    async def _piece(self, pieces: Iterator[bytes]) -> bytes | None:
        """The next one, in a turn of the event loop that makes no other; None where there is none."""
        async with self._scraping:
            await asyncio.sleep(0)
            return next(pieces, None)

    async def openapi(self, request: Request, request_id: str) -> None:
        request.reply(200, _json(document()))


def _limit_of(query: Mapping[str, str]) -> int:
    """How many are wanted of a list. Raises BadRequest."""
    text = query.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 200:
        raise BadRequest("limit must be a whole number from 1 to 200", param="limit")
    return int(text)


def _stream(api: Api, request: Request, request_id: str) -> Awaitable[None]:
    return api.chat(request, request_id, api.widget_stream)


def _whole(api: Api, request: Request, request_id: str) -> Awaitable[None]:
    return api.chat(request, request_id, api.widget_whole)


def _completions(api: Api, request: Request, request_id: str) -> Awaitable[None]:
    return api.chat(request, request_id, api.openai)


CALLS = frozenset({_stream, _whole, _completions})
"""What sees to its errors and its records itself."""
PROBES: dict[str, dict[str, Handler]] = {
    "/health": {"GET": Api.health},
    "/healthz": {"GET": Api.ready},
    "/livez": {"GET": Api.health},
    "/readyz": {"GET": Api.ready},
}
CONVERSATIONS: dict[str, dict[str, Handler]] = {
    "/v1/admin/conversations": {"GET": Api.conversations},
    "/v1/admin/conversations/*": {"GET": Api.conversation},
}
A_KEY = "/admin/keys/*"
KEYS: dict[str, dict[str, Handler]] = {
    "/admin/keys": {"GET": Api.keys, "POST": Api.keys},
    A_KEY: {"GET": Api.key, "PATCH": Api.key, "DELETE": Api.key, "POST": Api.key},
}
BUDGETS: dict[str, dict[str, Handler]] = {"/admin/budgets": {"GET": Api.budgets, "PATCH": Api.budgets}}
USAGE: dict[str, dict[str, Handler]] = {"/admin/usage": {"GET": Api.usage}}
RENEW = "/v1/tokens/renew"
API: dict[str, dict[str, Handler]] = {
    "/v1/chat/stream": {"POST": _stream},
    "/v1/chat/stream/*": {"GET": Api.resume},
    "/chat": {"POST": _stream},
    "/v1/chat": {"POST": _whole},
    "/v1/chat/completions": {"POST": _completions, "GET": Api.resume},
    "/v1/tokens": {"POST": Api.tokens},
    RENEW: {"POST": Api.renew_token},
    "/v1/models": {"GET": Api.models},
    "/v1/models/*": {"GET": Api.model},
    "/v1/openapi.json": {"GET": Api.openapi},
    **PROBES,
    **CONVERSATIONS,
    **KEYS,
    **BUDGETS,
    **USAGE,
}
OPENAI = ("/v1/", "/chat/completions", "/models", "/embeddings", "/responses", "/engines/", "/openai/")
"""What the paths of OpenAI's clients begin with, also of those whose base URL lacks its /v1."""
OURS = ("/v1/chat", "/v1/tokens", "/v1/admin", "/v1/openapi.json")
"""What those paths begin with that are not OpenAI's."""
SHORT = {"/chat/completions": "/v1/chat/completions", "/models": "/v1/models", "/models/*": "/v1/models/*"}
"""Routes under the paths of clients whose base URL lacks its /v1."""
SHOWN = ("/v1/chat/completions", "/v1/models", "/v1/chat/stream", "/v1/chat", "/v1/openapi.json")
"""Those that a caller is told of who asks for something else."""


def _allowed(methods: Mapping[str, Handler]) -> str:
    """The `Allow` of a route with these methods (RFC 9110 10.2.1). HEAD is answered where GET is, but for resumed streams."""
    more = {"OPTIONS"} if methods.get("GET") in (None, Api.resume) else {"OPTIONS", "HEAD"}
    return ", ".join(sorted({*methods, *more}))


def _names_of(routes: Mapping[str, Mapping[str, Handler]]) -> dict[str, str]:
    """The paths that requests may name a route by, and the route: its own, without its /v1, with a slash at the end."""
    names = {path: path for path in routes} | {name: path for name, path in SHORT.items() if path in routes}
    return names | {f"{name}/": path for name, path in names.items() if not name.endswith("*")}


FOR_SERVERS = ("/v1/tokens", "/admin", "/v1/admin")
"""What the paths begin with that no page may read the answers of, whatever its origin; but for RENEW."""


def is_for_pages(path: str) -> bool:
    """Whether a page of an allowed origin may read what is answered at this path."""
    return not path.startswith(FOR_SERVERS) or path.rstrip("/") == RENEW


RECORDED = frozenset({"/v1/chat/stream", "/v1/chat/stream/*", "/chat", "/v1/chat", "/v1/chat/completions", "/metrics", *PROBES})
"""Routes whose requests are not logged here unless they are refused: by what they call, or (probes and scrapes) not at all."""
ADMIN: dict[str, dict[str, Handler]] = {"/metrics": {"GET": Api.metrics}, **PROBES, **CONVERSATIONS, **KEYS, **BUDGETS, **USAGE}
