"""The API: each request enters at `Api.__call__`, gets its id, and is dispatched by path and method.

Errors of calls are rendered in `calls.py`, all others here: in the dialect of the route, or of the frontend
that claims the path.
"""

import random
import re
from collections.abc import Awaitable, Sequence

import msgspec

from sluice.api.admin import admin_routes
from sluice.api.bodies import Bodies
from sluice.api.callers import Callers
from sluice.api.calls import CallEntry, Calls, renames
from sluice.api.cors import READ_BY_ALL, Cors
from sluice.api.embed import Embed
from sluice.api.endpoints import Endpoints
from sluice.api.limits import LIMITS, CallerLimits
from sluice.api.openapi import document
from sluice.api.operations import OperationCalls
from sluice.api.probes import Probes
from sluice.api.refusals import GatewayEnvelope, Refusals
from sluice.api.request import Request
from sluice.api.resuming import Resuming
from sluice.api.spool import FormSpools
from sluice.api.table import Handler, MethodRoute, OwnRoute, PathClaims, RouteTable, ServedPath
from sluice.api.tokens import TokenRoutes
from sluice.errors import GatewayError, MethodNotAllowed, NotFound, Unauthorized
from sluice.frontends import CallRoute, Frontend, ResumeRoute, Route, shape_of
from sluice.resume.streams import ResumableStreams
from sluice.runtime.snapshot import Snapshot

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
OPENAPI = "/v1/openapi.json"
OWN = ("/v1/tokens", LIMITS, "/v1/admin", OPENAPI, "/admin", "/metrics")
"""Path prefixes of the gateway's own routes, whichever frontend claims them."""
_json = msgspec.json.Encoder().encode


class Api:
    """Answers requests to the routes of one snapshot: the API's with its frontends, or (`operators`) those of
    the admin port.
    """

    def __init__(
        self, runtime: Snapshot, *, operators: bool = False, callers: type[Callers] = Callers
    ) -> None:
        self._runtime = runtime
        self._counted = not operators
        frontends = [] if operators else [*runtime.frontends.values()]
        self._cors = Cors(runtime.origins, runtime.frontends.values())
        self._refusals = Refusals(runtime.records)
        self._callers = callers(runtime, self._cors)
        server = runtime.config.server
        spools = FormSpools(int(server.form_spool), server.form_directory)
        self._bodies = Bodies(int(server.body_limit), runtime.beside, int(server.form_limit), spools)
        self._claims = PathClaims(runtime.frontends.values(), OWN, GatewayEnvelope())
        own = self._of_operators() if operators else self._of_clients()
        self.table = RouteTable(own, frontends, Answers(runtime, self._callers, self._bodies, self._refusals))
        self._calls = self._called_by_path()
        self._nothing = {name: _nothing(name, frontends) for name in ("", *runtime.frontends)}
        self._greeting = next((one.greeting.encode() for one in frontends if one.greeting), None)

    def __call__(self, request: Request) -> Awaitable[None]:
        given = request.headers.get("x-request-id", "")
        request_id = given if given and REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        request.extra += (("x-request-id", request_id), ("request-id", request_id))
        entry = self._calls.get(request.path) if request.method == "POST" else None
        if entry is None:
            return self._other(request, request_id)
        if entry.rename is not None:
            request.rename = entry.rename
        return entry.answer(request, request_id, entry)

    # --- routes

    def _of_operators(self) -> list[OwnRoute]:
        runtime, bodies, probes = self._runtime, self._bodies, Probes(self._runtime)
        own = [*probes.scrapes(), *probes.routes()]
        if not runtime.config.admin.ui:
            return [*own, *admin_routes(runtime, self._callers.admit_operator, bodies, operators=True)]
        from sluice.ui.routes import Ui

        ui = Ui(runtime, self._callers, bodies, lambda callers: Api(runtime, callers=callers))
        admin = admin_routes(runtime, ui.admit, bodies, operators=True)
        return [*own, *admin, *ui.routes(admin)]

    def _of_clients(self) -> list[OwnRoute]:
        runtime, callers, bodies = self._runtime, self._callers, self._bodies
        described = OwnRoute("GET", OPENAPI, self._openapi)
        greeting = OwnRoute("GET", "/", self._greet, quiet=True)
        more = [greeting, *Probes(runtime).routes(), *admin_routes(runtime, callers.admit_operator, bodies)]
        more += CallerLimits(runtime, callers).routes()
        return [
            *TokenRoutes(runtime, callers, bodies).routes(),
            *Embed(runtime, callers).routes(),
            described,
            *more,
        ]

    def _called_by_path(self) -> dict[str, CallEntry]:
        """Returns the calls whose route depends on the path alone: most requests."""
        found: dict[str, CallEntry] = {}
        for name, place in self.table.by_name.items():
            match place.methods.get("POST"):
                case [MethodRoute(handler=CallEntry() as entry)] if not entry.frontend.id_headers:
                    found[name] = entry
        return found

    async def _greet(self, request: Request, request_id: str) -> None:
        """Answers /: clients check here, without a key, that the server lives, by HEAD or by GET. A browser, whoever
        does not say what it accepts, and a GET where no dialect's clients do this, get the list of paths."""
        greeting = b"" if request.method == "HEAD" else self._greeting
        if greeting is None or (greeting and "text/html" in request.headers.get("accept", "text/html")):
            raise NotFound(self._nothing[""])
        request.reply(200, greeting, content_type="text/plain; charset=utf-8")

    async def _openapi(self, request: Request, request_id: str) -> None:
        """Answers with the description of the served routes."""
        described = document()
        served = self.table.shapes()
        paths = {path: item for path, item in described["paths"].items() if shape_of(path) in served}
        request.reply(200, _json({**described, "paths": paths}), READ_BY_ALL)

    # --- other requests

    async def _other(self, request: Request, request_id: str) -> None:
        """Answers a request whose path alone does not select a call."""
        place, values = self.table.find(request.path)
        choice = place.choice(request.method, request.headers) if place is not None else None
        owner = choice.frontend if choice is not None else None
        frontend = owner or self._claims.of(request.path, request.headers)
        request.extra += [(name, request_id) for name in frontend.id_headers]
        if renames(frontend):
            request.rename = frontend.headers
        refused: GatewayError | None = None
        crashed = False
        address = ""
        try:
            handler = self._handler_of(request, place, choice, frontend.name)
            if choice is not None and choice.names:
                request.parameters = dict(zip(choice.names, values, strict=True))
            if handler is not None:
                await handler(request, request_id)
        except GatewayError as error:
            refused = error
            address = self._callers.address(request) if isinstance(error, Unauthorized) else ""
            self._refusals.refuse(request, frontend, error, request_id)
        except Exception as crash:
            crashed = True
            self._refusals.crashed(request, frontend, crash, request_id)
        if place is None or not place.quiet or refused is not None or crashed:
            label = place.label if place is not None else "other"
            self._runtime.records.other(
                request,
                refused,
                request_id=request_id,
                frontend=frontend.name,
                route=label,
                address=address,
                counted=self._counted,
            )
        del refused  # its traceback refers to this frame

    def _handler_of(
        self, request: Request, place: ServedPath | None, choice: MethodRoute | None, frontend: str
    ) -> Handler | None:
        """Returns the handler of this request to a served path; None if the request has been answered
        already."""
        if place is None:
            raise NotFound(self._nothing.get(frontend, self._nothing[""]))
        if request.method == "OPTIONS":
            self._cors.preflight(request, place.allowed)
            return None
        if choice is None:
            raise MethodNotAllowed(place.allowed)
        if isinstance(choice.handler, CallEntry) and choice.names:
            request.path = place.label  # logs have the route, not the text that callers write into the path
        return choice.handler


