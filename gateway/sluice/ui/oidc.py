"""Signing in to the pages by an OpenID provider. Imported only if `admin.oidc` is configured.

POST /ui/oidc returns the URL that the browser has to go to, and sets a cookie for the attempt. The browser
comes back to GET /ui/oidc/callback, which redirects to the pages: signed in, or with the reason why not after
the #. Nothing from a request is shown or logged.
"""

from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from sluice.api.bodies import Bodies
from sluice.api.rendering import NOT_STORED
from sluice.api.request import Request
from sluice.api.table import OwnRoute
from sluice.config.types import Oidc
from sluice.errors import BadRequest, MethodNotAllowed, RateLimited, Unavailable
from sluice.identity.oidc import (
    SIGN_IN_SECONDS,
    Flow,
    Flows,
    SignInFailed,
    authorization_url,
    check_issuer,
    claims_of,
    has_claim,
    leaving_url,
    operator_of,
)
from sluice.identity.operators import Operator
from sluice.identity.provider import Discovery, exchange, keys, userinfo
from sluice.ui.sessions import Attempts, Owner, Sessions, cookies

CALLBACK = "oidc/callback"
LEAVE = "oidc/leave"
"""The path below the pages' own address."""
MAX_ADDRESS_LENGTH = 2_000
NO_REFERRER = (("Referrer-Policy", "no-referrer"),)
_json = msgspec.json.Encoder().encode


class Desk(Protocol):
    """The interface of the pages for signing in."""

    sessions: Sessions
    attempts: Attempts
    log: Any

    def address(self, request: Request) -> str: ...


