"""One call, from the accepted request to its log line, as the server, the policies and the records see it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from sluice.config.types import Content
from sluice.errors import GatewayError, NoCapacity, RateLimited, UpstreamError
from sluice.frontends import Frontend
from sluice.identity.principal import Principal
from sluice.model.chat import ChatRequest, Thought
from sluice.model.events import FinishReason, Usage
from sluice.proxy.attempt import Attempt
from sluice.proxy.target import Route
from sluice.routing.strategies import CallTraits
from sluice.telemetry.metrics import CallSeries

if TYPE_CHECKING:
    from sluice.routing.pods import PodChoice

MAX_INLINE_BYTES = 256 << 10
"""Bytes of a request's body whose parsing and translation take a thread: for the largest one Python needs
some 100 ms each."""

Phase = Literal[
    "admitting", "waiting", "connecting", "first_token", "streaming", "storing", "settling", "over"
]
"""The phases of a call.

admitting: policies decide about it. waiting: for its session's turn, in an alias's queue, or before a retry.

connecting: the request has been sent, the response's head has not arrived. first_token: the head has arrived,
no content yet. streaming: content is sent to the client (a whole answer: it has all arrived). storing: the
last bytes of the answer wait until the turn is stored. settling: the answer is over, policies settle. over:
only the log line is left.
"""

ENDS: dict[FinishReason, str] = {
    "stop": "done", "tool_calls": "done", "length": "length", "content_filter": "content_filter",
}  # fmt: skip
"""The end of a call whose answer is complete, by the reason that the model finished for."""
_ENDS_BADLY: dict[str, str] = {
    "truncated": "truncated", "first_token_timeout": "first_token_timeout", "headers_timeout": "first_token_timeout",
    "idle_timeout": "idle_timeout", "total_timeout": "total_timeout",
}  # fmt: skip


def end_of(error: GatewayError) -> str:
    """The end of a call that this error ended."""
    match error:
        case RateLimited() | NoCapacity():
            return "limit"
        case UpstreamError(kind=kind):
            return _ENDS_BADLY.get(kind, "upstream_error")
        case _:
            return "upstream_error"


class CallTrace(Protocol):
    """The call's place in a trace (`sluice.tracing`). `trace` is the trace's id."""

    trace: str

    def attempt_lines(self) -> bytes:
        """Returns the header lines by which the next attempt's upstream joins the trace."""
        ...

    def note(self, name: str, facts: Mapping[str, str | float]) -> None:
        """Notes that this happens to the call now: an event of its span."""
        ...

    def wait(self, reason: str) -> None:
        """Notes that the call begins to wait."""
        ...

    def waited(self) -> None:
        """Notes that its wait is over."""
        ...


class Call(msgspec.Struct, eq=False):
    """`received` on the monotonic clock; `ttft` in seconds, of streams only.

    `end` is of the closed set of `stream_end_total`, "" until it is known; it is written by `finish` alone.
    `store_turn` stores the turn of a conversation, given the text of the complete answer; it is called before
    the end of the answer is sent. It returns the task that stores it, or None if there is nothing to wait
    for.
    """

    id: str
    received: float
    frontend: Frontend
    principal: Principal
    route: Route
    chat: ChatRequest
    series: CallSeries
    traits: CallTraits = CallTraits()
    address: str = ""  # the client's address, as limits count it
    size: int = 0  # bytes of the request's body
    conversation: str = ""
    text: str = ""
    thoughts: list[Thought] = []  # a complete answer's blocks of reasoning, which its provider expects back
    attempts: list[Attempt] = []
    answered: Attempt | None = None
    headers: list[tuple[str, str]] = []
    lines: bytes = b""  # header lines that are sent to every upstream
    trace: CallTrace | None = None  # None: the call is not traced
    forward: Mapping[str, str] = {}  # the caller's headers that may be forwarded, by lower-case name
    ttft: float | None = None
    phase: Phase = "admitting"
    end: str = ""
    error: GatewayError | None = None
    end_user: str = ""  # the owner of the end user's limits; "": none
    tags: Sequence[tuple[str, str]] = ()  # names and values that its usage is also counted by
    content: Content = "none"  # which of its texts its record has
    pod_choice: "PodChoice | None" = None  # why it was sent to that server of its upstream
    detached: bool = False  # the client has left, and the call goes on
    store_turn: "Callable[[str], asyncio.Task[None] | None] | None" = None

    def finish(self, reason: str) -> None:
        """Sets the reason for which the call ends, unless one is set already."""
        if not self.end:
            self.end = reason

    def waiting(self, change: int) -> None:
        """Counts the call in (+1) or out (-1) of the calls that wait for their session's turn."""
        self.phase = "waiting" if change > 0 else "admitting"
        self.route.waiting(change)
        if self.trace is None:
            return
        if change > 0:
            self.trace.wait("turn")
        else:
            self.trace.waited()

    @property
    def usage(self) -> Usage | None:
        """The usage of the attempt that answered."""
        return self.answered.usage if self.answered is not None else None

    def attribution(self) -> Sequence[tuple[str, str]]:
        """Returns the headers that name the target that answered, the number of attempts, and the provider's
        request id.
        """
        attempt = self.answered
        if attempt is None:
            if not self.attempts:
                return ()
            attempt = self.attempts[-1]
        target, provider_id = attempt.target, attempt.provider_id
        if len(self.attempts) == 1:  # most answers
            headers = target.attribution
        else:
            headers = (("x-sluice-attempts", str(len(self.attempts))), *target.attribution[1:])
        return (*headers, ("x-sluice-upstream-request-id", provider_id)) if provider_id else headers

    @property
    def cost(self) -> float | None:
        """The cost of all attempts that have a price, in US dollars; None if none has."""
        if len(self.attempts) == 1:
            return self.attempts[0].cost
        known = [attempt.cost for attempt in self.attempts if attempt.cost is not None]
        return sum(known) if known else None
