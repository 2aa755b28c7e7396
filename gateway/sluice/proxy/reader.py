"""Reads the answer to one attempt: an upstream's reads through the relay, and the client's bytes to the
call's run.

An `AttemptReader` is given to the transport with the request. When the response's head comes it begins an
`AnswerReader`, whose `sink` is called straight from the transport: no coroutine stands between the two
sockets.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from sluice.backends.transport import Sink, UpstreamResponse
from sluice.model.chat import call_ids
from sluice.model.events import Finished
from sluice.proxy.attempt import Attempt
from sluice.proxy.call import MAX_INLINE_BYTES
from sluice.proxy.relay import Relay
from sluice.proxy.run import CallRun
from sluice.proxy.tool_names import NamedDecoder
from sluice.wire.forwarding import provider_id
from sluice.wire.retry_after import spent_for

ENDS_OF_PIECES = (b"\n\n", b"\r\n\r\n", b"}\n", b"}\r\n")
"""The endings of an event and of a line: a read that ends in one of them completes a piece."""

Beside = Callable[..., Awaitable[Any]]
"""`await beside(work, *args)` runs work in a thread that would block the event loop for long."""
Price = Callable[[CallRun, Attempt, Finished], Finished]
"""Adds the call's cost to the end of an attempt's answer."""


class AnotherWon(Exception):
    """Another attempt of the call was faster."""


class AttemptReader(msgspec.Struct, eq=False):
    """Waits for a response's head. `answer` is set when the head has arrived.

    `last`: there is no other target, so an empty answer is forwarded. `prefilled`: the request ends with the
    text of a cut answer that the client holds.
    """

    run: CallRun
    attempt: Attempt
    last: bool
    prefilled: bool = False
    price: Price | None = None
    beside: Beside | None = None
    names: Mapping[str, str] = {}  # of each tool that is called otherwise at the target: the caller's name
    task: "asyncio.Task[Any] | None" = None  # if two attempts race
    answer: "AnswerReader | None" = None
    _relay: Relay | None = None

    def sent(self) -> None:
        """Prepares the reading of the answer while the request is under way; if two attempts race, only when
        the head arrives.
        """
        if self._relay is None and self.run.won is None:
            self._relay = self._make_relay()

    def served(self, endpoint: str) -> None:
        """An endpoint that a picker chose has answered."""
        self.attempt.picked = endpoint

    def begin(self, response: UpstreamResponse) -> Sink | None:
        """The response's head has come."""
        answer = self.read(response)
        return answer.sink if response.status // 100 == 2 else None

    def read(self, response: UpstreamResponse) -> "AnswerReader":
        run = self.run
        run.due = 0.0
        if run.winner is None:
            run.call.phase = "first_token"
        headers = response.headers
        if "x-request-id" in headers or "request-id" in headers or "x-amzn-requestid" in headers:
            self.attempt.provider_id = provider_id(headers)
        target = self.attempt.target
        if (
            target.heeds_limits
            and response.status // 100 == 2
            and (seconds := spent_for(headers)) is not None
        ):
            target.health.spent(seconds)
        relay = self._relay or self._make_relay()
        if self.attempt.whole is not None and (begin := getattr(relay.decoder, "begin", None)) is not None:
            begin(headers)
        relay.alive_at = run.clock()
        answer = self.answer = AnswerReader(run, self.attempt, response, relay, self.task, beside=self.beside)
        run.reading.append(answer)
        return answer

    def _make_relay(self) -> Relay:
        run, attempt = self.run, self.attempt
        target, whole = attempt.target, attempt.whole
        verbatim = target.passes_on == run.call.chat.dialect and not run.resumes
        decoder = target.decoder(verbatim=verbatim) if whole is None else whole.whole_decoder()
        if self.names:
            decoder = NamedDecoder(decoder, self.names)
        if not run.call.chat.only_texts and (ids := call_ids(run.call.chat.messages)):
            decoder.distinguish(ids)
        relay = Relay(
            decoder,
            run.encoder_for(verbatim=verbatim),
            not run.call.chat.stream,
            self.last,
            max_before_content=target.max_before_content,
            max_answer=target.max_answer,
        )
        if run.resumes:
            relay.resume(run.kept_text, prefilled=self.prefilled)
        if self.price is not None:
            relay.priced = partial(self.price, run, attempt)
        return relay


