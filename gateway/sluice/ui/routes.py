"""The pages' own routes on the admin port: their files, signing in and out, and the playground."""

import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sluice.api.assets import Assets
from sluice.api.bodies import Bodies
from sluice.api.callers import Callers
from sluice.api.rendering import NOT_STORED
from sluice.api.request import Request
from sluice.api.table import OwnRoute
from sluice.errors import BadRequest, Unauthorized
from sluice.runtime.snapshot import Snapshot
from sluice.ui.playground import PREFIX, ActingCallers, Playground
from sluice.ui.sessions import TOKEN_HEADER, Attempts, Session, Sessions

_json = msgspec.json.Encoder().encode
ISOLATED = (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Resource-Policy", "same-origin"))
LONGEST_KEY = 4_096
CONTROLS = frozenset({"reload", "restart", "drain", "status", "targets"})
"""Of the admin API: what a gateway refuses that has no process of its own."""


class Ui:
    """Of one snapshot. `clients` makes what answers clients' requests, with the callers that it is given."""

    def __init__(
        self,
        runtime: Snapshot,
        callers: Callers,
        bodies: Bodies,
        clients: Callable[[type[Callers]], Callable[[Request], Awaitable[None]]],
    ) -> None:
        state = runtime.state
        self._runtime = runtime
        self._callers = callers
        self._bodies = bodies
        self._sessions = Sessions(state.seed, runtime.config.admin.digest or "", time.time)
        self._attempts = state.once("ui attempts", lambda: Attempts(state.clock))
        self._assets = state.once("ui assets", lambda: Assets("sluice.ui", "static", more=ISOLATED))
        self._offered: list[str] = []
        self._playground = Playground(self.admit, clients(ActingCallers))

    def routes(self, admin: Sequence[OwnRoute]) -> list[OwnRoute]:
        """Beside those of the admin API, which pages are told of: they offer what there is."""
        self._offered = [f"{route.method} {route.path}" for route in admin]
        pages = [OwnRoute("GET", path, self._page, quiet=True) for path in ("/", "/ui", "/ui/{+path}")]
        session = [
            OwnRoute("GET", "/ui/session", self._session, quiet=True),
            OwnRoute("POST", "/ui/session", self._sign_in),
            OwnRoute("DELETE", "/ui/session", self._sign_out),
        ]
        play = OwnRoute("POST", f"{PREFIX}/{{+path}}", self._playground.play, quiet=True)
        return [*session, play, *pages]  # patterns are tried in this order

    async def admit(self, request: Request) -> None:
        """Lets an operator in: by the admin key, as everywhere, or by a session and its token. Raises Unauthorized."""
        if "x-admin-api-key" in request.headers or "cookie" not in request.headers:
            await self._callers.admit_operator(request)
            return
        try:
            session = self._sessions.of(request.raw_headers)
            self._sessions.check_token(session, request.headers.get(TOKEN_HEADER, ""))
        except Unauthorized as error:
            self._runtime.records.auth_failures[error.reason].inc()
            raise

    async def _page(self, request: Request, request_id: str) -> None:
        if request.path in ("/", "/ui"):
            request.reply(302, b"", [("Location", "ui/")], "text/plain; charset=utf-8")  # relative: behind a prefix, too
            return
        self._assets.answer(request, request.parameters.get("path", "") or "index.html")

    async def _session(self, request: Request, request_id: str) -> None:
        """Whether the browser is signed in; one that is gets a new cookie when its own has lived for half of its time."""
        try:
            session = self._sessions.of(request.raw_headers)
        except Unauthorized:
            request.reply(200, _json({"signed_in": False, "possible": bool(self._runtime.config.admin.digest)}), NOT_STORED)
            return
        self._reply(request, self._sessions.renewed(session))

    async def _sign_in(self, request: Request, request_id: str) -> None:
        """Raises RateLimited, Unauthorized, BadRequest."""
        address = self._callers.address(request)
        self._attempts.check(address)
        key = (await self._bodies.object(request)).get("key")
        if not isinstance(key, str) or len(key) > LONGEST_KEY or not key.isascii():
            raise BadRequest("key must be the admin key", param="key")
        try:
            self._runtime.check_admin([(b"x-admin-api-key", key.strip().encode())])
        except Unauthorized as error:
            self._attempts.failed(address)
            self._runtime.records.auth_failures[error.reason].inc()
            self._runtime.log.warning("ui_sign_in", outcome="refused", address=address)
            raise
        self._attempts.succeeded(address)
        self._runtime.log.info("ui_sign_in", outcome="ok", address=address)
        self._reply(request, self._sessions.begin())

    async def _sign_out(self, request: Request, request_id: str) -> None:
        cookie = self._sessions.set_cookie(None, secure=_is_secure(request))
        request.reply(200, _json({"signed_in": False}), [*NOT_STORED, cookie])

    def _reply(self, request: Request, session: Session) -> None:
        offered = self._offered
        if self._runtime.state.fleet is None:  # part of somebody else's process, which controls it
            offered = [route for route in offered if route.partition(" ")[2].split("/")[2] not in CONTROLS]
        body = {"signed_in": True, "token": session.token, "expires": session.expires, "routes": offered}
        cookie = self._sessions.set_cookie(session, secure=_is_secure(request))
        request.reply(200, _json(body), [*NOT_STORED, cookie])


def _is_secure(request: Request) -> bool:
    """Whether the browser talks TLS, to a proxy before us: it says so itself, in the origin of what it posts."""
    return request.headers.get("origin", request.headers.get("referer", "")).startswith("https://")
