"""Reduces the reason why a sink did not accept a batch to one of a few words, for metrics, whose labels are a
closed set."""

import errno
import os
from collections.abc import Mapping
from typing import Literal, get_args

Cause = Literal[
    "auth", "busy", "connection", "disk", "not_found", "other", "rejected", "server_error", "timeout", "tls", "too_large"
]  # fmt: skip
CAUSES: tuple[Cause, ...] = get_args(Cause)

_STATUSES: dict[int, Cause] = {
    401: "auth", 403: "auth", 404: "not_found", 408: "timeout", 413: "too_large", 429: "busy", 503: "busy", 504: "timeout",
}  # fmt: skip

_NAMES: Mapping[str, Cause] = {
    # of exceptions
    "ClientConnectorError": "connection", "ClientConnectionResetError": "connection", "ClientOSError": "connection",
    "ServerDisconnectedError": "connection", "ConnectionResetError": "connection", "ConnectionRefusedError": "connection",
    "BrokenPipeError": "connection", "ClientConnectorDNSError": "connection", "OSError": "connection",
    "gaierror": "connection", "IncompleteReadError": "connection", "ClientPayloadError": "connection",
    "ClientConnectorSSLError": "tls", "ClientConnectorCertificateError": "tls", "ClientSSLError": "tls",
    "SSLError": "tls", "SSLCertVerificationError": "tls",
    "TimeoutError": "timeout", "ServerTimeoutError": "timeout", "ConnectionTimeoutError": "timeout",
    "SocketTimeoutError": "timeout",
    # of gRPC's statuses
    "UNAUTHENTICATED": "auth", "PERMISSION_DENIED": "auth", "DEADLINE_EXCEEDED": "timeout", "UNAVAILABLE": "busy",
    "RESOURCE_EXHAUSTED": "busy", "INVALID_ARGUMENT": "rejected", "UNIMPLEMENTED": "not_found", "INTERNAL": "server_error",
    # of Kafka's errors, and librdkafka's
    "TRANSPORT": "connection", "RESOLVE": "connection", "ALL_BROKERS_DOWN": "connection", "SSL": "tls",
    "AUTHENTICATION": "auth", "SASL_AUTHENTICATION_FAILED": "auth", "TOPIC_AUTHORIZATION_FAILED": "auth",
    "CLUSTER_AUTHORIZATION_FAILED": "auth", "UNKNOWN_TOPIC_OR_PART": "not_found", "UNKNOWN_TOPIC": "not_found",
    "MSG_TIMED_OUT": "timeout", "TIMED_OUT": "timeout", "REQUEST_TIMED_OUT": "timeout",
    "MSG_SIZE_TOO_LARGE": "too_large", "RECORD_LIST_TOO_LARGE": "too_large", "INVALID_RECORD": "rejected",
    "NOT_ENOUGH_REPLICAS": "busy", "THROTTLING_QUOTA_EXCEEDED": "busy", "POLICY_VIOLATION": "rejected",
}  # fmt: skip

_DISK = frozenset(os.strerror(number) for number in errno.errorcode)


def cause_of(reason: str) -> Cause:
    """Returns the word for the reason of a `Delivered`: a status, or the name of an error."""
    name = reason.rpartition(" ")[2]
    if reason == f"status {name}" and name.isascii() and name.isdigit():
        status = int(name)
        return _STATUSES.get(status, "server_error" if status >= 500 else "rejected")
    if reason in _DISK:
        return "disk"
    return _NAMES.get(name, "other")
