"""How results become HTTP: the status of every error, the headers that go with them, CORS, and stored conversations as JSON."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from sluice.config.types import Key, NamedGrant
from sluice.conversations import Conversation, Turn
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
from sluice.frontends import Frontend
from sluice.identity.browser import Minted
from sluice.keystore import StoredKey, plain

STATUS: Mapping[type[GatewayError], int] = {
    BadRequest: 400, Unauthorized: 401, Forbidden: 403, ModelNotFound: 404, NotFound: 404, MethodNotAllowed: 405,
    RequestTimeout: 408, Conflict: 409, NotResumable: 410,
    PayloadTooLarge: 413, UnsupportedMediaType: 415, RateLimited: 429, Unavailable: 503,
}  # fmt: skip
UPSTREAM_STATUS = {
    "bad_request": 400, "context_length": 400, "content_policy": 400, "rate_limited": 429, "billing": 429, "overloaded": 503,
    "headers_timeout": 504, "first_token_timeout": 504, "idle_timeout": 504, "total_timeout": 504, "connect_timeout": 504,
}  # fmt: skip
ALLOWED_HEADERS = (
    "authorization, content-type, accept, x-api-key, x-widget-api-key, x-request-id, last-event-id, "
    "x-stainless-arch, x-stainless-async, x-stainless-lang, x-stainless-os, x-stainless-package-version, "
    "x-stainless-retry-count, x-stainless-runtime, x-stainless-runtime-version, x-stainless-timeout, x-stainless-helper-method"
)
EXPOSED_HEADERS = (
    "x-request-id, request-id, retry-after, retry-after-ms, x-should-retry, "
    "x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    "x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, x-sluice-budget, x-sluice-cost-usd, "
    "x-sluice-attempts, x-sluice-target, x-sluice-upstream-request-id"
)

MOST_ASKED = 64
"""Headers that one preflight may ask for."""
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


def allowed_headers(asked: str) -> str:
    """`Access-Control-Allow-Headers` for a page that may ask: what is known to be sent, and what it asks for beside that.

    SDKs add headers of their own. What is no list of field names, or is a long one, is passed over. `asked` is the
    request's `Access-Control-Request-Headers` (WHATWG Fetch 3.2.2).
    """
    names = [name.strip().lower() for name in asked.split(",", MOST_ASKED)]
    if len(names) > MOST_ASKED or not all(map(_FIELD_NAME.fullmatch, names)):
        return ALLOWED_HEADERS
    return ", ".join(dict.fromkeys((*ALLOWED_HEADERS.split(", "), *names)))


NOT_STORED = (("Cache-Control", "no-store"),)


def status_of(error: GatewayError, frontend: Frontend) -> int:
    """The HTTP status of an error before a stream. The widget's contract knows one for everything that is not the caller's."""
    if isinstance(error, UpstreamError):
        status = UPSTREAM_STATUS.get(error.kind, 502)
        return status if frontend.name != "widget" or status in (400, 429) else 500
    return STATUS.get(type(error), 500)


def headers_of(error: GatewayError, status: int) -> list[tuple[str, str]]:
    """What a caller needs beside the body: when to come back, what to use instead, how to authenticate."""
    match error:
        case RateLimited(headers=limits, retry_after=seconds, final=final):
            return [*limits, *_retry_after(seconds, final=final)]
        case UpstreamError(retry_after=float(seconds)) | Unavailable(retry_after=float(seconds)) if status in (429, 503):
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
    """`Retry-After` in whole seconds (RFC 9110 10.2.3), never too early; `retry-after-ms` exact."""
    never = [("x-should-retry", "false")]
    if seconds == float("inf"):
        return never
    when = [("Retry-After", str(-int(-seconds // 1))), ("retry-after-ms", str(-int(-seconds * 1000 // 1)))]
    return when + never if final else when


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def conversation_object(found: Conversation) -> dict[str, Any]:
    """A stored conversation as the contract writes it."""
    return {
        "_id": found.id,
        "sessionId": found.session,
        "createdAt": _iso(found.created),
        "updatedAt": _iso(found.updated),
        "lastMessage": found.last_message,
    }


def renewed_object(minted: Minted) -> dict[str, Any]:
    """A renewed token, and until when it can be renewed again."""
    until = minted.renewable_until
    return {**token_object(minted), "renewableUntil": None if until is None else _iso(until)}


def token_object(minted: Minted) -> dict[str, Any]:
    return {
        "token": minted.token,
        "expiresAt": _iso(minted.expires),
        "origin": minted.origin,
        "alias": minted.alias,
        "sessionPrefix": minted.session_prefix,
    }


def message_object(turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content, "createdAt": _iso(turn.created)}
    return {**message, "interrupted": True} if turn.interrupted else message


def key_object(key: NamedGrant) -> dict[str, Any]:
    """A key without its secret and its digests: of the configuration, or made through the admin API."""
    told: dict[str, Any] = {"id": key.id, "tenant": key.owner, "source": "config" if isinstance(key, Key) else "admin"}
    told |= {name: getattr(key, name) for name in ("aliases", "default_alias", "origins", "expires", "enabled")}
    told["limits"] = msgspec.to_builtins(key.limits, enc_hook=plain)
    if isinstance(key, StoredKey):
        told |= {"last_four": key.last_four, "created": _iso(key.created)}
        told["rotated"] = _iso(key.rotated) if key.rotated is not None else None
        told["old_key_until"] = _iso(key.old.until) if key.old is not None else None
    return told
