"""The status at the end of a gRPC call: its codes, and the part of its details that OTLP uses. Pure.

https://github.com/grpc/grpc/blob/master/doc/statuscodes.md and, for answers of servers other than gRPC
servers, https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md
"""

import binascii

from sluice.wire.protobuf import BadProtobuf, fields

NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
"""The names of the codes, in the order of their numbers."""
OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, DEADLINE_EXCEEDED = 0, 1, 2, 3, 4
PERMISSION_DENIED, RESOURCE_EXHAUSTED, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED = 7, 8, 10, 11, 12
INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED = 13, 14, 15, 16
_OF_HTTP = {
    "400": INTERNAL, "401": UNAUTHENTICATED, "403": PERMISSION_DENIED, "404": UNIMPLEMENTED,
    "429": UNAVAILABLE, "502": UNAVAILABLE, "503": UNAVAILABLE, "504": UNAVAILABLE,
}  # fmt: skip
_RETRY_INFO = b"/google.rpc.RetryInfo"
_MAX_DETAILS_LENGTH = 8192
"""Maximum characters of the details that are parsed."""


def code_of(status: str) -> int:
    """Returns the code in a `grpc-status` header; UNKNOWN if it is invalid."""
    code = int(status) if status.isascii() and status.isdecimal() and len(status) <= 2 else UNKNOWN
    return code if code < len(NAMES) else UNKNOWN


def code_of_http(status: str) -> int:
    """Returns the code for an HTTP status other than 200."""
    return _OF_HTTP.get(status, UNKNOWN)


def retry_delay(details: str) -> float | None:
    """Returns the seconds that a server asks a client to wait, from the google.rpc.RetryInfo in the value of
    `grpc-status-details-bin` (a google.rpc.Status in base64, padded or not); None if there is none.

    https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
    """
    if not details or len(details) > _MAX_DETAILS_LENGTH:
        return None
    try:
        status = binascii.a2b_base64(details + "=" * (-len(details) % 4))
        for number, value in fields(status):
            if number == 3 and isinstance(value, bytes):  # google.protobuf.Any
                detail = dict(fields(value))
                kind, message = detail.get(1, b""), detail.get(2, b"")
                if isinstance(kind, bytes) and isinstance(message, bytes) and kind.endswith(_RETRY_INFO):
                    return _seconds(dict(fields(message)).get(1, b""))
    except (ValueError, BadProtobuf):
        return None
    return None


def _seconds(duration: int | bytes) -> float:
    """Returns the seconds of a google.protobuf.Duration. Raises BadProtobuf."""
    if not isinstance(duration, bytes):
        raise BadProtobuf("a duration is a message")
    parts = dict(fields(duration))
    seconds, nanos = parts.get(1, 0), parts.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int) or seconds >= 1 << 63:
        raise BadProtobuf("a duration has two numbers")
    return seconds + min(nanos, 10**9) / 1e9
