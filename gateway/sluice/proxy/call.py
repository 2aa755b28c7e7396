"""One call, from the accepted request to its log line: what the server, the policies and the records know of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

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

LARGE = 256 << 10
"""Bytes of a request's body whose parsing and translation take a thread: for the largest one Python needs some 100 ms each."""

Phase = Literal["admitting", "waiting", "connecting", "first_token", "streaming", "storing", "settling", "over"]
"""Where a call is. admitting: policies look at it. waiting: for its session's turn, in an alias's queue, or before a retry.
connecting: a request is on its way, its answer's head has not come. first_token: the head has come, no content yet. streaming:
content goes to the client (of a whole answer: all of it has come). storing: the answer's last bytes wait for its turn to be
stored. settling: the answer is over, policies settle. over: what is left is the log line."""

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
        """The header lines by which the next attempt's upstream may go on with the trace."""
        ...


class Call(msgspec.Struct, eq=False):
    """`received` on the monotonic clock; `ttft` in seconds, of streams only.

    `end` is of the closed set of `stream_end_total`, "" until it is known; it is written by `finish` alone.
    `store_turn` stores the turn of a conversation, given the text of the complete answer; it is called before the end of
    the answer is sent. It returns the task that stores, or None where nothing has to be waited for.
    """

    id: str
    received: float
    frontend: Frontend
    principal: Principal
    route: Route
    chat: ChatRequest
    series: CallSeries
    traits: CallTraits = CallTraits()
    address: str = ""  # the client's, as limits count it
    size: int = 0  # bytes of the request's body
    conversation: str = ""
    text: str = ""
    thoughts: list[Thought] = []  # blocks of reasoning of a complete answer, for its provider to have back
    attempts: list[Attempt] = []
    answered: Attempt | None = None
    headers: list[tuple[str, str]] = []
    lines: bytes = b""  # header lines that every upstream gets
    trace: CallTrace | None = None  # where it is traced
    forward: Mapping[str, str] = {}  # the caller's headers that an upstream may get, by lower-case name
    ttft: float | None = None
    phase: Phase = "admitting"
    end: str = ""
    error: GatewayError | None = None
    end_user: str = ""  # the owner of its end user's limits; "": it has none
    tags: Sequence[tuple[str, str]] = ()  # names and values that its usage is also counted by
    content: Content = "none"  # what its record has of its texts
    detached: bool = False  # the client has left, and the call goes on
    store_turn: "Callable[[str], asyncio.Task[None] | None] | None" = None

    def finish(self, reason: str) -> None:
        """Sets the reason for which the call ends, unless one is set already."""
        if not self.end:
            self.end = reason

    def waiting(self, change: int) -> None:
        """+1: the call begins to wait for others, -1: it is its turn."""
        self.phase = "waiting" if change > 0 else "admitting"
        self.route.waiting(change)

    @property
    def usage(self) -> Usage | None:
        """The usage of the attempt that answered."""
        return self.answered.usage if self.answered is not None else None

    def attribution(self) -> Sequence[tuple[str, str]]:
        """Headers that name who answered, after how many attempts, and by which id the provider knows it."""
        attempt = self.answered
        if attempt is None:
            if not self.attempts:
                return ()
            attempt = self.attempts[-1]
        target, provider_id = attempt.target, attempt.provider_id
        if len(self.attempts) == 1:  # most answers
            headers = target.attribution
        else:
            shown = (("x-sluice-target", target.shown),) if target.shown else ()
            headers = (("x-sluice-attempts", str(len(self.attempts))), *shown)
        return (*headers, ("x-sluice-upstream-request-id", provider_id)) if provider_id else headers

    @property
    def cost(self) -> float | None:
        """US dollars of all attempts that generated something, as far as they have a price; None where none has."""
        if len(self.attempts) == 1:
            return self.attempts[0].cost
        known = [attempt.cost for attempt in self.attempts if attempt.cost is not None]
        return sum(known) if known else None
