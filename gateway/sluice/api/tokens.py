"""POST /v1/tokens and /v1/tokens/renew: makes tokens for web pages, by a key."""

import msgspec

from sluice.api.bodies import Bodies
from sluice.api.callers import Callers
from sluice.api.cors import RENEW
from sluice.api.rendering import NOT_STORED, renewed_object, token_object
from sluice.api.request import Request
from sluice.api.table import OwnRoute
from sluice.errors import Unauthorized
from sluice.identity.browser import token_request
from sluice.runtime.snapshot import Snapshot

_json = msgspec.json.Encoder().encode


class TokenRoutes:
    def __init__(self, runtime: Snapshot, callers: Callers, bodies: Bodies) -> None:
        self._runtime = runtime
        self._callers = callers
        self._bodies = bodies

    def routes(self) -> list[OwnRoute]:
        return [OwnRoute("POST", "/v1/tokens", self.mint), OwnRoute("POST", RENEW, self.renew)]

    async def mint(self, request: Request, request_id: str) -> None:
        principal = await self._callers.identify(request)
        wanted = token_request(await self._bodies.object(request))
        request.reply(
            200, _json(token_object(self._runtime.authenticator.mint(principal, wanted))), NOT_STORED
        )

    async def renew(self, request: Request, request_id: str) -> None:
        """Renews a page's token, within the time in which it may be renewed."""
        address = self._callers.address(request)
        self._callers.admit(request, address)
        try:
            minted = self._runtime.authenticator.renew(request.raw_headers, request.headers.get("origin", ""))
        except Unauthorized as error:
            self._runtime.records.auth_failures[error.reason].inc()
            raise
        finally:
            await self._runtime.limits.charge(address)
        await self._bodies.optional_object(request)
        request.reply(200, _json(renewed_object(minted)), NOT_STORED)