class AnswerReader(msgspec.Struct, eq=False):
    """Reads the body of one answer.

    `complete_at`: when the answer was complete, 0.0 until it is. A large piece (a document, an event of
    megabytes) would block the event loop, so it is relayed in a thread, by `beside`. Reads that arrive
    meanwhile wait in `_queue`.
    """

    run: CallRun
    attempt: Attempt
    response: UpstreamResponse
    relay: Relay
    task: "asyncio.Task[Any] | None" = None
    beside: Beside | None = None
    complete_at: float = 0.0
    working: "asyncio.Task[None] | None" = None  # relays a large piece
    _silent: int = 0  # bytes without output so far, or more than MAX_INLINE_BYTES while `working`
    _queue: list[bytes] = []

    __repr__ = object.__repr__  # it holds an answer

    def sink(self, data: bytes) -> None:
        """Handles one read of the upstream's body: writes its result to the client. Raises AnotherWon."""
        relay, run = self.relay, self.run
        if self._silent:
            self._sink_more(data)
            return
        if run.winner is not self:
            self._first(data)
            return
        now = run.clock()
        chunk = relay.feed(data, now)
        if relay.finished is not None:
            self._pass_on_last(chunk, now)
        elif not chunk:
            self._count_silent(data)
        elif not run.over:
            run.writer.write(chunk)
            if relay.gap:
                run.inter_token.observe(relay.gap)

    def _sink_more(self, data: bytes) -> None:
        """Handles a read after others that have produced no output yet."""
        if self._put_aside(data):
            return
        before, self._silent = self._silent, 0
        self.sink(data)
        if self._silent:
            self._silent += before

    def _first(self, data: bytes) -> None:
        """Handles a read before this attempt has produced output for the client."""
        run = self.run
        if run.winner is not None:
            raise AnotherWon  # before anything is encoded: the encoder is the call's
        now = run.clock()
        chunk = self.relay.feed(data, now)
        if not chunk:
            self._count_silent(data)
        self._pass_on_first(chunk, now)

    def _pass_on_first(self, chunk: bytes, now: float) -> None:
        run = self.run
        run.due = 0.0  # the first content begins the phase of another deadline
        if chunk:
            run.take(self, chunk, now, first=True)
        if self.relay.finished is not None and not self.complete_at:
            self.complete_at = now

    def _pass_on(self, chunk: bytes, now: float) -> None:
        relay, run = self.relay, self.run
        if relay.finished is not None:
            self._pass_on_last(chunk, now)
        elif chunk and not run.over:
            run.writer.write(chunk)
            if relay.gap:
                run.inter_token.observe(relay.gap)

    def _pass_on_last(self, chunk: bytes, now: float) -> None:
        """Handles a read that completes the answer, or arrives after its end."""
        run = self.run
        if chunk:
            run.take(self, chunk, now, first=False)
        if not self.complete_at:
            self.complete_at = now
            run.due = 0.0

    # --- large pieces

    def _count_silent(self, data: bytes) -> None:
        """Counts bytes without output: they are part of a large piece, unless they end one."""
        ends = data[-1:] == b"\n" and data.endswith(ENDS_OF_PIECES)
        self._silent = 0 if ends else self._silent + len(data)

    def _put_aside(self, data: bytes) -> bool:
        """Returns whether the thread has to take this read: a large piece may end in it, or the thread is
        busy."""
        if self.working is not None:
            self._queue.append(data)
            return True
        if (
            self._silent <= MAX_INLINE_BYTES
            or self.beside is None
            or (b"\n" not in data and b"\r" not in data)
        ):
            return False
        self.response.pause()
        self.working = asyncio.create_task(self._work(data, self.beside))
        return True

    async def _work(self, data: bytes, beside: Beside) -> None:
        relay, run = self.relay, self.run
        try:
            while data:
                now = run.clock()
                chunk = await beside(relay.feed, data, now)
                if run.winner is self:
                    self._pass_on(chunk, now)
                elif run.winner is not None:
                    raise AnotherWon
                else:
                    self._pass_on_first(chunk, now)
                data = b"".join(self._queue)
                self._queue.clear()
        except (
            Exception
        ) as error:  # handled as in `sink`: the response raises it to whoever waits for its end
            self.response.abort(error)
            raise
        self._silent = 0
        self.working = None
        if not run.writer.blocked_since:
            self.response.resume()

    # --- the end

    def close(self) -> None:
        """Handles the end of the upstream's body. Raises UpstreamTruncated if the answer is not complete,
        AnotherWon.
        """
        relay, run = self.relay, self.run
        if run.winner is not None and run.winner is not self:
            raise AnotherWon
        if relay.finished is None:
            now, first = run.clock(), not relay.committed
            chunk = relay.close(now)
            if chunk or run.winner is self:  # of bytes without a terminator nothing is left to say
                run.take(self, chunk, now, first=first)
            if relay.finished is None:  # that was the last frame of an answer that was cut
                relay.close(now)

    async def close_beside(self) -> None:
        """Like `close`, in a thread: used while one is `working`, or if more than MAX_INLINE_BYTES is
        `relay.uncommitted`."""
        if self.working is not None:
            await self.working
        if self.beside is None:
            return self.close()
        relay, run = self.relay, self.run
        now, first = run.clock(), not relay.committed
        chunk = await self.beside(relay.close, now)
        if run.winner is not None and run.winner is not self:
            raise AnotherWon
        if chunk or run.winner is self:
            run.take(self, chunk, now, first=first)
        if relay.finished is None:
            relay.close(now)

    def part(self) -> None:
        """Breaks the references to this finished attempt, so that it is freed without the garbage
        collector."""
        run = self.run
        run.reading.remove(self)
        self.relay.priced = None
        if self.working is not None:
            self.working.add_done_callback(_retrieve)
            self.working.cancel()
            self.working = None
        if run.winner is self:
            run.writer.attach(None)


def _retrieve(work: "asyncio.Task[None]") -> None:
    """Marks the error as retrieved: the response has raised it already."""
    if not work.cancelled():
        work.exception()
