"""One call in flight: the client's side, the attempts under way, and the deadlines of the phase each is in.

A `Leg` is one attempt: it takes an upstream's reads (`sink`, called straight from the transport), relays them and hands
the client's bytes to its `Flow`. The flow lets the first leg that has content win; what others say is thrown away.
`Flow.tick` looks at the deadlines: no event needs a timer of its own. It is called when the clock has passed `Flow.due`,
which is set back to 0 whenever a phase with another deadline begins (progress only moves deadlines away).
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from sluice.aio.scope import Scope
from sluice.backends.protocol import Decoder
from sluice.backends.transport import Sink, UpstreamResponse
from sluice.errors import GatewayError, Unavailable, UpstreamError
from sluice.frontends import Answer, Encoder
from sluice.model.chat import Thought, call_ids
from sluice.model.events import Finished
from sluice.proxy.call import LARGE, Attempt, Call
from sluice.proxy.relay import Relay
from sluice.proxy.writer import ResponseWriter
from sluice.wire.forwarding import provider_id

TAIL = 0.25
"""Seconds that an upstream may take to end its body after the answer is complete; then the connection is closed."""


ENDS_OF_PIECES = (b"\n\n", b"\r\n\r\n", b"}\n", b"}\r\n")
"""Of an event, or a line."""
LOOK = 0.25
"""Seconds between two looks at a call at most: what begins outside of it (a client that stops reading) is seen by then."""


Beside = Callable[..., Awaitable[Any]]
"""`await beside(work, *args)`: done in a thread, for what would keep the event loop for long."""


class Tail(Exception):
    """The answer is complete, but its upstream does not end the body."""


class Lost(Exception):
    """Another attempt was faster."""


class Leg(msgspec.Struct, eq=False):
    """One attempt in flight, and the reader of its response. `relay` is set when the response's head has come.

    `priced` adds what the answer costs to its end. `beside(work, *args)` is done in a thread: what comes in one large piece
    (a document, an event of megabytes) takes too long for the event loop. What follows meanwhile waits in `_queue`.
    """

    flow: "Flow"
    attempt: Attempt
    accept_empty: bool
    task: "asyncio.Task[Any] | None" = None
    prefilled: bool = False
    priced: "Callable[[Leg, Finished], Finished] | None" = None
    beside: "Beside | None" = None
    decoder: Decoder | None = None
    relay: Relay | None = None
    response: UpstreamResponse | None = None
    tail_from: float = 0.0
    working: "asyncio.Task[None] | None" = None  # on a large piece
    _made: Relay | None = None
    _silent: int = 0  # bytes of which nothing has come yet, or more than LARGE while `working`
    _queue: list[bytes] = []

    __repr__ = object.__repr__  # it holds what was said

    def sent(self) -> None:
        """What the answer will need is made while it is on its way; of several, only the first to answer has the encoder."""
        if self._made is None and self.flow.won is None:
            self._made = self._make()

    def begin(self, response: UpstreamResponse) -> Sink | None:
        """The response's head has come."""
        flow = self.flow
        flow.due = 0.0
        self.response = response
        headers = response.headers
        if "x-request-id" in headers or "request-id" in headers or "x-amzn-requestid" in headers:
            self.attempt.provider_id = provider_id(headers)
        self.relay = relay = self._made or self._make()
        relay.content_at = flow.clock()
        return self.sink if response.status // 100 == 2 else None

    def _make(self) -> Relay:
        flow, target, whole = self.flow, self.attempt.target, self.attempt.whole
        verbatim = target.passes_on == flow.call.frontend.dialect and not flow.resumes
        self.decoder = decoder = target.backend.decoder(verbatim=verbatim) if whole is None else whole.whole_decoder()
        if not flow.call.chat.only_texts and (ids := call_ids(flow.call.chat.messages)):
            decoder.distinguish(ids)
        relay = Relay(
            decoder,
            flow.encoder_for(verbatim=verbatim),
            not flow.call.chat.stream,
            self.accept_empty,
            target.max_before_content,
            target.max_answer,
        )
        if flow.said:
            relay.goes_on(flow.said, prefilled=self.prefilled)
        elif flow.resumes:
            relay.resumes = True
        if self.priced is not None:
            relay.priced = partial(self.priced, self)
        return relay

    def part(self) -> None:
        """The attempt is over: whatever knows it is parted from it, so that the collector has nothing to find."""
        if self.relay is not None:
            self.relay.priced = None
        self._made = None
        if self.working is not None:
            self.working.add_done_callback(_seen)
            self.working.cancel()
            self.working = None
        if self.flow.winner is self:
            self.flow.writer.attach(None)

    def sink(self, data: bytes) -> None:
        """One read of the upstream's: relay it, and say what the client is to have of it. Raises Lost where another has won."""
        relay, flow = self.relay, self.flow
        assert relay is not None
        if self._silent:
            self._sink_more(data)
            return
        if flow.winner is not self:
            self._first(data)
            return
        now = flow.clock()
        chunk = relay.feed(data, now)
        if relay.finished is not None:
            self._last(chunk, now)
        elif not chunk:
            self._count_silent(data)
        elif not flow.ended:
            flow.writer.write(chunk)
            if relay.gap:
                flow.inter_token.observe(relay.gap)

    def _sink_more(self, data: bytes) -> None:
        """A read behind others of which nothing has come yet."""
        if self._put_aside(data):
            return
        before, self._silent = self._silent, 0
        self.sink(data)
        if self._silent:
            self._silent += before

    def _say(self, chunk: bytes, now: float) -> None:
        relay, flow = self.relay, self.flow
        assert relay is not None
        if relay.finished is None:
            if chunk and not flow.ended:
                flow.writer.write(chunk)
                if relay.gap:
                    flow.inter_token.observe(relay.gap)
        else:
            self._last(chunk, now)

    def _count_silent(self, data: bytes) -> None:
        """Nothing is to be said yet: this is part of a large piece, unless it ends one."""
        self._silent = 0 if data.endswith(ENDS_OF_PIECES) else self._silent + len(data)

    def _put_aside(self, data: bytes) -> bool:
        """Whether this read is for the thread: a large piece may end in it, or the thread is at work."""
        if self.working is not None:
            self._queue.append(data)
            return True
        response = self.response
        if self._silent <= LARGE or self.beside is None or response is None or (b"\n" not in data and b"\r" not in data):
            return False
        response.pause()
        self.working = asyncio.create_task(self._work(data, self.beside, response))
        return True

    async def _work(self, data: bytes, beside: "Beside", response: UpstreamResponse) -> None:
        relay, flow = self.relay, self.flow
        assert relay is not None
        try:
            while data:
                now = flow.clock()
                chunk = await beside(relay.feed, data, now)
                if flow.winner is self:
                    self._say(chunk, now)
                elif flow.winner is not None:
                    raise Lost
                else:
                    self._say_first(chunk, now)
                data = b"".join(self._queue)
                self._queue.clear()
        except Exception as error:  # as in a sink: the response's, and told to who waits for its end
            response.abort(error)
            raise
        self._silent = 0
        self.working = None
        if not flow.writer.blocked_since:
            response.resume()

    def _first(self, data: bytes) -> None:
        """A read before this leg speaks."""
        relay, flow = self.relay, self.flow
        assert relay is not None
        if flow.winner is not None:
            raise Lost  # before anything is encoded: the encoder is the call's
        now = flow.clock()
        chunk = relay.feed(data, now)
        if not chunk:
            self._count_silent(data)
        self._say_first(chunk, now)

    def _say_first(self, chunk: bytes, now: float) -> None:
        relay, flow = self.relay, self.flow
        assert relay is not None
        flow.due = 0.0  # with the first content another deadline begins
        if chunk:
            flow.hand_over(self, chunk, now, first=True)
        if relay.finished is not None and not self.tail_from:
            self.tail_from = now

    def _last(self, chunk: bytes, now: float) -> None:
        """A read that completes the answer, or comes behind its end."""
        flow = self.flow
        if chunk:
            flow.hand_over(self, chunk, now, first=False)
        if not self.tail_from:
            self.tail_from = now
            flow.due = 0.0

    def close(self) -> None:
        """The upstream's body has ended. Raises UpstreamTruncated where the answer has not, Lost where another has won."""
        relay, flow = self.relay, self.flow
        assert relay is not None
        if flow.winner is not None and flow.winner is not self:
            raise Lost
        if relay.finished is None:
            now, first = flow.clock(), not relay.committed
            self._close(relay.close(now), now, first=first)

    async def close_beside(self) -> None:
        """The same as `close` in a thread: for where one is `working`, or more than LARGE is `relay.unsaid`."""
        if self.working is not None:
            await self.working
        relay, now = self.relay, self.flow.clock()
        assert relay is not None
        if self.beside is None:
            return self.close()
        first = not relay.committed
        chunk = await self.beside(relay.close, now)
        if self.flow.winner is not None and self.flow.winner is not self:
            raise Lost
        self._close(chunk, now, first=first)

    def _close(self, chunk: bytes, now: float, *, first: bool) -> None:
        if chunk:
            self.flow.hand_over(self, chunk, now, first=first)

    def tick(self, now: float) -> float:
        """End it where it is late. Returns when its next deadline is, as things stand."""
        relay, response = self.relay, self.response
        if relay is None or response is None:
            return math.inf
        attempt = self.attempt
        timeouts = attempt.target.timeouts
        if self.tail_from:
            return self._end_after(self.tail_from + TAIL, now, Tail)
        total = math.inf
        if timeouts.total is not None:
            total = self._end_after(attempt.started + timeouts.total, now, _late_total)
        if attempt.whole is not None and response.status // 100 == 2 and not _is_stream(response):
            return min(total, self._end_after(attempt.started + timeouts.whole, now, _late_total))
        if relay.first_content_at:
            return min(total, self._end_after(relay.content_at + timeouts.idle, now, _late_next))
        return min(total, self._end_after(relay.content_at + timeouts.first_token, now, _late_first))

    def _end_after(self, deadline: float, now: float, error: Callable[[], Exception]) -> float:
        if now > deadline and self.response is not None:
            self.response.abort(error())
        return deadline


