"""Errors in OpenAI's format, the only one whose message and code its SDKs show.

The codes that clients act upon are OpenAI's (LangChain looks for `context_length_exceeded`). The provider's
own code is used if it refused the request for another reason or failed in its stream; other codes are the
gateway's. Further fields of a provider of this dialect (`param`, Azure's `innererror`, Groq's
`failed_generation`) are kept. Standard: https://platform.openai.com/docs/guides/error-codes/api-errors
"""

from collections.abc import Mapping
from typing import Any

from sluice.errors import (
    NO_OTHER_FIELDS,
    Forbidden,
    GatewayError,
    RateLimited,
    Unauthorized,
    Unavailable,
    UpstreamError,
    wait_of,
)

_TYPES: Mapping[type[GatewayError], str] = {
    Unauthorized: "authentication_error", Forbidden: "permission_error", RateLimited: "rate_limit_error",
    Unavailable: "server_error", GatewayError: "server_error",
}  # fmt: skip
_CODES: Mapping[str, str] = {
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "billing": "insufficient_quota",
    "context_length": "context_length_exceeded",
    "content_policy": "content_policy_violation",
}


def error_object(error: GatewayError) -> dict[str, Any]:
    """Returns the `{"error": …}` object for an error before or within a stream. It contains `retry_after`
    (seconds) if it is known when the same request may succeed, because within a stream no header can carry
    it."""
    said = error.fields if isinstance(error, UpstreamError) else NO_OTHER_FIELDS
    fields = {
        **said,
        "message": error.message,
        "type": _type(error),
        "param": error.param or (param if isinstance(param := said.get("param"), str) else None),
        "code": _code(error),
    }
    wait = wait_of(error)
    return {"error": fields if wait is None else {**fields, "retry_after": wait}}


def _code(error: GatewayError) -> str:
    match error:
        case UpstreamError(kind="bad_request" | "unknown_id" | "stream_error", provider_code=str(code)) if (
            code
        ):
            return code  # as for a caller of the provider itself
        case _:
            return _CODES.get(error.code, error.code)


def _type(error: GatewayError) -> str:
    match error:
        case UpstreamError(about_request=True):
            return "invalid_request_error"
        case UpstreamError(kind="rate_limited"):
            return "rate_limit_error"
        case UpstreamError(kind="billing"):
            return "insufficient_quota"
        case UpstreamError():
            return "api_error"
        case _:
            return _TYPES.get(type(error), "invalid_request_error")
