"""Errors in Anthropic's envelope, with its types and statuses.

Clients act upon types, statuses and one wording: Claude Code shortens a conversation if the message says that
the prompt is too long, so an error of that kind uses these words, whatever the provider's were. SDKs also act
upon `details.error_code`: if a message thread cannot be continued they send the whole conversation again.
Fields that Anthropic itself sends beside type and message are kept. Standard:
https://platform.claude.com/docs/en/api/errors
"""

from collections.abc import Mapping
from typing import Any

from sluice.errors import (
    NO_OTHER_FIELDS,
    BadRequest,
    Forbidden,
    GatewayError,
    ModelNotFound,
    NotFound,
    NotResumable,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UpstreamError,
    wait_of,
)
from sluice.frontends.statuses import status_of

_TYPES: Mapping[type[GatewayError], str] = {
    Unauthorized: "authentication_error", Forbidden: "permission_error", ModelNotFound: "not_found_error",
    NotFound: "not_found_error", NotResumable: "not_found_error", PayloadTooLarge: "request_too_large",
    RequestTimeout: "timeout_error", RateLimited: "rate_limit_error", Unavailable: "overloaded_error",
    GatewayError: "api_error",
}  # fmt: skip
_UPSTREAM: Mapping[str, str] = {
    "rate_limited": "rate_limit_error", "overloaded": "overloaded_error", "billing": "billing_error",
    "headers_timeout": "timeout_error", "first_token_timeout": "timeout_error", "idle_timeout": "timeout_error",
    "total_timeout": "timeout_error", "connect_timeout": "timeout_error",
}  # fmt: skip
_STATUSES = {"overloaded_error": 529, "billing_error": 402}
_NO_THREAD = "thread_not_found"
_OF_THREADS = "thread_"
TOO_LONG = "prompt is too long"


def error_object(error: GatewayError, request_id: str) -> dict[str, Any]:
    """Returns the envelope, before a stream or within one. It contains `retry_after` (seconds) if it is known
    when the same request may succeed, because within a stream no header can carry it."""
    said = error.fields if isinstance(error, UpstreamError) else NO_OTHER_FIELDS
    fields: dict[str, Any] = {**said, "type": error_type(error), "message": _message(error)}
    details = fields.pop("details", None)
    if not isinstance(details, dict):  # Google's, of Claude on Vertex AI, are a list
        details = {}
    if code := _thread_code(error):
        details = {**details, "error_code": code}
    if details:
        fields["details"] = details
    wait = wait_of(error)
    if wait is not None:
        fields["retry_after"] = wait
    return {"type": "error", "error": fields, "request_id": request_id}


def error_type(error: GatewayError) -> str:
    match error:
        case _ if _thread_code(error) == _NO_THREAD:
            return "not_found_error"
        case UpstreamError(kind="unknown_id", status=status) if status != 400:
            return "not_found_error"
        case UpstreamError(about_request=True):
            return "invalid_request_error"
        case UpstreamError(kind=kind):
            return _UPSTREAM.get(kind, "api_error")
        case _:
            return _TYPES.get(type(error), "invalid_request_error")


def status(error: GatewayError) -> int:
    if _thread_code(error) == _NO_THREAD:
        return 404
    return _STATUSES.get(error_type(error)) or status_of(error)


def _thread_code(error: GatewayError) -> str:
    """Returns why a message thread cannot be continued, in the API's own codes; "" for any other error."""
    match error:
        case BadRequest(param="thread", code="unsupported_parameter"):
            return _NO_THREAD
        case UpstreamError(callers_fault=True, provider_code=code) if code.startswith(_OF_THREADS):
            return code
        case _:
            return ""


def _message(error: GatewayError) -> str:
    if (
        isinstance(error, UpstreamError)
        and error.kind == "context_length"
        and TOO_LONG not in error.message.lower()
    ):
        return f"{TOO_LONG}: {error.message}"
    return error.message
