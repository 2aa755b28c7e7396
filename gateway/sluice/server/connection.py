"""One client's socket, as an asyncio protocol: passes bytes to the parser, and runs one request at a time in
a task of its own.

Deadlines are time stamps that the listener's sweep checks once a second. `since` is when the connection
entered its state, and the maximum time depends on the state:

head    the head of a request is arriving, or expected on a new connection    header_timeout
busy    a request is being answered                          the exchange's own deadlines
idle    kept alive                                                                  keepalive_timeout
unread  answered, but the client does not read: nothing more is done for it         write_idle
        until it does, and it may be closing
linger  answered before its body was read: the rest of the body is discarded,       MAX_LINGER_SECONDS
        so that the client reads the answer instead of a reset
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, Protocol, cast

from sluice.server.bodies import Unfinished
from sluice.server.exchange import HttpExchange, Terms, exchange_of, unmapped
from sluice.server.http1 import RequestParser
from sluice.server.incoming import Incoming

State = Literal["head", "busy", "idle", "unread", "linger"]
MAX_LINGER_SECONDS = 2.0
MAX_AHEAD = 512 << 10
"""Bytes of a form that are kept before it is read in pieces; beyond it the client is not read."""
OVERLOADED_WAIT = "1"
"""Seconds of the Retry-After."""
OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
)
BAD_REQUEST = (
    b'{"error":{"message":"The request is not valid HTTP","type":"invalid_request_error","code":"bad_http"}}'
)
BAD = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n"
    b"Connection: close\r\n\r\n%b" % (len(BAD_REQUEST), BAD_REQUEST)
)

SLOW = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Owner(Terms, Protocol):
    """The listener's interface for its connections (`sluice.server.listener`)."""

    closing: bool
    send_buffer: int
    bounds: dict[State, float]
    unfinished: Unfinished

    @property
    def broken(self) -> Callable[[int], None]: ...
    @property
    def dispatch(self) -> Callable[[HttpExchange], Awaitable[None]]: ...
    def left(self, connection: "ServerConnection") -> None: ...
    def cancel(self, task: asyncio.Task[None]) -> None: ...


