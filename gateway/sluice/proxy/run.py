"""A call in flight: its writer, its encoder, the attempt that answers, and what the client holds of the
answer.

The first attempt that has content wins; the output of others is discarded. `tick` looks at deadlines and
heartbeats, so that no event needs a timer of its own. It is called when the clock has passed `due`, which is
set back to 0 whenever a phase with another deadline begins (progress only moves deadlines away).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from sluice.aio.scope import Scope
from sluice.errors import BadRequest, GatewayError, Unavailable
from sluice.frontends import Answer, Encoder
from sluice.model.chat import Thought
from sluice.model.events import Finished, StreamEvent, TextDelta
from sluice.proxy.attempt import AnsweringAttempt
from sluice.proxy.call import ENDS, Call
from sluice.proxy.deadlines import end_if_late
from sluice.proxy.writer import ResponseWriter

MAX_TICK_SECONDS = 0.25
"""Maximum seconds between two checks of a call: a change from outside (a client that stops reading) is
noticed by then.
"""


class CallRun(msgspec.Struct, eq=False):
    """`winner` is the attempt whose content goes to the client.

    `kept_text` is the text that the client holds of an answer that was cut; `resumes`: it holds any content
    of one, even if only reasoning. `over`: the answer's end has been written, or the error that ends it.
    """

    call: Call
    writer: ResponseWriter
    answer: Answer
    scope: Scope
    clock: Callable[[], float]
    inter_token: Any
    write_idle: float
    deadline: asyncio.TimerHandle | None = None
    encoder: Encoder | None = None
    verbatim: bool = False  # the encoder passes on frames as they come
    lent: bool = False  # an attempt uses the encoder alone
    reading: list[AnsweringAttempt] = []
    winner: AnsweringAttempt | None = None
    won: asyncio.Event | None = None  # set when an attempt has won, if two race
    kept_text: str = ""
    resumes: bool = False
    due: float = 0.0  # when `tick` is to be called next
    over: bool = False
    unsent_end: bytes | None = None  # the answer's last bytes, while its turn is being stored

    __repr__ = object.__repr__  # it holds an answer

    @property
    def text(self) -> str:
        """The answer's text that the client has."""
        return self.winner.relay.text if self.winner is not None else self.kept_text

    # --- the answer

    def stream_encoder(self, *, verbatim: bool) -> Encoder:
        """Returns the stream's encoder. Failed attempts leave it unchanged: nothing is encoded before an
        attempt commits.
        """
        if self.encoder is None or verbatim is not self.verbatim:
            before = self.encoder
            self.encoder = self.call.frontend.encoder(self.call.chat, self.answer, verbatim=verbatim)
            self.verbatim = verbatim
            if (
                self.resumes
                and before is not None
                and (go_on := getattr(self.encoder, "go_on_from", None)) is not None
            ):
                go_on(before)
        return self.encoder

    def encoder_for(self, *, verbatim: bool) -> Encoder:
        """Returns an attempt's encoder. A whole answer is encoded as it arrives, so each attempt needs its
        own."""
        call = self.call
        if not call.chat.stream:
            if self.lent:
                return call.frontend.encoder(call.chat, self.answer, verbatim=verbatim)
            self.lent = True
        if self.encoder is not None and verbatim is self.verbatim:
            return self.encoder
        return self.stream_encoder(verbatim=verbatim)

    def take(self, answer: AnsweringAttempt, chunk: bytes, now: float, *, first: bool) -> None:
        """Takes an attempt's bytes for the client. Its first ones make it the winner."""
        relay = answer.relay
        if self.winner is None:
            self.winner = answer
            self.call.answered = answer.attempt
            self.call.phase = "streaming"
            self.writer.attach(answer.response)
            if self.won is not None:
                self.won.set()
        self.write(chunk, relay.finished)
        if first:
            written = self.clock()
            self._first_token(answer, written)
            self.call.series.overhead.observe(written - now)
        elif relay.gap:
            self.inter_token.observe(relay.gap)

    def write(self, chunk: bytes, finished: Finished | None = None) -> None:
        """Writes the next part of the answer. `finished` ends the answer, after its turn has been stored."""
        writer, call = self.writer, self.call
        if self.over:
            return
        if not writer.begun:
            encoder = self.encoder or self.stream_encoder(verbatim=self.verbatim)
            headers: Sequence[tuple[str, str]] = call.headers
            if self.winner is not None:
                headers = [*headers, *call.attribution()]
            writer.begin(encoder.content_type, headers)
        if finished is None:
            writer.write(chunk)
            return
        self.over = True
        call.finish(ENDS[finished.reason])
        if call.store_turn is None or not self._store_turn(call.store_turn, chunk):
            writer.write(chunk, last=True)

    def _store_turn(self, store: "Callable[[str], asyncio.Task[None] | None]", end: bytes) -> bool:
        """Stores the turn of the complete answer. Returns whether that is still running: then `end` is sent
        when it is done.
        """
        relay = self.winner.relay if self.winner is not None else None
        if (
            relay is not None and relay.thoughts and not relay.recovered
        ):  # else they belong to another text than the client's
            blocks = [Thought(block.text, block.signature, block.redacted) for block in relay.thoughts]
            self.call.thoughts = blocks
        self.call.text = self.text
        storing = store(self.call.text)
        if storing is None:
            return False
        self.call.phase = "storing"
        self.unsent_end = end
        storing.add_done_callback(lambda _: self.send_end())
        return True

    def reply(self, events: Sequence[StreamEvent]) -> None:
        """Answer the call without asking a target, for an interceptor. `events` are a whole answer, from
        `Started` to `Finished`.

        Raises BadRequest where the caller wants several choices, ValueError where another answer has begun.
        """
        call, finished = self.call, events[-1]
        if type(finished) is not Finished:
            raise ValueError("an answer ends with Finished")
        if call.chat.n > 1:
            raise BadRequest(
                "This model gives one choice per request", param="n", code="unsupported_parameter"
            )
        if self.winner is not None or self.resumes:
            raise ValueError("another answer has begun")
        opened = self.encoder is not None  # a target was tried before, without success
        self.kept_text = "".join([event.text for event in events if type(event) is TextDelta])
        encoder = self.encoder_for(verbatim=False)
        call.phase = "streaming"
        self.write((b"" if opened else encoder.start()) + encoder.encode(events), finished)
        if call.chat.stream:
            call.ttft = self.clock() - call.received
            call.series.first_token.observe(call.ttft)

    def send_end(self) -> None:
        """Sends the last bytes of the answer now, if they still wait for the turn to be stored."""
        end, self.unsent_end = self.unsent_end, None
        if end is not None:
            self.writer.write(end, last=True)

    def fail(self, error: GatewayError) -> None:
        """Writes the error into the answer, unless its end has been written."""
        if not self.over:
            self.over = True
            encoder = self.stream_encoder(verbatim=self.verbatim)
            if getattr(encoder, "cuts", False):
                self.writer.abort()
            else:
                self.writer.fail(encoder.fail(error))

    def let_go(self) -> None:
        """Ends the attempt, and keeps the client's text for another attempt to continue."""
        self.kept_text = self.text
        self.resumes = self.resumes or self.winner is not None
        self.winner = None
        self.writer.attach(None)

    def close(self) -> None:
        """Ends the call. The run and its winner refer to each other: unlinked, they are freed at once,
        without the garbage collector.
        """
        if self.unsent_end is not None:
            self.send_end()
        if self.deadline is not None:
            self.deadline.cancel()
        self.winner = None

    def _first_token(self, answer: AnsweringAttempt, written: float) -> None:
        """Records the first token. `written`: when the client's first bytes were written."""
        relay, call, attempt = answer.relay, self.call, answer.attempt
        if not relay.first_content_at:
            return
        target = attempt.target
        attempt.first_token = seconds = relay.first_content_at - attempt.started
        if attempt.whole is None:  # otherwise it would be the time of the last token
            target.series.first_token.observe(seconds)
            target.load.observe(seconds)
        if call.ttft is None and call.chat.stream:  # a whole answer comes with its last token
            call.ttft = seconds = written - call.received
            call.series.first_token.observe(seconds)

    # --- deadlines

    def tick(self, now: float) -> None:
        """Checks the deadlines, and sends heartbeats."""
        writer = self.writer
        self.due = due = now + MAX_TICK_SECONDS
        blocked = writer.blocked_since
        if blocked:
            if self.winner is not None:
                self.winner.relay.alive_at = (
                    now  # a client that does not read must not count as a silent upstream
                )
            if now - blocked > self.write_idle:
                self.call.finish("slow_reader")
                writer.abort()
            return
        for answer in self.reading:
            deadline = end_if_late(answer, now)
            if deadline < due:
                self.due = due = deadline
        heartbeat = self.call.route.config.heartbeat
        if heartbeat and self.call.chat.stream:
            next_beat = (writer.last_write or self.call.received) + heartbeat
            if next_beat <= now:
                self._beat()
            elif next_beat < due:
                self.due = next_beat

    def _beat(self) -> None:
        encoder = self.encoder
        if encoder is None:  # the call still waits for its turn: the encoder's arguments are not known yet
            encoder = self.call.frontend.encoder(self.call.chat, self.answer)
        beat = encoder.heartbeat()
        if beat and not self.over:
            if not self.writer.begun:
                self.writer.begin(encoder.content_type, self.call.headers)
            self.writer.write(beat)

    def drain(self) -> None:
        """Ends the call, wherever it waits: the process shuts down."""
        self.call.finish("drain")
        self.scope.end(Unavailable("The gateway is shutting down"))
