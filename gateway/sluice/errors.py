"""The gateway's errors. They are raised where they occur, and rendered in one place per dialect. None may
contain a secret or a prompt, because the text of each error is shown to callers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

UpstreamErrorKind = Literal[
    # before an answer: connection
    "dns_error", "connect_error", "connect_timeout", "tls_error", "reset", "headers_timeout",
    # the answer's status
    "rate_limited", "server_error", "overloaded", "bad_credentials", "billing", "not_found",
    # the request itself is at fault: passed on to the caller
    "bad_request", "context_length", "content_policy",
    # an id in the request that the provider does not know: another account may have it
    "unknown_id",
    # the answer's stream
    "garbled", "truncated", "stream_error", "first_token_timeout", "idle_timeout", "total_timeout",
    # a continued answer that turned out to be another one
    "diverged",
]  # fmt: skip

_SCOPES = {"key_alias": "key and alias", "end_user": "end user"}
"""How the scopes of limits are called in messages, if not by their names."""

CONNECTION: dict[UpstreamErrorKind, str] = {
    "dns_error": "The upstream could not be reached",
    "connect_error": "The upstream could not be reached",
    "tls_error": "The upstream could not be reached",
    "connect_timeout": "The upstream could not be reached in time",
    "headers_timeout": "The upstream did not answer in time",
    "reset": "The upstream closed the connection",
}
"""The messages for callers about connections. The errors' own messages contain upstreams' addresses, and are
for the log."""

NO_OTHER_FIELDS: Mapping[str, Any] = {}

CALLERS_FAULT: frozenset[UpstreamErrorKind] = frozenset({"bad_request", "context_length", "content_policy"})
"""Kinds of errors that another target would answer in the same way: never retried."""

NOT_THE_TARGETS_FAULT: frozenset[UpstreamErrorKind] = CALLERS_FAULT | {"unknown_id"}
"""Kinds that say nothing about the target's health."""

ACCOUNTS_FAULT: frozenset[UpstreamErrorKind] = frozenset({"bad_credentials", "billing"})
"""Kinds in which the gateway's own account with the provider is at fault: its key, its rights or its balance.
The next target is asked, and the operator has to be told."""


