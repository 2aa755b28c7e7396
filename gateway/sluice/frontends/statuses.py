"""The HTTP status of every error, as most dialects have it."""

from collections.abc import Mapping

from sluice.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    NotResumable,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpstreamError,
)

STATUS: Mapping[type[GatewayError], int] = {
    BadRequest: 400, Unauthorized: 401, Forbidden: 403, ModelNotFound: 404, NotFound: 404, MethodNotAllowed: 405,
    RequestTimeout: 408, Conflict: 409, NotResumable: 410,
    PayloadTooLarge: 413, UnsupportedMediaType: 415, RateLimited: 429, Unavailable: 503,
}  # fmt: skip
UPSTREAM_STATUS = {
    "bad_request": 400, "context_length": 400, "content_policy": 400, "rate_limited": 429, "billing": 429, "overloaded": 503,
    "headers_timeout": 504, "first_token_timeout": 504, "idle_timeout": 504, "total_timeout": 504, "connect_timeout": 504,
}  # fmt: skip


def status_of(error: GatewayError) -> int:
    if isinstance(error, UpstreamError):
        if error.kind == "unknown_id":  # OpenAI's is 400 for responses, 404 for all else
            return 400 if error.status == 400 else 404
        return UPSTREAM_STATUS.get(error.kind, 502)
    return STATUS.get(type(error), 500)