def _seen(work: "asyncio.Task[None]") -> None:
    """The response has told the error already."""
    if not work.cancelled():
        work.exception()


def _is_stream(response: UpstreamResponse) -> bool:
    return response.headers.get("content-type", "").startswith("text/event-stream")


def _late_total() -> Exception:
    return UpstreamError("total_timeout", "The upstream took too long for its answer")


def _late_first() -> Exception:
    return UpstreamError("first_token_timeout", "The upstream sent no token in time")


def _late_next() -> Exception:
    return UpstreamError("idle_timeout", "The upstream stopped sending")


class Flow(msgspec.Struct, eq=False):
    """`said` is the text that the client holds of an answer that was cut, `resumes` whether it holds any of it (reasoning
    alone, too); `winner` is the leg that speaks."""

    call: Call
    writer: ResponseWriter
    answer: Answer
    clock: Callable[[], float]
    inter_token: Any
    write_idle: float
    scope: Scope
    encoder: Encoder | None = None
    verbatim: bool = False
    lent: bool = False  # an attempt has the encoder
    legs: list[Leg] = []
    winner: Leg | None = None
    won: asyncio.Event | None = None  # set when a leg has won, for who waits for that
    said: str = ""
    resumes: bool = False
    due: float = 0.0  # when `tick` is to be called next
    doomed: str = ""  # the end reason of a call that is being closed from our side
    ended: bool = False  # the answer's end, or its in-band error, has been said
    unsent_end: bytes | None = None  # the answer's last bytes, while its turn is being stored

    __repr__ = object.__repr__  # it holds what was said

    @property
    def text(self) -> str:
        """What the client holds of the answer's text."""
        if self.winner is not None and self.winner.relay is not None:
            return self.winner.relay.text
        return self.said

    def speak(self, *, verbatim: bool) -> Encoder:
        """The call's encoder: kept over failed attempts, for nothing is encoded before one commits."""
        if self.encoder is None or verbatim is not self.verbatim:
            self.encoder = self.call.frontend.encoder(self.call.chat, self.answer, verbatim=verbatim)
            self.verbatim = verbatim
        return self.encoder

    def encoder_for(self, *, verbatim: bool) -> Encoder:
        """An attempt's encoder. A whole answer is encoded as it comes, so that each attempt needs one of its own."""
        if self.call.chat.stream or not self.lent:
            self.lent = True
            return self.speak(verbatim=verbatim)
        return self.call.frontend.encoder(self.call.chat, self.answer, verbatim=verbatim)

    def hand_over(self, leg: Leg, chunk: bytes, now: float, *, first: bool) -> None:
        """A leg's bytes for the client. Its first ones make it the winner."""
        if self.winner is None:
            self.winner = leg
            self.call.answered = leg.attempt
            self.writer.attach(leg.response)
            if self.won is not None:
                self.won.set()
        assert leg.relay is not None
        self.say(chunk, last=leg.relay.finished is not None)
        if first:
            self._first_token(leg)
            self.call.series.overhead.observe(self.clock() - now)
        elif leg.relay.gap:
            self.inter_token.observe(leg.relay.gap)

    def say(self, chunk: bytes, *, last: bool = False) -> None:
        writer, call = self.writer, self.call
        if self.ended:
            return
        if not writer.begun:
            encoder = self.encoder or self.speak(verbatim=self.verbatim)
            headers: Sequence[tuple[str, str]] = call.headers
            if self.winner is not None:
                headers = [*headers, *call.attribution()]
            writer.begin(encoder.content_type, headers)
        if last:
            self.ended = True
            if call.store_turn is not None and self._store_turn(call, chunk):
                return
        writer.write(chunk, last=last)

    def _store_turn(self, call: Call, end: bytes) -> bool:
        """Store the turn of the complete answer. Returns whether that takes its time: then `end` is sent when it is done."""
        assert call.store_turn is not None
        relay = self.winner.relay if self.winner is not None else None
        if relay is not None and relay.thoughts and not relay.recovered:  # else they belong to another text than the client's
            call.thoughts = [Thought(block.text, block.signature, block.redacted) for block in relay.thoughts]
        call.text = self.text
        storing = call.store_turn(call.text)
        if storing is None:
            return False
        self.unsent_end = end
        storing.add_done_callback(self._stored)
        return True

    def send_end(self) -> None:
        """Send the answer's last bytes now, where they still wait for the turn to be stored."""
        end, self.unsent_end = self.unsent_end, None
        if end is not None:
            self.writer.write(end, last=True)

    def _stored(self, _: object) -> None:
        self.send_end()

    def fail(self, error: GatewayError) -> None:
        """Write the error into the answer, which has begun, unless its end has been written."""
        if not self.ended:
            self.ended = True
            self.writer.fail(self.speak(verbatim=self.verbatim).fail(error))

    def let_go(self) -> None:
        """The attempt is over: keep what the client holds of it, for another one to go on from."""
        self.said = self.text
        self.resumes = self.resumes or self.winner is not None
        self.winner = None
        self.writer.attach(None)

    def close(self) -> None:
        """The call is over. Flow and legs know each other: parted, they go at once, and the collector has nothing to find."""
        if self.unsent_end is not None:
            self.send_end()
        self.winner = None
        self.legs.clear()

    def _first_token(self, leg: Leg) -> None:
        relay, call, attempt = leg.relay, self.call, leg.attempt
        assert relay is not None
        if not relay.first_content_at:
            return
        attempt.first_token = relay.first_content_at - attempt.started
        if attempt.whole is None:  # else it is the last one's time
            attempt.target.series.first_token.observe(attempt.first_token)
            attempt.target.load.observe(attempt.first_token)
        if call.ttft is None and call.chat.stream:  # a whole answer comes with its last token
            call.ttft = self.clock() - call.received
            call.series.first_token.observe(call.ttft)

    def tick(self, now: float) -> None:
        """Deadlines and heartbeats."""
        writer = self.writer
        self.due = now + LOOK
        blocked = writer.blocked_since
        if blocked:
            if self.winner is not None and self.winner.relay is not None:
                self.winner.relay.content_at = now  # a client that does not read is not the upstream's silence
            if now - blocked > self.write_idle:
                self.doomed = "slow_reader"
                writer.abort()
            return
        for leg in self.legs:
            self.due = min(self.due, leg.tick(now))
        heartbeat = self.call.route.config.heartbeat
        if heartbeat and self.call.chat.stream:
            silent_since = max(writer.last_write, self.call.received)
            if now - silent_since >= heartbeat:
                self._beat()
            else:
                self.due = min(self.due, silent_since + heartbeat)

    def _beat(self) -> None:
        encoder = self.encoder
        if encoder is None:  # the call still waits for its turn: what the encoder will have to know is not known yet
            encoder = self.call.frontend.encoder(self.call.chat, self.answer)
        beat = encoder.heartbeat()
        if beat and not self.ended:
            if not self.writer.begun:
                self.writer.begin(encoder.content_type, self.call.headers)
            self.writer.write(beat)

    def drain(self) -> None:
        """The process is leaving: end the call, wherever it waits."""
        self.doomed = "drain"
        self.scope.end(Unavailable("The gateway is shutting down"))
