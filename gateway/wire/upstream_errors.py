"""What an upstream's error means, whichever vendor wrote it: words and a status in, an `UpstreamError` out.

Vendors agree on little: `{"error": {"message", "type", "code"}}` (OpenAI, Anthropic, Azure, Google inside a list),
`{"error": "text"}` (Ollama, Venice), `{"detail": …}` (FastAPI), `{"message": …}` (Mistral, Cohere, AWS). All are read
here once. The kind decides what becomes of the call: the caller's own mistakes are passed on, all else fails over.

Texts go to callers, so what looks like a key or an account's id is blotted out, and what a provider says about
the gateway's own credentials is replaced.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import UpstreamError, UpstreamErrorKind
from gateway.wire.retry_after import parse_retry_after

MAX_MESSAGE = 500
"""Characters of a provider's message that are passed on."""

_STATUS: Mapping[int, UpstreamErrorKind] = {
    401: "bad_credentials",
    402: "rate_limited",  # the account is out of money: like a quota, another target may answer
    403: "bad_credentials",
    404: "not_found",
    405: "not_found",
    408: "headers_timeout",
    409: "server_error",
    425: "server_error",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}

_CODES: Mapping[str, UpstreamErrorKind] = {
    "context_length_exceeded": "context_length",
    "exceed_context_size_error": "context_length",
    "content_filter": "content_policy",
    "content_policy_violation": "content_policy",
    "responsibleaipolicyviolation": "content_policy",
    "moderation_blocked": "content_policy",
    "insufficient_quota": "rate_limited",
    "insufficient_balance": "rate_limited",
    "rate_limit_error": "rate_limited",
    "rate_limit_exceeded": "rate_limited",
    "resource_exhausted": "rate_limited",
    "overloaded_error": "overloaded",
    "overloaded": "overloaded",
    "unavailable": "overloaded",
    "authentication_error": "bad_credentials",
    "permission_error": "bad_credentials",
    "invalid_api_key": "bad_credentials",
    "api_key_invalid": "bad_credentials",
    "invalid_model": "not_found",
    "model_not_found": "not_found",
    "deploymentnotfound": "not_found",
    "not_found_error": "not_found",
    "server_error": "server_error",
    "internal_server_error": "server_error",
    "api_error": "server_error",
}

_PHRASES: tuple[tuple[str, UpstreamErrorKind], ...] = (
    ("context length", "context_length"),
    ("context window", "context_length"),
    ("context size", "context_length"),
    ("context limit", "context_length"),
    ("prompt is too long", "context_length"),
    ("input is too long", "context_length"),
    ("reduce the length of the messages", "context_length"),
    ("content management policy", "content_policy"),
    ("content filtering policy", "content_policy"),
    ("requires moderation", "content_policy"),
    ("credit balance", "rate_limited"),
    ("api key not valid", "bad_credentials"),
)

_OURS: Mapping[UpstreamErrorKind, str] = {"bad_credentials": "The upstream refused the gateway's credentials"}

_SECRET = re.compile(r"\b(?:sk|pk|rk|org|proj|gsk|xai|key|pplx|hf|AIza|AKIA|Bearer)(?:[-_ ][\w*.-]{6,}|[\w*-]{16,})")


class Reason(msgspec.Struct, frozen=True):
    """What the provider said: its message, and its codes and types in lower case; `status` where the body names one."""

    message: str = ""
    codes: tuple[str, ...] = ()
    status: int = 0


def upstream_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The error that an answer other than 200 stands for. Never raises; `body` may be cut, or not be JSON."""
    reason = read(body)
    kind = status_kind(status, reason)
    return UpstreamError(kind, shown(kind, reason), status=status, retry_after=parse_retry_after(headers))


def stream_error(error: Any) -> UpstreamError:
    """The error that an error object inside a 200 stream stands for: `error` is its decoded JSON, of any shape."""
    reason = reason_of(error)
    kind = _said(reason) or _STATUS.get(reason.status, "stream_error")
    return UpstreamError(kind, shown(kind, reason), status=200)


def read(body: bytes) -> Reason:
    """What an error body says; an empty Reason where it is not JSON."""
    try:
        return reason_of(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Reason()


def reason_of(value: Any) -> Reason:
    """What a decoded error object says, whichever vendor's shape it has."""
    match value:
        case [first, *_]:
            return reason_of(first)
        case {"error": dict(inner)} | {"error": [dict(inner), *_]} | {"detail": dict(inner)}:
            return reason_of(inner)
        case {"error": str(text)} | {"detail": str(text)} | {"detail": [{"msg": str(text)}, *_]}:
            return Reason(text, _codes(value), _status(value))
        case {"message": str(text)} | {"Message": str(text)} | {"msg": str(text)}:
            return Reason(text, _codes(value), _status(value))
        case dict():
            return Reason("", _codes(value), _status(value))
        case str(text):
            return Reason(text)
        case _:
            return Reason()


def status_kind(status: int, reason: Reason) -> UpstreamErrorKind:
    """The kind of an HTTP status, sharpened by what the provider said where the status is too coarse."""
    said = _said(reason)
    if said == "content_policy" or (
        status in (400, 413, 422) and said in ("context_length", "rate_limited", "bad_credentials")
    ):
        return said
    if status == 400 and said == "not_found":
        return said
    if status in _STATUS:
        return _STATUS[status]
    if 400 <= status < 500:
        return "bad_request"
    return said if said == "overloaded" else "server_error"


def shown(kind: UpstreamErrorKind, reason: Reason) -> str:
    """The message that may be shown to callers; "" where the provider gave none."""
    text = _OURS.get(kind) or "".join(c if c.isprintable() else " " for c in reason.message[: 2 * MAX_MESSAGE])
    text = _SECRET.sub("***", text)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _said(reason: Reason) -> UpstreamErrorKind | None:
    for code in reason.codes:
        if code in _CODES:
            return _CODES[code]
    text = reason.message[: 4 * MAX_MESSAGE].lower()
    return next((kind for phrase, kind in _PHRASES if phrase in text), None)


def _codes(error: Mapping[str, Any]) -> tuple[str, ...]:
    named = (error.get(name) for name in ("code", "type", "status"))
    return tuple(code.lower() for code in named if isinstance(code, str))


def _status(error: Mapping[str, Any]) -> int:
    named = (error.get(name) for name in ("status_code", "code", "raw_status_code"))
    return next((code for code in named if type(code) is int), 0)