class OidcSignIn:
    """Signing in by an OpenID provider, for one snapshot. `wall` gives seconds since the epoch."""

    def __init__(
        self,
        oidc: Oidc,
        desk: Desk,
        bodies: Bodies,
        discovery: Discovery,
        *,
        seed: bytes,
        wall: Callable[[], float],
    ) -> None:
        self._oidc = oidc
        self._desk = desk
        self._bodies = bodies
        self._discovery = discovery
        self._flows = Flows(seed, oidc, wall)
        self._wall = wall
        self._cookie = f"{desk.sessions.cookie_name}_oidc"
        self.name = oidc.name or urlsplit(oidc.issuer).hostname or "OpenID"

    def routes(self) -> list[OwnRoute]:
        return [
            OwnRoute("POST", "/ui/oidc", self._begin),
            OwnRoute("GET", f"/ui/{CALLBACK}", self._back, quiet=True),
            OwnRoute("GET", f"/ui/{LEAVE}", self._leave, quiet=True),
        ]

    def leaving(self) -> str | None:
        """Returns the URL for signing out of the provider; None if it has none. A process that has not asked
        the provider yet returns a route of the gateway, so that signing out here does not wait for it."""
        known = self._discovery.known
        return leaving_url(known, self._oidc) if known is not None else LEAVE

    async def _leave(self, request: Request, request_id: str) -> None:
        """Redirects to the provider's URL for signing out; to the pages if there is none."""
        try:
            url = leaving_url(await self._discovery.metadata(), self._oidc)
        except SignInFailed:
            url = None
        more = [("Location", url or "../#sign-in/stay"), *NOT_STORED, *NO_REFERRER]
        request.reply(302, b"", more, "text/plain; charset=utf-8")

    async def _begin(self, request: Request, request_id: str) -> None:
        """Begins an attempt to sign in. Raises RateLimited, BadRequest, Unavailable."""
        self._desk.attempts.check(self._desk.address(request))
        given = (await self._bodies.object(request)).get("page")
        redirect_uri = self._redirect_uri(given, request.headers.get("origin", ""))
        try:
            metadata = await self._discovery.metadata()
        except SignInFailed as failed:
            self._refused(request, failed)
            raise Unavailable(
                f"{self.name} cannot be asked now: try again, or sign in with an admin key"
            ) from None
        flow = self._flows.begin(redirect_uri)
        body = {"location": authorization_url(metadata, self._oidc, flow)}
        request.reply(200, _json(body), [*NOT_STORED, self._ticket(flow, redirect_uri)])

    async def _back(self, request: Request, request_id: str) -> None:
        """Ends an attempt. Raises RateLimited."""
        if request.method != "GET":  # a HEAD must not use the code
            raise MethodNotAllowed("GET")
        try:
            flow = self._known(request)
        except (
            SignInFailed
        ) as failed:  # any page can send a browser here, so it is not charged to its address
            self._reply(request, self._refused(request, failed))
            return
        address = self._desk.address(request)
        try:
            self._desk.attempts.check(address)
            operator = await self._operator(request, flow)
        except RateLimited:
            self._reply(request, "busy")
            return
        except SignInFailed as failed:
            if (
                failed.reason == "token"
            ):  # outages, and people who change their minds, do not count as guesses
                self._desk.attempts.failed(address)
            self._reply(request, self._refused(request, failed), flow)
            return
        secure = _is_secure(flow.redirect_uri)
        session = self._desk.sessions.begin(Owner("oidc", operator.name, operator.role, secure))
        self._desk.attempts.succeeded(address)
        self._desk.log.info(
            "ui_sign_in", outcome="ok", by="oidc", operator=operator.name, role=operator.role, address=address
        )
        self._reply(request, "", flow, self._desk.sessions.set_cookie(session))

    def _known(self, request: Request) -> Flow:
        """Returns the attempt that this browser has begun. Raises SignInFailed."""
        ticket = next(cookies(request.raw_headers, self._cookie), "")
        return self._flows.back(ticket, request.query.get("state", ""))

    async def _operator(self, request: Request, flow: Flow) -> Operator:
        """Returns the person whom the provider has signed in. Raises SignInFailed."""
        query, oidc = request.query, self._oidc
        metadata = await self._discovery.metadata()
        check_issuer(metadata, query.get("iss"))
        if "error" in query:
            raise SignInFailed(
                "denied" if query["error"] == "access_denied" else "provider", "the provider refused"
            )
        if not query.get("code"):
            raise SignInFailed("provider", "no code")
        tokens = await exchange(metadata, oidc, flow, query["code"])
        claims = claims_of(tokens.id_token, await keys(metadata), oidc, nonce=flow.nonce, now=self._wall())
        if not has_claim(claims, oidc.roles.claim):
            claims = {**await userinfo(metadata, tokens, claims["sub"]), **claims}
        return operator_of(claims, oidc.roles)

    def _redirect_uri(self, page: object, origin: str) -> str:
        """Returns the callback's address, for a browser that shows the pages at `page`. Raises BadRequest.

        A page of another site cannot send this request, because browsers let it send no JSON here; so
        `origin` is the pages' own.
        """
        address = page if isinstance(page, str) and len(page) <= MAX_ADDRESS_LENGTH and page.isascii() else ""
        configured = self._oidc.redirect_uri
        try:
            parts = urlsplit(address)
            own = origin == f"{parts.scheme}://{parts.netloc}" and parts.scheme in ("http", "https")
        except ValueError:
            own = False
        if (
            not own
            or not parts.path.endswith("/ui/")
            or parts.query
            or parts.fragment
            or "@" in parts.netloc
            or not address.isprintable()
        ):
            raise BadRequest("page must be the address of the page that asks, up to /ui/", param="page")
        if configured is None:
            return f"{origin}{parts.path}{CALLBACK}"
        if not configured.startswith(f"{origin}/"):
            raise BadRequest(
                f"Open the pages at {configured.removesuffix(CALLBACK)} to sign in there", param="page"
            )
        return configured

    def _ticket(self, flow: Flow | None, redirect_uri: str) -> tuple[str, str]:
        """Returns the header that sets or deletes the attempt's cookie. It is Lax, because the browser comes
        back from another site."""
        value, age = (flow.ticket, SIGN_IN_SECONDS) if flow is not None else ("", 0)
        more = "; Secure" if _is_secure(redirect_uri) else ""
        return "Set-Cookie", f"{self._cookie}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{more}"

    def _refused(self, request: Request, failed: SignInFailed) -> str:
        address, log = self._desk.address(request), self._desk.log
        log.warning(
            "ui_sign_in",
            outcome="refused",
            by="oidc",
            reason=failed.reason,
            detail=failed.detail,
            address=address,
        )
        return failed.reason

    def _reply(
        self, request: Request, problem: str, flow: Flow | None = None, session: tuple[str, str] | None = None
    ) -> None:
        """Redirects to the pages, which are above this path wherever a proxy has put them. An attempt's
        cookie is valid for one return."""
        location = f"../#sign-in/{problem}" if problem else "../"
        given = [self._ticket(None, flow.redirect_uri)] if flow is not None else []
        more = [session] if session is not None else []
        request.reply(
            302,
            b"",
            [("Location", location), *NOT_STORED, *NO_REFERRER, *given, *more],
            "text/plain; charset=utf-8",
        )


def _is_secure(redirect_uri: str) -> bool:
    return redirect_uri.startswith("https:")
