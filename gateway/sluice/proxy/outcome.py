"""Records the outcome of an attempt with health, usage, cost and metrics."""

import re
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from sluice.aio.deferred import Schedule, at_once
from sluice.backends.protocol import Backend, Decoder
from sluice.backends.transport import UpstreamResponse
from sluice.errors import NoCapacity, StaleConnection, UpstreamError, UpstreamErrorKind
from sluice.model.chat import ChatRequest
from sluice.model.events import Usage
from sluice.pricing.prices import cost, price_at
from sluice.proxy.attempt import NO_USAGE, Attempt
from sluice.proxy.relay import Relay
from sluice.proxy.target import Target
from sluice.telemetry.metrics import TargetSeries

ERROR_BODY = 64 << 10
OUTCOMES: dict[UpstreamErrorKind, str] = {
    "dns_error": "connect_error", "connect_error": "connect_error", "connect_timeout": "connect_error",
    "reset": "connect_error", "tls_error": "tls_error", "headers_timeout": "headers_timeout",
    "rate_limited": "rate_limited", "server_error": "server_error", "overloaded": "server_error",
    "bad_credentials": "bad_credentials", "billing": "bad_credentials", "not_found": "client_error",
    "bad_request": "client_error", "context_length": "client_error", "content_policy": "client_error",
    "unknown_id": "client_error", "garbled": "garbled",
    "truncated": "truncated", "stream_error": "server_error", "first_token_timeout": "first_token_timeout",
    "idle_timeout": "idle_timeout", "total_timeout": "total_timeout", "diverged": "garbled",
}  # fmt: skip
UNSEEN = frozenset({"abandoned", "headers_timeout", "idle_timeout", "total_timeout", "truncated"})
"""Outcomes without a reported usage after which a whole answer may still have been generated: its prompt is
counted."""
_SECRET = re.compile(r"(?i)key|auth|token|secret|cookie|password")


def failover_cause(error: UpstreamError) -> str:
    """Returns why a call goes on to another target, as a label of `failovers_total`."""
    if isinstance(error, NoCapacity):
        return "no_room"
    if isinstance(error, StaleConnection):
        return "stale_connection"
    return "context" if error.kind == "context_length" else OUTCOMES[error.kind]


class Bookkeeper:
    """Records finished attempts. `wall` gives seconds since the epoch; `later` schedules the counting of
    metrics."""

    def __init__(self, wall: Callable[[], float], later: Schedule = at_once) -> None:
        self._wall = wall
        self._later = later

    def record(self, attempt: Attempt, relay: Relay | None, chat: ChatRequest, ended: float) -> None:
        """Records the attempt's outcome and tokens. `ended`: when its answer was complete, or else when the
        attempt was over.
        """
        attempt.ended = ended
        used = NO_USAGE
        if relay is not None and (relay.first_content_at or relay.finished):
            attempt.characters = relay.characters
            attempt.model = relay.model
            if relay.finished is not None:
                attempt.finish = relay.finished.reason
            if relay.usage_refused:
                attempt.target.series.usage_refused.inc()
            attempt.usage = usage = relay.usage
            used = relay.used(chat.estimated_tokens()) if usage is None else usage
        elif attempt.whole is not None and attempt.outcome in UNSEEN:
            used = Usage(chat.estimated_tokens(), 0)
        if used is not NO_USAGE:
            attempt.used = used
            price = price_at(attempt.target.prices, self._wall())
            attempt.cost = cost(price, used) if price is not None else None
        self._later(_count, attempt)


def count_oddities(decoder: Decoder, series: TargetSeries) -> None:
    """Counts the parts of the answer that the decoder ignored."""
    series.skipped.inc(decoder.skipped)
    series.skipped_fields.inc(decoder.skipped_fields)
    series.finish_missing.inc(decoder.finish_missing)


def _count(attempt: Attempt) -> None:
    """Counts a finished attempt in its target's metrics."""
    series = attempt.target.series
    series.attempts[attempt.outcome].value += 1
    usage, used = attempt.usage, attempt.used
    if used is NO_USAGE:
        return
    if attempt.cost is not None:
        series.cost.value += attempt.cost
    else:
        series.unpriced.value += 1
    if usage is None:
        series.estimated["input"].inc(used.input)
        series.estimated["output"].inc(used.output)
        return
    reported = series.reported
    reported["input"].value += usage.input
    reported["output"].value += usage.output
    if usage.cached_input:
        reported["cached_input"].value += usage.cached_input
    if usage.reasoning:
        reported["reasoning"].value += usage.reasoning
    if attempt.first_token is not None and usage.output > 1 and attempt.whole is None:
        series.per_token.observe((attempt.ended - attempt.started - attempt.first_token) / (usage.output - 1))


# --- answers that are errors


async def refused(target: Target, response: UpstreamResponse) -> UpstreamError:
    """Returns the error for a response without a success status."""
    status, headers = response.status, response.headers
    if 300 <= status < 400:  # those that may be followed have been
        error = UpstreamError(
            "not_found", "The upstream redirects to where requests are not sent", status=status
        )
        where = _host(headers.get("location", ""))
        error.detail = f"{target.upstream} answered {status}: set its base_url to where that leads ({where})"
        return error
    return target.backend.error(status, headers, await _body(response))


async def _body(response: UpstreamResponse) -> bytes:
    """Reads the body of an error response. If it is cut or late, the status alone has to do."""
    try:
        return await response.read(ERROR_BODY)
    except UpstreamError:
        return b""


def _host(location: str) -> str:
    """Returns the host of a URL, for the log: the rest of the URL may hold a key."""
    try:
        return urlsplit(location).hostname or "the same host"
    except ValueError:
        return "no URL"


def secrets_of(backend: Backend, transport: object = None) -> list[str]:
    """Returns the credentials that the gateway sends to an upstream now: error messages must not show
    them."""
    named = (value for name, value in getattr(backend, "headers", {}).items() if _SECRET.search(name))
    signing: Callable[[], Iterable[str]] = getattr(transport, "secrets", tuple)
    values = [*(value for _, value in backend.credentials()), *named, *signing()]
    return [part for value in values for part in (value, value.partition(" ")[2]) if part]
