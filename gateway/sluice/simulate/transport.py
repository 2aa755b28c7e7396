"""Passes modelled answers to the gateway's attempts, in place of an HTTP transport, a dialect and a client.

The first token and the end of an answer are events; the tokens in between are only time. Deadlines are the
gateway's own (`CallRun.tick`), which is called when one of them has passed instead of twenty times a second.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, cast

import msgspec

from sluice.backends.protocol import Decoder
from sluice.backends.transport import Headers, Reader, Sink, UpstreamRequest, UpstreamResponse
from sluice.errors import GatewayError, UpstreamError, UpstreamErrorKind, UpstreamTruncated
from sluice.frontends import Answer, Encoder, Frontend, Route
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage
from sluice.proxy.reader import AttemptReader
from sluice.simulate.upstreams import ModelledUpstream

JUST_AFTER = 1e-6
"""Seconds: a deadline has passed when the clock is beyond it."""
_KINDS: Mapping[int, UpstreamErrorKind] = {429: "rate_limited", 503: "overloaded"}


class TracedRequest(ChatRequest):
    """A request of which only the size is known."""

    input_tokens: int = 0
    output_tokens: int = 0

    def estimated_tokens(self) -> int:
        return self.input_tokens


class ModelledBackend(msgspec.Struct, frozen=True):
    """The dialect of modelled upstreams: a byte `t` is a text, a line of numbers is the usage and the end."""

    default_max_tokens: int = 0

    dialect: ClassVar[str] = ""

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest("", (), b"")

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        return _ModelledDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        after = headers.get("retry-after")
        retry_after = float(after) if after is not None else None
        return UpstreamError(_KINDS.get(status, "server_error"), status=status, retry_after=retry_after)

    def transport(self) -> None:
        return None

    def credentials(self) -> Headers:
        return ()


class _ModelledDecoder(Decoder):
    _reported: Usage | None = None

    @property
    def reported(self) -> Usage | None:
        return self._reported

    def feed(self, data: bytes) -> list[StreamEvent]:
        if data == b"t":
            return [_TEXT]
        input, output, done = map(int, data.split())
        usage = self._reported = Usage(input, output)
        return [Finished("stop", usage)] if done else []

    def close(self) -> list[StreamEvent]:
        raise UpstreamTruncated


_TEXT = TextDelta("t")


class _ModelledEncoder(Encoder):
    content_type = "text/plain"

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        return b"t"

    def fail(self, error: GatewayError) -> bytes:
        return b"!"

    def resume(self, started: Started) -> None:
        pass

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""


class ModelledFrontend(Frontend):
    """The client dialect of simulated calls."""

    name: ClassVar[str] = "simulated"

    def routes(self) -> Sequence[Route]:
        return ()

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        return _ModelledEncoder()

    def error(self, error: GatewayError, request_id: str) -> dict[str, object]:
        return {}


class ModelledClient:
    """Takes an answer at once. `answered` is called with the first bytes of an answer."""

    def __init__(self, answered: Callable[[], object]) -> None:
        self._answered = answered
        self.begun = False
        self.last_write = 0.0
        self.blocked_since = 0.0

    def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self.begun = True
        self._answered()

    def write(self, data: bytes, *, last: bool = False) -> None:
        pass

    def fail(self, data: bytes) -> None:
        pass

    def attach(self, upstream: UpstreamResponse | None) -> None:
        pass

    def detach(self) -> None:
        pass

    def abort(self) -> None:
        pass


class ModelledTransport:
    """A Transport to modelled upstreams; `upstream` finds the one of a target's label."""

    def __init__(self, upstream: Callable[[str], ModelledUpstream]) -> None:
        self._upstream = upstream

    def send(
        self, request: UpstreamRequest, *, connect: float, headers: float, reader: Reader | None = None
    ) -> "ModelledExchange":
        attempt = cast(AttemptReader, reader)
        return ModelledExchange(self._upstream(attempt.attempt.target.label), attempt, headers)

    async def close(self) -> None:
        pass


