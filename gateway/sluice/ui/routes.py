"""The pages' own routes on the admin port: their files, signing in and out, and the playground."""

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from sluice.api.admin_roles import NEEDED
from sluice.api.assets import Assets
from sluice.api.bodies import Bodies
from sluice.api.callers import Callers
from sluice.api.rendering import NOT_STORED
from sluice.api.request import Request
from sluice.api.table import OwnRoute
from sluice.errors import BadRequest, Unauthorized
from sluice.identity.operators import Operator
from sluice.runtime.snapshot import Snapshot
from sluice.ui.playground import PREFIX, ROUTE, ActingCallers, Playground
from sluice.ui.sessions import TOKEN_HEADER, Attempts, Owner, Session, Sessions

if TYPE_CHECKING:
    from sluice.ui.oidc import OidcSignIn

_json = msgspec.json.Encoder().encode
ISOLATED = (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Resource-Policy", "same-origin"))
MAX_KEY_LENGTH = 4_096
CONTROLS = frozenset({"reload", "restart", "drain", "status", "targets"})
"""Parts of the admin API that a gateway without a process of its own refuses."""


class Ui:
    """The routes of the pages, for one snapshot. `clients` makes the function that answers clients' requests,
    given the callers."""

    def __init__(
        self,
        runtime: Snapshot,
        callers: Callers,
        bodies: Bodies,
        clients: Callable[[type[Callers]], Callable[[Request], Awaitable[None]]],
    ) -> None:
        state = runtime.state
        self._runtime = runtime
        self.log = runtime.log
        self._callers = callers
        self._bodies = bodies
        self._seed = _seed(runtime)
        self.sessions = Sessions(self._seed, runtime.operators, runtime.config.admin.oidc, time.time)
        self.attempts = state.once("ui attempts", lambda: Attempts(state.clock))
        self._assets = state.once(
            "ui assets", lambda: Assets("sluice.ui", "static", more=ISOLATED, hashed=True)
        )
        self._offered: list[str] = []
        self._oidc = self._by_provider()
        self._ways = {
            "possible": len(runtime.operators) > 0,
            "oidc": self._oidc.name if self._oidc is not None else None,
        }
        self._playground = Playground(self.admit, clients(ActingCallers))

    def routes(self, admin: Sequence[OwnRoute]) -> list[OwnRoute]:
        """Returns the pages' routes, in addition to the admin API's. Pages get the list of routes that the
        session's role may use, and offer only these."""
        self._offered = [*(f"{route.method} {route.path}" for route in admin), ROUTE]
        pages = [OwnRoute("GET", path, self._page, quiet=True) for path in ("/", "/ui", "/ui/{+path}")]
        session = [
            OwnRoute("GET", "/ui/session", self._session, quiet=True),
            OwnRoute("POST", "/ui/session", self._sign_in),
            OwnRoute("DELETE", "/ui/session", self._sign_out),
        ]
        if self._oidc is not None:
            session += self._oidc.routes()
        play = OwnRoute("POST", f"{PREFIX}/{{+path}}", self._playground.play, quiet=True)
        return [*session, play, *pages]  # patterns are tried in this order

    def _by_provider(self) -> "OidcSignIn | None":
        state, oidc = self._runtime.state, self._runtime.config.admin.oidc
        if oidc is None:
            return None
        from sluice.identity.provider import Discovery
        from sluice.ui.oidc import OidcSignIn

        issuer = oidc.issuer
        discovery = state.once(f"oidc {issuer}", lambda: Discovery(issuer, state.clock))
        return OidcSignIn(oidc, self, self._bodies, discovery, seed=self._seed, wall=time.time)

    def address(self, request: Request) -> str:
        """Returns the client's address, as limits count it."""
        return self._callers.address(request)

    async def admit(self, request: Request) -> Operator:
        """Identifies an operator by an admin key, as everywhere, or by a session and its token. Raises
        Unauthorized."""
        if "x-admin-api-key" in request.headers or "cookie" not in request.headers:
            return await self._callers.admit_operator(request)
        try:
            session = self.sessions.of(request.raw_headers)
            self.sessions.check_token(session, request.headers.get(TOKEN_HEADER, ""))
            return msgspec.structs.replace(session.operator, until=float(session.expires))
        except Unauthorized as error:
            self._runtime.records.auth_failures[error.reason].inc()
            raise

    async def _page(self, request: Request, request_id: str) -> None:
        if request.path in ("/", "/ui"):
            request.reply(
                302, b"", [("Location", "ui/")], "text/plain; charset=utf-8"
            )  # relative, so that it also works under a prefix
            return
        self._assets.answer(request, request.parameters.get("path", "") or "index.html")

    async def _session(self, request: Request, request_id: str) -> None:
        """Returns whether the browser is signed in. If so, it gets a new cookie after half of the old one's
        lifetime."""
        try:
            session = self.sessions.of(request.raw_headers)
        except Unauthorized:
            request.reply(200, _json({"signed_in": False, **self._ways}), NOT_STORED)
            return
        self._reply(request, self.sessions.renewed(session))

    async def _sign_in(self, request: Request, request_id: str) -> None:
        """Signs in. Raises RateLimited, Unauthorized, BadRequest."""
        address = self._callers.address(request)
        self.attempts.check(address)
        key = (await self._bodies.object(request)).get("key")
        if not isinstance(key, str) or len(key) > MAX_KEY_LENGTH or not key.isascii():
            raise BadRequest("key must be an admin key", param="key")
        try:
            operator = self._runtime.operators.of([(b"x-admin-api-key", key.strip().encode())])
        except Unauthorized as error:
            self.attempts.failed(address)
            self._runtime.records.auth_failures[error.reason].inc()
            self.log.warning("ui_sign_in", outcome="refused", address=address)
            raise
        self.attempts.succeeded(address)
        self.log.info("ui_sign_in", outcome="ok", operator=operator.name, role=operator.role, address=address)
        self._reply(request, self.sessions.begin(Owner("key", operator.name, secure=_is_secure(request))))

    async def _sign_out(self, request: Request, request_id: str) -> None:
        """Signs out. People whom a provider has signed in also get its URL for signing out. The provider is
        not asked for that now, so that an outage of it keeps nobody signed in."""
        leave = self._oidc.leaving() if self._oidc is not None and self._is_by_provider(request) else None
        cookie = self.sessions.end_cookie(secure=_is_secure(request))
        request.reply(
            200, _json({"signed_in": False, **({"leave": leave} if leave else {})}), [*NOT_STORED, cookie]
        )

    def _is_by_provider(self, request: Request) -> bool:
        try:
            return self.sessions.of(request.raw_headers).owner.by == "oidc"
        except Unauthorized:
            return False

    def _reply(self, request: Request, session: Session) -> None:
        offered = self._offered
        if not self._runtime.config.admin.edit:
            offered = [route for route in offered if "/admin/config/file" not in route]
        if (
            self._runtime.state.fleet is None
        ):  # the gateway is part of another program's process, which controls it
            offered = [route for route in offered if route.split("/")[2] not in CONTROLS]
        operator = session.operator
        offered = [route for route in offered if operator.may(NEEDED[route])]
        body = {"signed_in": True, "token": session.token, "expires": session.expires, "routes": offered}
        body |= {"name": operator.name, "role": operator.role, **self._ways}
        cookie = self.sessions.set_cookie(session)
        request.reply(200, _json(body), [*NOT_STORED, cookie])


def _seed(runtime: Snapshot) -> bytes:
    """Returns the secret that signs sessions and attempts to sign in: the configured key, which replicas
    share, or this gateway's own."""
    key = runtime.config.admin.session_key
    return runtime.state.seed if key is None else hmac.digest(key.keys()[0], b"sluice ui", "sha256")


def _is_secure(request: Request) -> bool:
    """Returns whether the browser uses TLS, to a proxy in front: it says so itself, in the origin of its POST
    requests."""
    return request.headers.get("origin", request.headers.get("referer", "")).startswith("https://")
