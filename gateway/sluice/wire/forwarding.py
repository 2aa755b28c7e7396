"""Selects the header fields that are forwarded from callers to upstreams, and back. Pure.

Every upstream request carries the call's id and the caller's trace context (W3C Trace Context, level 1).
Other fields go to an upstream whose `forward` names them, with the values that it allows; credentials and
cookies never do.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal
from urllib.parse import quote

from sluice.wire.fields import OURS

Headers = tuple[tuple[str, str], ...]
Allowed = Mapping[str, Literal["any"] | tuple[str, ...]]
"""By field name in lower case: which members of its comma-separated value may go on. A member also without
its date, where it ends in one ("context-1m" lets "context-1m-2025-08-07" pass): providers number their betas
so."""

PRIVATE = OURS | {
    "authorization", "proxy-authorization", "www-authenticate", "cookie", "set-cookie", "x-api-key", "api-key",
    "x-widget-api-key", "x-admin-api-key", "x-goog-api-key", "x-amz-security-token", "content-type", "content-encoding",
    "accept", "x-request-id", "request-id", "traceparent", "tracestate", "origin", "referer", "forwarded",
}  # fmt: skip
"""Fields that carry credentials, say what the message is, or are the gateway's own: none of them is forwarded
by name."""
SECRETIVE = re.compile(r"key|token|secret|passw|auth|cookie|credential|session")
"""What a field's name has in it that probably carries a credential."""
MAX_VALUE_LENGTH = 2048
"""Characters of a forwarded value."""

_DATE = re.compile(r"-20\d\d-?\d\d-?\d\d\Z")
_ONE = frozenset({"anthropic-version"})
"""Fields of one value: the caller's stands in place of ours."""
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
    """The header lines of one call that go to every upstream: its id, and the caller's trace context where
    that is well formed.

    `request_id` is letters, digits and . _ : - (the server sees to that).
    """
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
    """Returns the caller's headers that an upstream gets, given those that it allows; names are lower case.
    `dropped` is called with the field's name
    where members of its value are left out."""
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
    """A request's headers with the forwarded ones; a list of values that the request has already gains those
    it lacks."""
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
    """The provider's own id of a request, for a caller who asks its support; "" where it gives none that can
    be shown."""
    found = headers.get("x-request-id") or headers.get("request-id") or headers.get("x-amzn-requestid")
    if not found:
        return ""
    return found if len(found) <= 128 and found.isascii() and found.isprintable() else ""


def shown_target(label: str) -> str:
    """A target's label as a header value."""
    return quote(label, safe="/:@.,+=~!$&'()*;[] -_")
