"""Deadlines of an attempt whose answer is being read: which one applies now, and the error when it has
passed."""

from collections.abc import Callable

from sluice.backends.transport import UpstreamResponse
from sluice.errors import UpstreamError
from sluice.proxy.attempt import AnsweringAttempt

MAX_LINGER_SECONDS = 0.25
"""Seconds that an upstream may take to end its body after the answer is complete; then the connection is
closed."""


class BodyLingers(Exception):
    """The answer is complete, but the upstream does not end the response body."""


def end_if_late(answer: AnsweringAttempt, now: float) -> float:
    """Ends the attempt if one of its deadlines has passed. Returns the next deadline, as things stand."""
    relay, attempt, response = answer.relay, answer.attempt, answer.response
    timeouts = attempt.target.timeouts
    if answer.complete_at:
        return _end(response, answer.complete_at + MAX_LINGER_SECONDS, now, BodyLingers)
    if attempt.whole is not None and response.status // 100 == 2 and not _is_stream(response):
        deadline, error = attempt.started + timeouts.whole, _late_total
    elif relay.first_content_at:
        deadline, error = relay.alive_at + timeouts.idle, _late_next
    else:
        deadline, error = relay.alive_at + timeouts.first_token, _late_first
    if timeouts.total is not None and attempt.started + timeouts.total <= deadline:
        deadline, error = attempt.started + timeouts.total, _late_total
    return _end(response, deadline, now, error)


def _end(response: UpstreamResponse, deadline: float, now: float, error: Callable[[], Exception]) -> float:
    if now > deadline:
        response.abort(error())
    return deadline


def _is_stream(response: UpstreamResponse) -> bool:
    return response.headers.get("content-type", "").startswith("text/event-stream")


def _late_total() -> Exception:
    return UpstreamError("total_timeout", "The upstream took too long for its answer")


def _late_first() -> Exception:
    return UpstreamError("first_token_timeout", "The upstream sent no token in time")


def _late_next() -> Exception:
    return UpstreamError("idle_timeout", "The upstream stopped sending")