class ServerConnection(asyncio.Protocol):
    """`peer`: the address of the other end; "" if it has none (a Unix socket). `refused`: it is answered 503,
    without reading the request."""

    __slots__ = (
        "_blocked", "_keeps", "_listener", "_parser", "_paused", "_refused", "exchange", "peer", "since", "state", "task",
        "transport",
    )  # fmt: skip

    def __init__(self, listener: Owner, *, refused: bool = False) -> None:
        self._listener = listener
        self._refused = refused
        self._parser = RequestParser(listener.body_limit)
        self.task: asyncio.Task[None] | None = None
        self._paused = False
        self._blocked = False
        self._keeps = 0  # bytes of unfinished requests, as counted by the listener
        self.exchange: HttpExchange | None = None
        self.transport: asyncio.Transport | None = None
        self.peer = ""
        self.state: State = "head"
        self.since = time.monotonic()

    # --- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=listener.send_buffer)
        peername = transport.get_extra_info("peername")
        self.peer = unmapped(str(peername[0])) if isinstance(peername, tuple) else ""
        if self._refused:
            self._refuse(OVERLOADED)
        elif listener.closing:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._parser.close()
        self._count(0)
        self._listener.left(self)
        if self.task is not None:
            self._listener.cancel(self.task)
        self.task = self.exchange = None  # a cancelled task that never began would keep them

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if self.state == "linger" or parser.error:
            return
        parser.feed(data)
        if self.exchange is not None:
            self.exchange.body_moved()
        elif self.state != "unread":
            self._next()
        if self._keeps or parser.unfinished:
            self._count(parser.kept)

    def eof_received(self) -> bool:
        if self.exchange is not None:
            self.abort()  # otherwise unsent bytes would keep the call alive until they are flushed
        else:
            self._listener.writes.flush()  # the event loop closes the transport after this
        return False

    def pause_writing(self) -> None:
        self._blocked = True
        if self.exchange is not None:
            self.exchange.blocked(time.monotonic())

    def resume_writing(self) -> None:
        self._blocked = False
        if self.exchange is not None:
            self.exchange.unblocked()
        elif self.state == "unread" and self.transport is not None and not self.transport.is_closing():
            self._go_on()

    # --- for the listener

    @property
    def tasks(self) -> Sequence[asyncio.Task[None]]:
        return () if self.task is None else (self.task,)

    def look(self, now: float) -> None:
        """Closes the connection if it has been in its state for too long."""
        bound = self._listener.bounds.get(self.state)
        if bound is None or now - self.since <= bound:
            return
        if self.state in ("linger", "unread") or (self.transport is not None and self.transport.is_closing()):
            self.abort()
        elif self._parser.begun:
            self._listener.broken(408)
            self._refuse(SLOW)
        else:
            self.close()

    def close(self) -> None:
        """Closes after everything written has been sent, within a time limit."""
        if self.transport is not None:
            self._enter("unread")
            self._listener.writes.flush()
            self.transport.close()

    def abort(self) -> None:
        """Closes at once, with unsent bytes; the handler is cancelled."""
        if self.transport is not None:
            self.transport.abort()

    def give_up(self) -> None:
        """Answers its incomplete requests 503: the memory for such requests is used up, and of all
        connections it has been silent for the longest time."""
        self._keeps = 0
        self._parser.give_up()
        if self.exchange is not None:
            self.exchange.body_moved()

    def read_on(self) -> None:
        """Continues reading: the exchange has taken the bytes of the body that had arrived."""
        if self._keeps:
            self._count(self._parser.kept)
        self._resume()

    def _count(self, kept: int) -> None:
        if kept != self._keeps:
            self._keeps = kept
            self._listener.unfinished.keep(self, kept)
            if kept > MAX_AHEAD and self.exchange is not None and _in_pieces(self.exchange.request):
                self._pause()

    # --- one request after the other

    def _next(self) -> None:
        parser, listener = self._parser, self._listener
        if parser.waiting:
            exchange = self.exchange = exchange_of(parser.waiting.pop(0), self, listener)
            self.state = "busy"
            # `create_task` would number it, in a name that costs more than anything else about a task
            self.task = asyncio.Task(self._answer(exchange), loop=listener.loop, name="request")
            self._resume()  # for its body, and to notice when the client leaves
            if self._keeps:
                self._count(parser.kept)
        elif parser.given_up:
            self._listener.broken(503)
            self._refuse(OVERLOADED)
        elif parser.error:
            self._listener.broken(400)
            self._refuse(BAD)
        else:
            if parser.begun and self.state == "idle":
                self._enter("head")
            self._resume()

    async def _answer(self, exchange: HttpExchange) -> None:
        """Runs the request's handler in its task; afterwards the connection takes the next request, if it
        can."""
        self._listener.writes.users += 1
        try:
            await self._listener.dispatch(exchange)
        finally:
            self.task = None
            self.exchange = None
            self._listener.writes.users -= 1
            if self.transport is not None and not self.transport.is_closing():
                self._answered(exchange)

    def _answered(self, exchange: HttpExchange) -> None:
        if not exchange.complete:
            self.abort()  # the handler failed without an answer, or in the middle of one
        elif not exchange.request.over:
            self._linger()
        elif exchange.close_after or self._listener.closing:
            # closing with unread bytes would be a reset
            (self._linger if self._parser.waiting or self._parser.error else self.close)()
        elif self._blocked:
            self._enter("unread")
            self._pause()
        else:
            self._go_on()

    def _go_on(self) -> None:
        parser = self._parser
        self._enter("head" if parser.begun else "idle")
        if parser.waiting or parser.error or self._paused:
            self._next()

    def _refuse(self, answer: bytes) -> None:
        """Sends an error for an invalid or incomplete request, without quoting it, and closes."""
        if self.transport is not None:
            self._listener.writes.write(self.transport, answer)
        self._linger()

    def _linger(self) -> None:
        self._enter("linger")
        self._parser.close()
        self._parser.waiting.clear()
        self._count(0)
        if self.transport is not None:
            self._listener.writes.flush()
            if (
                self.transport.can_write_eof()
            ):  # TLS cannot close one direction: there the client relies on the length
                self.transport.write_eof()
            self._resume()

    def _enter(self, state: State) -> None:
        self.state = state
        self.since = time.monotonic()

    def _pause(self) -> None:
        if not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()


def _in_pieces(request: Incoming) -> bool:
    """Returns whether this body may be read in pieces: it is an incomplete form, and no handler needs it
    whole."""
    form = request.fields.get("content-type", "").lower().startswith("multipart/form-data")
    return form and not (request.over or request.whole or request.broken)
