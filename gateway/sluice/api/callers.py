"""Identifies callers by key or token, within their address's limit, and checks the key's origins."""

from collections.abc import Callable, Sequence

from sluice.api.cors import Cors
from sluice.api.request import Request
from sluice.errors import Forbidden, GatewayError, Unauthorized
from sluice.frontends import in_query
from sluice.identity import KeysWanted
from sluice.identity.operators import Operator
from sluice.identity.principal import Principal
from sluice.proxy.target import Route
from sluice.runtime.snapshot import Snapshot


class Callers:
    """The callers of one snapshot. `cors` allows pages to read responses. `narrowed` makes of an alias's route
    the one for a request; None: callers may not choose among its targets."""

    narrowed: Callable[[Route, Request], Route] | None = None

    def __init__(self, runtime: Snapshot, cors: Cors) -> None:
        self._runtime = runtime
        self._cors = cors
        self._known = runtime.authenticator.known_now
        self._identify = runtime.authenticator.identify_now
        self._check = runtime.limits.check

    def address(self, request: Request) -> str:
        """Returns the client's address, as limits count it."""
        return self._runtime.addresses(request.peer, request.headers)

    async def identify(self, request: Request, hidden: tuple[str, ...] = ()) -> Principal:
        """Identifies the caller, within the address's limit. `hidden`: query parameters that may hold a key.

        Raises RateLimited, Unauthorized, Forbidden.
        """
        address = self.address(request)
        self.admit(request, address)
        try:
            principal = self.recognize(request, hidden)
        except GatewayError as unknown:
            principal = await self.unrecognized(unknown, request, address, hidden)
        await self._runtime.limits.charge(address)
        return principal

    async def anybody(self, request: Request) -> None:
        """Charges the address's limit without identifying the caller. Raises RateLimited."""
        address = self.address(request)
        self.admit(request, address)
        await self._runtime.limits.charge(address)

    def admit(self, request: Request, address: str) -> None:
        """Refuses an address whose limit is used up, before its credentials are checked. Raises
        RateLimited."""
        if "origin" in request.headers:
            request.extra += self._cors.headers(request)
        self._check(address)

    def recognize(self, request: Request, hidden: tuple[str, ...] = ()) -> Principal:
        """Identifies the caller. A key that is bound to origins is refused to pages of other origins. Raises
        GatewayError.
        """
        if hidden:
            principal = self._identify((*request.raw_headers, *_of_query(request, hidden)))
        else:
            principal = self._known(request.headers) or self._identify(request.raw_headers)
        request.caller = principal.key_id
        if principal.origins:
            origin = request.headers.get("origin", "") or _own_origin(request, principal.origins)
            if (origin or principal.kind == "browser") and origin not in principal.origins:
                raise Forbidden("This key may not be used from this origin")
        return principal

    async def unrecognized(
        self, why: GatewayError, request: Request, address: str, hidden: tuple[str, ...] = ()
    ) -> Principal:
        """Handles unknown credentials: the attempt is charged to its address; a token whose issuer's keys are
        not known yet waits once.
        """
        try:
            if not isinstance(why, KeysWanted):
                raise why
            await why.keys.renew()
            try:
                return self.recognize(request, hidden)
            except KeysWanted as again:
                raise Unauthorized(again.reason) from None
        except GatewayError as error:
            await self._runtime.limits.charge(address)
            if isinstance(error, Unauthorized):
                self._runtime.records.auth_failures[error.reason].inc()
            raise
        finally:
            del why  # its traceback refers to this frame

    async def admit_operator(self, request: Request) -> Operator:
        """Identifies the operator by the admin key. Raises Unauthorized. A wrong key is charged like any
        other wrong key.
        """
        await self._runtime.limits.charge(self.address(request))
        try:
            return self._runtime.operators.of(request.raw_headers)
        except Unauthorized as error:
            self._runtime.records.auth_failures[error.reason].inc()
            raise


def _own_origin(request: Request, origins: Sequence[str]) -> str:
    """Returns the one of these origins that a page has which the gateway's own host has sent; "" for other requests.

    Browsers send no `Origin` with a GET to the page's own origin, but then say "same-origin" in `Sec-Fetch-Site`,
    which a page cannot set (https://w3c.github.io/webappsec-fetch-metadata/#sec-fetch-site-header).
    """
    headers = request.headers
    if headers.get("sec-fetch-site") != "same-origin" or not (host := headers.get("host")):
        return ""
    return next((origin for origin in origins if origin.partition("://")[2] == host.lower()), "")


def _of_query(request: Request, names: tuple[str, ...]) -> list[tuple[bytes, bytes]]:
    query = request.query
    return [(in_query(name).encode(), query[name].encode()) for name in names if name in query]