class ModelledExchange:
    """One request to a modelled upstream, and its response."""

    __slots__ = ("_answer", "_done", "_entered", "_head", "_late", "_loop", "_reader", "_sink", "_timer", "_upstream",
                 "headers", "status")  # fmt: skip

    def __init__(self, upstream: ModelledUpstream, reader: AttemptReader, head: float) -> None:
        self._upstream = upstream
        self._reader = reader
        self._head = head
        self._loop = asyncio.get_running_loop()
        self._entered = False
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self.status = 200
        self.headers: Mapping[str, str] = {}

    async def __aenter__(self) -> "ModelledExchange":
        reader = self._reader
        reader.sent()
        chat = cast(TracedRequest, reader.run.call.chat)
        answer = self._answer = self._upstream.answer(
            chat.input_tokens, chat.output_tokens, chat.sampling.max_tokens or 0
        )
        if answer.kind == "refuse":
            raise UpstreamError("connect_error")
        if answer.kind == "hang" or (answer.kind == "error" and answer.first > self._head):
            await asyncio.sleep(self._head)
            raise UpstreamError("headers_timeout")
        if answer.kind == "error":
            await asyncio.sleep(answer.first)
            self.status = answer.status
            self.headers = {"retry-after": repr(answer.retry_after)} if answer.retry_after else {}
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        for timer in (self._timer, self._late):
            if timer is not None:
                timer.cancel()
        if self._entered:
            self._upstream.leave(self._start)

    # --- UpstreamResponse

    async def pump(self, sink: Sink) -> None:
        self._sink = sink
        self._done = self._loop.create_future()
        self._entered = True
        timeouts = self._reader.attempt.target.timeouts
        if self._upstream.enter(self._start):
            self._start()
            sure = self._answer.first <= timeouts.first_token and timeouts.total is None
        else:
            sure = False
        if not sure:
            self._look_at(self._loop.time() + timeouts.first_token)
        await self._done

    async def read(self, limit: int) -> bytes:
        return b""

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def abort(self, error: BaseException) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    # --- in the course of time

    def _start(self) -> None:
        self._timer = self._loop.call_later(self._answer.first, self._first)

    def _first(self) -> None:
        answer = self._answer
        if not self._feed(b"t"):
            return
        timeouts = self._reader.attempt.target.timeouts
        if answer.end == "stall":
            self._look_at(self._loop.time() + timeouts.idle)
        elif answer.tokens <= 1:
            self._last()
        else:
            self._timer = self._loop.call_later(answer.token * (answer.tokens - 1), self._last)
            if timeouts.total is not None:
                self._look_at(math.inf)
            elif answer.token > timeouts.idle:
                self._look_at(self._loop.time() + timeouts.idle)

    def _last(self) -> None:
        answer, chat = self._answer, cast(TracedRequest, self._reader.run.call.chat)
        done = answer.end == "done"
        if self._feed(b"%d %d %d" % (chat.input_tokens, answer.tokens, done)) and self._done is not None:
            if done:
                self._done.set_result(None)
            else:
                self._done.set_exception(UpstreamTruncated())

    def _feed(self, data: bytes) -> bool:
        """Returns whether the answer continues."""
        if self._done is None or self._done.done():
            return False
        try:
            self._sink(data)
        except (
            Exception
        ) as error:  # as with every transport, it is raised to the code that waits for the body's end
            self._done.set_exception(error)
            return False
        return True

    def _look_at(self, deadline: float) -> None:
        """Makes the gateway check its deadlines when this one, or that of the whole attempt, has passed."""
        attempt = self._reader.attempt
        total = attempt.target.timeouts.total
        if total is not None:
            deadline = min(deadline, attempt.started + total)
        if self._late is not None:
            self._late.cancel()
        self._late = self._loop.call_at(deadline + JUST_AFTER, self._tick)

    def _tick(self) -> None:
        self._reader.run.tick(self._loop.time())
