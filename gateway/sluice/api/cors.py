"""CORS: which pages may read which responses, and what they may send
(https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

import re
from collections.abc import Collection, Iterable

from sluice.api.request import Request
from sluice.config.resources import SHOWN
from sluice.frontends import Frontend

RENEW = "/v1/tokens/renew"
FOR_SERVERS = ("/v1/tokens", "/v1/limits", "/admin", "/v1/admin")
"""Prefixes of paths whose responses no page may read, whatever its origin; RENEW is excepted."""
ALLOWED = ("authorization", "content-type", "accept", "x-api-key", "x-request-id", "last-event-id")
"""Headers that any page may send."""
EXPOSED = (
    "x-request-id", "request-id", "retry-after", "retry-after-ms", "x-should-retry",
    *(f"x-ratelimit-{what}-{resource}" for resource in SHOWN for what in ("limit", "remaining", "reset")),
    "x-sluice-budget", "x-sluice-budget-remaining", "x-sluice-cache",
    "x-sluice-cost-usd", "x-sluice-attempts", "x-sluice-target", "x-sluice-pod", "x-sluice-upstream-request-id",
)  # fmt: skip
"""Headers of the gateway's own that any page may read."""
READ_BY_ALL = (("Access-Control-Allow-Origin", "*"), ("Cross-Origin-Resource-Policy", "cross-origin"))
"""Headers of what every page may read: it is the same for everybody."""
MAX_REQUESTED = 64
"""Maximum headers that one preflight may request."""
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


def is_for_pages(path: str) -> bool:
    """Returns whether a page of an allowed origin may read responses of this path."""
    return not path.startswith(FOR_SERVERS) or path.rstrip("/") == RENEW


class Cors:
    """`origins`: those of all keys. `frontends` declare the headers that pages may send and read besides
    ALLOWED and EXPOSED.
    """

    def __init__(self, origins: Collection[str], frontends: Iterable[Frontend]) -> None:
        self._origins = origins
        allowed, exposed = [*ALLOWED], [*EXPOSED]
        for frontend in frontends:
            allowed += [*frontend.credential_headers, *frontend.request_headers]
            exposed += [*frontend.id_headers, *frontend.response_headers]
        self._allowed = dict.fromkeys(allowed)
        self._exposed = ", ".join(dict.fromkeys(exposed))

    def headers(self, request: Request) -> list[tuple[str, str]]:
        """Returns the headers that let the requesting page read its response; none if it may not, or if no
        page sent the request.
        """
        origin = request.headers.get("origin", "")
        if origin not in self._origins or not is_for_pages(request.path):
            return []
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", self._exposed),
            ("Vary", "Origin"),
        ]

    def preflight(self, request: Request, allowed: str) -> None:
        """Answers an OPTIONS request; the path has the methods `allowed`."""
        headers = self.headers(request)
        if headers:
            requested = request.headers.get("access-control-request-headers", "")
            headers += [
                ("Access-Control-Allow-Methods", allowed),
                ("Access-Control-Allow-Headers", self.allowed(requested)),
                ("Access-Control-Max-Age", "600"),
            ]
        request.reply(204, b"", headers or [("Allow", allowed)])

    def allowed(self, requested: str) -> str:
        """Returns the `Access-Control-Allow-Headers`: the known headers, and those that the page requests
        besides them.

        SDKs add headers of their own. A request that is not a list of field names, or is too long, is
        ignored. `requested` is the request's `Access-Control-Request-Headers` (WHATWG Fetch 3.2.2).
        """
        names = [name.strip().lower() for name in requested.split(",", MAX_REQUESTED)]
        if len(names) > MAX_REQUESTED or not all(map(_FIELD_NAME.fullmatch, names)):
            return ", ".join(self._allowed)
        return ", ".join(dict.fromkeys((*self._allowed, *names)))
