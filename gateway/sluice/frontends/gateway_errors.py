"""Errors in the gateway's own format, which widgets parse: on its own routes, and on paths that no dialect
claims."""

from collections.abc import Mapping
from typing import Any

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

INTERNAL = "Internal server error"
INVALID = "Invalid request payload"
INVALID_QUERY = "Invalid query parameters"
TEXTS: Mapping[type[GatewayError], str] = {
    BadRequest: INVALID, Unauthorized: "Unauthorized", Forbidden: "Forbidden", ModelNotFound: "Model not found",
    NotFound: "Not found", MethodNotAllowed: "Method not allowed", RequestTimeout: "Request timeout",
    PayloadTooLarge: "Payload too large", UnsupportedMediaType: "Unsupported media type",
    NotResumable: "Stream not resumable", RateLimited: "Too many requests", Unavailable: "Service unavailable",
    Conflict: "Conflict",
}  # fmt: skip
"""The texts of BadRequest, Unauthorized and RateLimited, and `INTERNAL`, are part of the API: clients compare
them."""


def gateway_error_object(error: GatewayError, request_id: str) -> dict[str, Any]:
    """Returns an error's object. `error` is a text that depends on the kind alone, `code` is for programs,
    `reason` or `details` have more."""
    body: dict[str, Any] = {"error": _text_of(error), "code": error.code, "requestId": request_id}
    match error:
        case BadRequest(details=details):
            body["details"] = details
        case UpstreamError(about_request=True):
            body["details"] = [{"field": "body", "reason": error.message, "code": error.code}]
        case UpstreamError() | Unauthorized():
            pass
        case _ if type(error) in TEXTS:
            body["reason"] = error.message
    return body


def _text_of(error: GatewayError) -> str:
    match error:
        case UpstreamError(about_request=True):
            return INVALID
        case BadRequest(query=True):
            return INVALID_QUERY
        case UpstreamError(kind="rate_limited" | "billing"):
            return TEXTS[RateLimited]
        case _:
            return TEXTS.get(type(error), INTERNAL)
