"""GET /widget/chat-widget.js: the chat widget for web pages; with `server.demo` also a page with it, at
/demo.

The demo gets its token from POST /demo/token, as a page gets it from its own server: the key is never in a
page.
"""

import msgspec

from sluice.api.callers import Callers
from sluice.api.cors import READ_BY_ALL
from sluice.api.rendering import NOT_STORED, token_object
from sluice.api.request import Request
from sluice.api.table import OwnRoute
from sluice.errors import NotFound
from sluice.identity.browser import TokenRequest
from sluice.runtime.snapshot import Snapshot

WIDGET = "/widget/chat-widget.js"
DEMO_PREFIX = "demo:"
"""The session of the demo: a page that is loaded again continues its own, whose name cannot be guessed."""
_json = msgspec.json.Encoder().encode


class Embed:
    def __init__(self, runtime: Snapshot, callers: Callers) -> None:
        self._runtime = runtime
        self._callers = callers

    def routes(self) -> list[OwnRoute]:
        """Returns the routes; None if the widget's dialect is not served."""
        if "widget" not in self._runtime.frontends:
            return []
        routes = [OwnRoute("GET", WIDGET, self._widget, quiet=True)]
        if self._runtime.config.server.demo is not None:
            pages = [OwnRoute("GET", path, self._demo, quiet=True) for path in ("/demo", "/demo/{file}")]
            routes += [OwnRoute("POST", "/demo/token", self._token), *pages]
        return routes

    async def _widget(self, request: Request, request_id: str) -> None:
        self._answer(request, "chat-widget.js")

    async def _demo(self, request: Request, request_id: str) -> None:
        if request.path == "/demo/":
            request.reply(302, b"", [("Location", "../demo")], "text/plain; charset=utf-8")
        else:
            self._answer(request, request.parameters.get("file", "demo.html"))

    def _answer(self, request: Request, name: str) -> None:
        from sluice.api.assets import Assets

        cache = (
            "public, max-age=300, stale-while-revalidate=86400" if name == "chat-widget.js" else "no-cache"
        )
        assets = self._runtime.state.once(
            f"embed {cache}", lambda: Assets("sluice.embed", ".", cache=cache, more=READ_BY_ALL)
        )
        assets.answer(request, name)

    async def _token(self, request: Request, request_id: str) -> None:
        """Makes a token for the requesting page, whose origin must be one of the key's. Raises NotFound,
        Forbidden."""
        await self._callers.anybody(request)
        authenticator = self._runtime.authenticator
        owner = authenticator.key(self._runtime.config.server.demo or "")
        if owner is None:
            raise NotFound("The demo's key may not be used")
        wanted = TokenRequest(
            request.headers.get("origin", ""), session_prefix=DEMO_PREFIX, own_sessions=True
        )
        request.reply(200, _json(token_object(authenticator.mint(owner, wanted))), NOT_STORED)
