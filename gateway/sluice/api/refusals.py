"""Renders errors as HTTP responses: in the dialect of their route, with the headers that callers need."""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from sluice.api.request import Request
from sluice.errors import (
    BadRequest,
    GatewayError,
    MethodNotAllowed,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpstreamError,
)
from sluice.frontends import Envelope
from sluice.frontends.gateway_errors import gateway_error_object
from sluice.telemetry.records import Records

_json = msgspec.json.Encoder().encode
_BODILESS = frozenset({"GET", "HEAD", "DELETE"})


class GatewayEnvelope(Envelope):
    """The error format of paths that no frontend claims."""

    name: ClassVar[str] = "other"

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return gateway_error_object(error, request_id)


class Refusals:
    """Renders errors; `records` gets unexpected exceptions."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def refuse(
        self,
        request: Request,
        frontend: Envelope,
        error: GatewayError,
        request_id: str,
        known: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Writes the error. `known`: the headers that the response would have had."""
        if isinstance(error, BadRequest) and request.method in _BODILESS:
            error.query = True
        status = frontend.status(error)
        try:
            request.reply(
                status, _json(frontend.error(error, request_id)), [*known, *headers_of(error, status)]
            )
        except (
            Exception
        ) as crash:  # nothing has been sent: a response that cannot be written can still be replaced
            self._records.crashed(crash, request_id)
            request.reply(500, _json(frontend.error(GatewayError("Internal server error"), request_id)))

    def crashed(
        self, request: Request, frontend: Envelope, crash: Exception, request_id: str
    ) -> GatewayError:
        """Logs an unexpected exception (its place, not its text), and returns the error for the caller."""
        self._records.crashed(crash, request_id)
        error = GatewayError("Internal server error")
        if request.begun:
            request.abort()
        else:
            self.refuse(request, frontend, error, request_id)
        return error


def headers_of(error: GatewayError, status: int) -> list[tuple[str, str]]:
    """Returns the headers of an error: when to retry, which methods are allowed, how to authenticate."""
    match error:
        case RateLimited(headers=limits, retry_after=seconds, final=final):
            return [*limits, *_retry_after(seconds, final=final)]
        case UpstreamError(retry_after=float(seconds)) | Unavailable(retry_after=float(seconds)) if (
            status in (429, 503, 529)
        ):
            return _retry_after(seconds)
        case MethodNotAllowed(allowed=allowed):
            return [("Allow", allowed)]
        case UnsupportedMediaType(codings=True):  # RFC 9110 15.5.16
            return [("Accept-Encoding", "gzip, deflate, br, zstd")]
        case Unauthorized():
            return [("WWW-Authenticate", 'Bearer realm="sluice"')]
        case _:
            return []


def _retry_after(seconds: float, *, final: bool = False) -> list[tuple[str, str]]:
    """Returns `Retry-After` in whole seconds (RFC 9110 10.2.3), rounded up, and the exact
    `retry-after-ms`."""
    never = [("x-should-retry", "false")]
    if seconds == float("inf"):
        return never
    when = [("Retry-After", str(-int(-seconds // 1))), ("retry-after-ms", str(-int(-seconds * 1000 // 1)))]
    return when + never if final else when