class Answers:
    """Makes the handlers of frontends' routes (the route table's `bind`)."""

    def __init__(self, runtime: Snapshot, callers: Callers, bodies: Bodies, refusals: Refusals) -> None:
        streams = ResumableStreams(
            runtime.journals,
            runtime.frontends,
            answer=runtime.pipeline.answer,
            outlives=runtime.outlives,
            write_idle=float(runtime.config.server.write_idle),
        )
        self._calls = Calls(runtime, callers, bodies, refusals, streams)
        self._operations = OperationCalls(runtime, callers, bodies, refusals, streams)
        self._resuming = Resuming(callers, streams, runtime.records)
        self._endpoints = Endpoints(runtime, callers, bodies)

    def __call__(self, frontend: Frontend, route: Route, place: ServedPath) -> Handler:
        match route:
            case CallRoute():
                return (self._operations if route.operation else self._calls).entry(frontend, route)
            case ResumeRoute():
                return self._resuming.handler(frontend, place)
            case _:
                return self._endpoints.handler(frontend, route)


def _nothing(name: str, frontends: Sequence[Frontend]) -> str:
    """Returns the error for a path without a route, as the frontend called `name` tells it: its own paths come
    first, and of the others those without a parameter."""
    own = [
        _shown(route.path) for frontend in frontends if frontend.name == name for route in frontend.routes()
    ]
    others = [route.path for frontend in frontends for route in frontend.routes() if "{" not in route.path]
    if not others:
        return "There is nothing at this path"
    paths = dict.fromkeys([*own, *others, OPENAPI])
    return f"There is nothing at this path. Served are {', '.join(paths)}"


def _shown(path: str) -> str:
    return path.replace("{+", "{")
