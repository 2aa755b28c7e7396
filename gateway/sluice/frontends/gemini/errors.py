"""Errors as Google's APIs have them: a code, a message, a status, and details that clients act upon.

`RetryInfo` says when the same request may be answered, `BadRequest` which fields are wrong;
`ErrorInfo.reason` of the domain "sluice" is the stable code of ours. The details of an upstream of this dialect
stand before it (Gemini CLI looks for the first `ErrorInfo`, and tells a quota for a day from one for a minute by
`QuotaFailure`). Google has no 502: an upstream's failure is UNAVAILABLE, and an error of the gateway's own
account INTERNAL.

Standard: https://cloud.google.com/apis/design/errors and
https://ai.google.dev/gemini-api/docs/troubleshooting
"""

from collections.abc import Mapping
from typing import Any

from sluice.errors import BadRequest, GatewayError, UpstreamError, wait_of
from sluice.frontends.statuses import status_of

STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED", 409: "ABORTED", 410: "NOT_FOUND", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
"""https://cloud.google.com/apis/design/errors#handling_errors"""
_OURS = ("bad_credentials", "not_found")
_RPC = "type.googleapis.com/google.rpc."


def google_status(error: GatewayError) -> int:
    """Returns the HTTP status."""
    status = status_of(error)
    if status != 502:
        return status
    return 500 if isinstance(error, UpstreamError) and error.kind in _OURS else 503


def error_object(error: GatewayError) -> dict[str, Any]:
    """Returns the JSON object of an error, before a stream or within one."""
    code = google_status(error)
    fields = {
        "code": code,
        "message": error.message,
        "status": STATUSES.get(code, "UNKNOWN"),
        "details": _details(error),
    }
    return {"error": fields}


def _details(error: GatewayError) -> list[dict[str, Any]]:
    details = _vendor_details(error)
    details.append({"@type": f"{_RPC}ErrorInfo", "reason": error.code, "domain": "sluice"})
    if isinstance(error, BadRequest):
        wrong = [{"field": detail["field"], "description": detail["reason"]} for detail in error.details]
        details.append({"@type": f"{_RPC}BadRequest", "fieldViolations": wrong})
    wait = wait_of(error)
    if wait is not None:  # it replaces the upstream's, which may differ from a header's
        details = [detail for detail in details if detail["@type"] != f"{_RPC}RetryInfo"]
        details.append({"@type": f"{_RPC}RetryInfo", "retryDelay": f"{wait:.3f}s"})
    return details


def _vendor_details(error: GatewayError) -> list[dict[str, Any]]:
    """Returns the details that an upstream of this dialect gave, those of a known form."""
    found = error.fields.get("details") if isinstance(error, UpstreamError) else None
    if not isinstance(found, list):
        return []
    return [detail for detail in found if isinstance(detail, dict) and isinstance(detail.get("@type"), str)]
