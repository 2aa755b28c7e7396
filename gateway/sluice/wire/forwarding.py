"""Selects the header fields that are forwarded from callers to upstreams, and back. Pure.

Every upstream request has the call's id and the caller's trace context (W3C Trace Context, level 1). Other
fields go to an upstream whose `forward` names them, with the values that it allows. Credentials and cookies
are never forwarded.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import quote

from sluice.wire.fields import FRAMING_FIELDS

Headers = tuple[tuple[str, str], ...]
Allowed = Mapping[str, Literal["any"] | tuple[str, ...]]
"""By lower-case field name: the members of its comma-separated value that are forwarded.

A member may have a date at its end that the configured one has not ("context-1m" allows
"context-1m-2025-08-07"), because providers version their betas in this way.
"""

PRIVATE = FRAMING_FIELDS | {
    "authorization", "proxy-authorization", "www-authenticate", "cookie", "set-cookie", "x-api-key", "api-key",
    "x-widget-api-key", "x-admin-api-key", "x-goog-api-key", "x-amz-security-token", "content-type", "content-encoding",
    "accept", "x-request-id", "request-id", "traceparent", "tracestate", "origin", "referer", "forwarded",
}  # fmt: skip
"""Fields that carry credentials, describe the message, or are the gateway's own: they cannot be forwarded by
name."""
SECRETIVE = re.compile(r"key|token|secret|passw|auth|cookie|credential|session")
"""Parts of field names that probably carry credentials."""
MAX_VALUE_LENGTH = 2048
"""Maximum characters of a forwarded value."""

_DATE = re.compile(r"-20\d\d-?\d\d-?\d\d\Z")
_ONE = frozenset({"anthropic-version"})
"""Fields with a single value: the caller's value replaces the gateway's."""
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,100})?")
_TRACESTATE = re.compile(r"[\t\x20-\x7e]{1,512}")


def check_forward(name: str) -> None:
    """Raises ValueError for a field that may not be forwarded."""
    lower = name.lower()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}", lower):
        raise ValueError("not a header name")
    if (
        lower in PRIVATE
        or SECRETIVE.search(lower)
        or lower.startswith(("x-forwarded-", "sec-", "proxy-", "x-ratelimit-"))
    ):
        raise ValueError(
            "this header is not forwarded: it carries credentials, or is the gateway's own to set"
        )


def own_lines(request_id: str, headers: Mapping[str, str]) -> bytes:
    """Returns the header lines of a call that every upstream gets: the call's id, and the caller's trace
    context if it is valid. `request_id` has letters, digits and . _ : - only (the server ensures that)."""
    if "traceparent" in headers and _TRACEPARENT.fullmatch(headers["traceparent"]):
        state = headers.get("tracestate", "")
        more = f"tracestate: {state}\r\n" if _TRACESTATE.fullmatch(state) else ""
        return f"x-request-id: {request_id}\r\ntraceparent: {headers['traceparent']}\r\n{more}".encode(
            "ascii"
        )
    return f"x-request-id: {request_id}\r\n".encode()


def forwarded(
    allowed: Allowed, headers: Mapping[str, str], dropped: Callable[[str], object] = lambda name: None
) -> Headers:
    """Returns the caller's headers that are forwarded to an upstream, which allows `allowed`. Names are lower
    case. `dropped` is called with the field's name if members of its value are left out."""
    found = []
    for name, values in allowed.items():
        value = headers.get(name, "")
        if values != "any" and value:
            members = [member for part in value.split(",") if (member := part.strip())]
            kept = [member for member in members if member in values or _DATE.sub("", member) in values]
            if len(kept) < len(members):
                dropped(name)
            value = ",".join(kept)
        if value and len(value) <= MAX_VALUE_LENGTH and _VALUE.fullmatch(value):
            found.append((name, value))
    return tuple(found)


def with_forwarded(headers: Headers, more: Headers) -> Headers:
    """Returns a request's headers together with the forwarded ones; to a list of values only missing ones are
    added."""
    fields = dict(headers)
    for name, value in more:
        ours = fields.get(name, "")
        members = [part.strip() for part in ours.split(",")]
        extra = [part for part in value.split(",") if part.strip() not in members]
        if name in _ONE:
            fields[name] = value
        else:
            fields[name] = ",".join([ours, *extra]) if ours and extra else ours or value
    return tuple(fields.items())


def provider_id(headers: Mapping[str, str]) -> str:
    """Returns the provider's own id of a request, by which callers can ask its support; "" if there is none
    that can be shown."""
    found = headers.get("x-request-id") or headers.get("request-id") or headers.get("x-amzn-requestid")
    if not found:
        return ""
    return found if len(found) <= 128 and found.isascii() and found.isprintable() else ""


def shown_target(label: str) -> str:
    """Returns a target's label as a header value."""
    return quote(label, safe="/:@.,+=~!$&'()*;[] -_")