class ConfigError(Exception):
    """The configuration cannot be used. `problems`: complete lines, ready to print."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class GatewayError(Exception):
    """A call that cannot be answered. `code` is stable and meant for programs, the message is for people."""

    code = "internal_error"

    def __init__(self, message: str = "", *, param: str | None = None) -> None:
        super().__init__(message or self.code)
        self.message = message or self.code.replace("_", " ")
        self.param = param


class BadRequest(GatewayError):
    """`details` says which field and why: [{"field": "message", "reason": "must have 1 to 4000
    characters"}]. `query`: the request has no body, so the field is a parameter of its URL; set where errors
    are rendered."""

    code = "invalid_request"
    query = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        details: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(message, param=param)
        self.code = code or self.code
        self.details = details if details is not None else [{"field": param or "body", "reason": message}]


class Unauthorized(GatewayError):
    """`reason` is one of the closed set of `auth_failures_total`. The caller only learns that it was refused."""

    code = "unauthorized"

    def __init__(self, reason: str) -> None:
        super().__init__("Missing or invalid credentials")
        self.reason = reason


class Forbidden(GatewayError):
    code = "forbidden"

    def __init__(self, message: str = "", *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message, param=param)
        self.code = code or self.code


class ModelNotFound(GatewayError):
    """An alias that does not exist, or that the key may not use: the caller cannot distinguish these."""

    code = "model_not_found"


class NotFound(GatewayError):
    code = "not_found"


class Conflict(GatewayError):
    """The request conflicts with the present state: a name that is taken, or an object that may not be
    changed here."""

    code = "conflict"


class NotResumable(GatewayError):
    """A stream that existed, but whose rest is not available: it grew too large, its store failed, or its
    writer has ended."""

    code = "stream_not_resumable"


class MethodNotAllowed(GatewayError):
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"Use {allowed}")
        self.allowed = allowed


class PayloadTooLarge(GatewayError):
    code = "payload_too_large"


class UnsupportedMediaType(GatewayError):
    """`codings`: the body's Content-Encoding is the part that is not supported."""

    code = "unsupported_media_type"

    def __init__(self, message: str, *, codings: bool = False) -> None:
        super().__init__(message)
        self.codings = codings


class RequestTimeout(GatewayError):
    """The caller was too slow in sending its request."""

    code = "request_timeout"


class RateLimited(GatewayError):
    """A limit is reached. `retry_after`: seconds until the same call would be admitted. `final`: retrying
    within the window is useless. `headers` describe the bucket to the caller."""

    code = "rate_limited"

    def __init__(
        self,
        retry_after: float,
        *,
        scope: str,
        resource: str,
        final: bool = False,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        whose = "overall" if scope == "overall" else f"per {_SCOPES.get(scope, scope)}"
        super().__init__(f"Limit of {resource} reached {whose}")
        self.headers = headers
        self.retry_after = retry_after
        self.scope = scope
        self.resource = resource
        self.final = final


class Unavailable(GatewayError):
    """The gateway itself cannot take the call now (it is draining, has no memory for its body, or a store is
    down). `retry_after`: seconds until it may; None: unknown."""

    code = "unavailable"

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UpstreamError(GatewayError):
    """An attempt at one target failed.

    `status`: the upstream's HTTP status, 0 without one. `retry_after`: seconds, if the upstream gave them.
    `detail` is for the log only: what happened to the connection, with the upstream's address. The message
    may be shown: the provider's own words about the request, or the gateway's; never a header or a key.
    `provider_code`: the provider's own name of the error, "" without one. `fields`: the other fields of the
    provider's error, for callers of its own dialect only.

    `words` and `document` are the unmasked source of these, and are kept until the upstream's own secrets
    have been masked (`sluice.wire.upstream_errors.conceal`). They are never shown or logged.
    """

    def __init__(
        self, kind: UpstreamErrorKind, message: str = "", *, status: int = 0, retry_after: float | None = None
    ) -> None:
        self.detail = message if kind in CONNECTION else ""
        super().__init__(CONNECTION.get(kind) or message or kind.replace("_", " "))
        self.kind: UpstreamErrorKind = kind
        self.code = kind
        self.status = status
        self.retry_after = retry_after
        self.words = ""
        self.document: object = None
        self.fields: Mapping[str, Any] = NO_OTHER_FIELDS
        self.provider_code = ""

    @property
    def callers_fault(self) -> bool:
        """Whether another target would give the same error, so that it is passed on instead of failing over."""
        return self.kind in CALLERS_FAULT

    @property
    def about_request(self) -> bool:
        """Whether it is about what the caller sent, and is shown to the caller; another target may still
        answer."""
        return self.kind in NOT_THE_TARGETS_FAULT


def wait_of(error: GatewayError) -> float | None:
    """Returns the seconds after which the same request may succeed; None if unknown, or never."""
    match error:
        case RateLimited(retry_after=seconds) | UpstreamError(retry_after=float() as seconds) if (
            seconds < math.inf
        ):
            return math.ceil(seconds * 1000) / 1000
        case _:
            return None


class NoCapacity(UpstreamError):
    """The gateway's own limit of an upstream is reached, so it was not asked. `retry_after`: seconds;
    infinite: never."""

    def __init__(self, retry_after: float, resource: str) -> None:
        super().__init__("rate_limited", f"Limit of {resource} reached per upstream", retry_after=retry_after)
        self.wait = retry_after
        self.scope = "upstream"
        self.resource = resource


TlsReason = Literal[
    "wrong_host",
    "expired",
    "not_yet_valid",
    "unknown_ca",
    "untrusted",
    "client_certificate",
    "version",
    "handshake",
]
"""Why TLS to an upstream failed. `untrusted`: its certificate is not accepted, for a reason not listed here.
`client_certificate`: ours was refused, or is missing. `handshake`: anything else."""


class TlsFailed(UpstreamError):
    """TLS to an upstream failed; `reason` is one of a closed set."""

    def __init__(self, reason: TlsReason, message: str) -> None:
        super().__init__("tls_error", message)
        self.reason: TlsReason = reason


class StaleConnection(UpstreamError):
    """The upstream closed an idle connection without a byte of a response: most likely the request was never
    read.

    HTTP cannot distinguish this from an upstream that took the request and then closed (RFC 9112 9.3.1), so a
    transport does not send it again by itself; the code that counts attempts decides. It says nothing about
    the target's health.
    """

    def __init__(self, message: str) -> None:
        super().__init__("reset", message)


class UpstreamTruncated(UpstreamError):
    """The stream ended without its dialect's own terminator."""

    def __init__(self, message: str = "The upstream's answer was cut short") -> None:
        super().__init__("truncated", message)


class UpstreamGarbled(UpstreamError):
    """The bytes of a stream do not follow its dialect."""

    def __init__(self, message: str = "The upstream's answer could not be understood") -> None:
        super().__init__("garbled", message)


class StageFault(Exception):
    """A stage raised another error, its cause. It would do so for any target."""


class DecoderCrashed(UpstreamGarbled):
    """A decoder failed on the upstream's bytes: a fault of the gateway, `crash`, which is logged. Another
    target may answer."""

    def __init__(self, crash: Exception) -> None:
        super().__init__()
        self.crash = crash


def without_frames(error: GatewayError) -> None:
    """Removes the traceback and the causes of an error that is kept for the records: their frames refer to
    the call, which refers to the error, and only the garbage collector would free them."""
    at: BaseException | None = error
    while at is not None:
        at.__traceback__ = None
        at.__cause__, at.__context__, at = None, None, at.__context__
