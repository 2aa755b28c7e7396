"""One client's socket that speaks HTTP/2: frames to streams and back.

h2 keeps the protocol's state, and refuses violations of it. These are left to the gateway:

    flow control   bytes that a stream may not send yet wait here; if they are many, or if the socket is full, the
                   upstream is paused
    bounds         streams of one connection (`protocol.MAX_STREAMS`) and of all (`max_connections`); heads
                   (MAX_HEAD); bodies as over HTTP/1.1; floods of frames (`floods.py`)
    the end        GOAWAY with the last stream that is answered; later ones may be sent again elsewhere (RFC 9113 6.8)

Deadlines are checked once a second, as those of HTTP/1.1: a connection without streams is closed after
`keepalive_timeout` (`header_timeout` before its first request), a socket that takes nothing after `write_idle`, and
a stream whose answer is complete if its client takes less than MIN_RATE of it for as long.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import h2.errors
import h2.events
import h2.exceptions
from hyperframe.frame import GoAwayFrame

from sluice.server.bodies import Pace
from sluice.server.connection import OVERLOADED_WAIT, Owner, State
from sluice.server.exchange import unmapped
from sluice.server.http2.exchange import Head, Http2Exchange, http2_exchange
from sluice.server.http2.floods import SHORT, FloodBounds
from sluice.server.http2.protocol import request_of, server_protocol
from sluice.server.incoming import Incoming

WINDOW = 1 << 20
"""Bytes of bodies that may be in flight on one connection."""
_Code = h2.errors.ErrorCodes


class Http2Owner(Owner, Protocol):
    """The listener's interface for connections. `streams`: requests over HTTP/2 that are being answered."""

    streams: int
    max_connections: int
    connections: set[Any]

    def left(self, connection: Any) -> None: ...


class Stream:
    """One request and its response.

    `waiting`: bytes of the response that may not be sent yet; `last`: no more will follow. `pace`: the
    deadline for the remaining bytes, once the answer is complete and its handler has ended.
    """

    __slots__ = (
        "connection", "ended", "exchange", "id", "kept", "last", "pace", "peer", "request", "started", "task", "transport",
        "unacknowledged", "waiting",
    )  # fmt: skip

    def __init__(
        self, connection: "Http2Connection", id: int, request: Incoming, listener: Http2Owner
    ) -> None:
        self.connection = connection
        self.peer = connection.peer
        self.id = id
        self.request = request
        self.exchange: Http2Exchange | None = http2_exchange(request, self, listener)
        self.task: asyncio.Task[None] | None = None
        self.waiting = bytearray()
        self.last = self.ended = False
        self.kept = self.unacknowledged = 0
        self.transport: asyncio.Transport | None = None
        self.pace: Pace | None = None
        self.started = time.monotonic()

    def go_on(self) -> None:
        """Sends the 100 that answers `Expect: 100-continue`."""
        self.connection.go_on(self)

    def send(self, head: Head | None, data: bytes, *, last: bool) -> None:
        self.connection.send(self, head, data, last=last)

    def reset(self) -> None:
        self.connection.end(self, _Code.INTERNAL_ERROR)

    def give_up(self) -> None:
        """Drops the body: the memory for incomplete bodies is used up, and of all requests it has been silent
        for the longest time."""
        self.kept = 0
        self.request.given_up = True
        self.request.content = b""
        self.moved()

    def read_on(self) -> None:
        """Continues reading: the exchange has taken the bytes of the body that had arrived, or needs all of
        it."""
        self.connection.read_on(self)

    def moved(self) -> None:
        if self.exchange is not None:
            self.exchange.body_moved()


class Http2Connection(asyncio.Protocol):
    """The connection of one client. `transport` is open, and nothing of the client's preface has been read."""

    def __init__(self, listener: Http2Owner, transport: asyncio.Transport) -> None:
        self._listener = listener
        self.transport: asyncio.Transport | None = transport
        peername = transport.get_extra_info("peername")
        self.peer = unmapped(str(peername[0])) if isinstance(peername, tuple) else ""
        self.state: State = "head"
        self.since = time.monotonic()
        self._blocked_since = 0.0
        self._wider: set[int] = set()  # streams whose windows have grown; 0: all of them
        self._leaving = False
        self._floods = FloodBounds()
        self._streams: dict[int, Stream] = {}
        self._h2 = server_protocol()
        self._h2.increment_flow_control_window(WINDOW - self._h2.remote_settings.initial_window_size)
        self._flush()

    # --- for the event loop

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        for stream in list(self._streams.values()):
            self._forget(stream)
        self._listener.left(self)

    def data_received(self, data: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if not self._floods.frames.hold(data):
            self._listener.broken(400)
            self._h2.close_connection(_Code.FRAME_SIZE_ERROR)
            self._refuse()
            return
        if self._floods.exceeded():  # before h2 handles the frames
            self._end_flood()
            return
        try:
            for event in self._h2.receive_data(data):
                self._handle(event)
        except h2.exceptions.ProtocolError:  # h2 has prepared the GOAWAY
            self._listener.broken(400)
            self._refuse()
            return
        if self._floods.exceeded():
            self._end_flood()
            return
        self._pump_wider()
        self._flush()

    def _end_flood(self) -> None:
        self._listener.broken(400)
        self._h2.close_connection(_Code.ENHANCE_YOUR_CALM)
        self._refuse()

    def eof_received(self) -> bool:
        return False  # a client that sends no more is treated as gone

    def pause_writing(self) -> None:
        # otherwise h2's replies to pings and settings would be kept without a bound, for a client that does
        # not read
        if self.transport is not None:
            self.transport.pause_reading()
        self._blocked_since = now = time.monotonic()
        for stream in self._streams.values():
            if stream.exchange is not None and not stream.exchange.blocked_since:
                stream.exchange.blocked(now)

    def resume_writing(self) -> None:
        self._blocked_since = 0.0
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.resume_reading()
        self._pump_all()

    # --- for the listener

    @property
    def exchange(self) -> Http2Exchange | None:
        """Returns the exchange of one of the requests that are being answered; None if there is none."""
        return next(
            (stream.exchange for stream in self._streams.values() if stream.exchange is not None), None
        )

    @property
    def tasks(self) -> "Sequence[asyncio.Task[None]]":
        return [stream.task for stream in self._streams.values() if stream.task is not None]

    def look(self, now: float) -> None:
        """Closes what has taken too long; if the listener is draining, tells the client to leave."""
        bounds = self._listener.bounds
        self._floods.begin_second()
        for stream in list(self._streams.values()):
            if stream.pace is not None and now > stream.pace.due:
                self.end(stream, _Code.CANCEL)
        if self._listener.draining:
            self._leave()
        if self._blocked_since and now - self._blocked_since > bounds["unread"]:
            self.abort()
        elif not self._streams and now - self.since > bounds.get(self.state, 0.0):
            self.abort() if self.transport is not None and self.transport.is_closing() else self.close()

    def close(self) -> None:
        """Tells the client to leave, and closes when everything is written; if requests are being answered,
        when they have ended."""
        self._leave()
        if self.transport is not None and not self._streams:
            self.state, self.since = "unread", time.monotonic()
            self._listener.writes.flush()
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _leave(self) -> None:
        """Sends the one GOAWAY. It is not sent by h2, which would refuse to send anything afterwards."""
        if not self._leaving and self.transport is not None:
            self._leaving = True
            frame = GoAwayFrame(
                0, last_stream_id=self._h2.highest_inbound_stream_id, error_code=int(_Code.NO_ERROR)
            )
            self._listener.writes.write(self.transport, frame.serialize())

    def _refuse(self) -> None:
        """Closes after h2's last frame. The streams end with the connection."""
        self._flush()
        self._leaving = True
        if self.transport is not None:
            self._listener.writes.flush()
            self.transport.close()

    # --- frames received

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event)
            case h2.events.DataReceived():
                self._body(event)
            case h2.events.StreamEnded(stream_id=int(id)):
                stream = self._streams.get(id)
                if stream is not None:
                    stream.request.over = True
                    self._count(stream, 0)
                    stream.moved()
            case h2.events.StreamReset(stream_id=int(id)):
                stream = self._streams.get(id)
                if stream is not None:
                    self._floods.resets += (
                        stream.task is not None and time.monotonic() - stream.started < SHORT
                    )
                    self._forget(stream)
            case h2.events.WindowUpdated(stream_id=int(id)):
                self._wider.add(id)
            case h2.events.RemoteSettingsChanged():
                self._wider.add(0)
            case h2.events.ConnectionTerminated():
                self._leaving = True
                self._stream_ended()

    def _begin(self, event: h2.events.RequestReceived) -> None:
        id, listener = event.stream_id, self._listener
        if self._leaving:
            self._reset(id, _Code.REFUSED_STREAM)
            return
        self._floods.begun += 1
        request = request_of(event.headers)
        if request is None:
            listener.broken(400)
            self._reset(id, _Code.PROTOCOL_ERROR)
            return
        request.over = event.stream_ended is not None
        if request.over:
            request.length = 0
        stream = self._streams[id] = Stream(self, id, request, listener)
        self.state = "busy"
        listener.streams += 1
        if listener.streams > listener.max_connections:
            listener.broken(503)
            assert stream.exchange is not None
            stream.exchange.reply(503, b"", [("Retry-After", OVERLOADED_WAIT)])
            self._answered(stream)
            return
        if self._blocked_since and stream.exchange is not None:
            stream.exchange.blocked(self._blocked_since)
        stream.task = listener.loop.create_task(self._answer(stream, stream.exchange))

    def _body(self, event: h2.events.DataReceived) -> None:
        id, data = event.stream_id, event.data or b""
        stream = self._streams.get(id)
        if stream is None:
            self._h2.acknowledge_received_data(event.flow_controlled_length, id)
        else:
            stream.unacknowledged += event.flow_controlled_length
            if stream.request.whole or (
                not stream.request.limit and stream.request.size > self._listener.body_limit
            ):
                self._acknowledge(stream)
        if not data:
            padded = (
                event.flow_controlled_length > 0
            )  # the bounds have counted frames that are empty altogether
            self._floods.frames.fruitless += event.stream_ended is None and padded
        elif stream is not None and not stream.request.given_up:
            request = stream.request
            request.add(data, self._listener.body_limit)
            if stream.task is None:  # it has been answered
                request.content = b""
            self._count(stream, len(request.content))
            stream.moved()

    def read_on(self, stream: Stream) -> None:
        """Lets the client send as many bytes as were taken: at most one window is kept of a body that is not
        read."""
        self._count(stream, len(stream.request.content))
        self._acknowledge(stream)
        self._flush()

    def _acknowledge(self, stream: Stream) -> None:
        size, stream.unacknowledged = stream.unacknowledged, 0
        if size:
            with suppress(h2.exceptions.ProtocolError):
                self._h2.acknowledge_received_data(size, stream.id)

    def _count(self, stream: Stream, kept: int) -> None:
        if kept != stream.kept:
            stream.kept = kept
            self._listener.unfinished.keep(stream, kept)

    # --- answers sent

    async def _answer(self, stream: Stream, exchange: Http2Exchange | None) -> None:
        """Runs the handler in the request's task."""
        listener = self._listener
        listener.writes.users += 1
        try:
            if exchange is not None:
                await listener.dispatch(exchange)
        finally:
            listener.writes.users -= 1
            stream.task = None
            if self._streams.get(stream.id) is stream:
                if exchange is not None and exchange.complete:
                    self._answered(stream)
                else:
                    self.end(
                        stream, _Code.INTERNAL_ERROR
                    )  # the handler failed without an answer, or in the middle of one
            self._flush()

    def _left(self, _: object = None) -> None:
        self._listener.streams -= 1

    def _answered(self, stream: Stream) -> None:
        stream.exchange = None
        stream.pace = Pace(self._listener.bounds["unread"], time.monotonic())
        self._count(stream, 0)
        if stream.ended:
            self._done(stream)

    def send(self, stream: Stream, head: Head | None, data: bytes, *, last: bool) -> None:
        """Writes as much of an answer as the client's windows allow, and keeps the rest."""
        if self.transport is None or self._streams.get(stream.id) is not stream:
            return
        if head is not None:
            try:
                self._h2.send_headers(stream.id, head, end_stream=last and not data)
            except h2.exceptions.ProtocolError:  # an earlier frame of the same read closed it
                self._forget(stream)
                return
            stream.ended = last and not data
        stream.waiting += data
        stream.last = stream.last or last
        self._pump(stream)
        self._flush()

    def go_on(self, stream: Stream) -> None:
        with suppress(h2.exceptions.ProtocolError):
            self._h2.send_headers(stream.id, [(b":status", b"100")])
            self._flush()

    def _reset(self, id: int, code: h2.errors.ErrorCodes) -> None:
        with suppress(h2.exceptions.ProtocolError):  # it is closed already
            self._h2.reset_stream(id, code)

    def _pump_all(self) -> None:
        for stream in list(self._streams.values()):
            self._pump(stream)
        self._flush()

    def _pump_wider(self) -> None:
        wider = self._wider
        if not wider:
            return
        self._wider = set()
        if 0 in wider:
            self._pump_all()
            return
        for id in wider:
            if (stream := self._streams.get(id)) is not None:
                self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Gives h2 the bytes that the windows allow."""
        waiting, id = stream.waiting, stream.id
        try:
            while waiting and not self._blocked_since:
                size = min(
                    len(waiting), self._h2.local_flow_control_window(id), self._h2.max_outbound_frame_size
                )
                if size <= 0:
                    break
                ends = stream.last and size == len(waiting)
                self._h2.send_data(id, bytes(waiting[:size]), end_stream=ends)
                stream.ended = stream.ended or ends
                self._floods.sent += 1
                if stream.pace is not None:
                    stream.pace.came(size, time.monotonic())
                del waiting[:size]
                self._flush()
            if stream.last and not waiting and not stream.ended:
                self._h2.end_stream(id)
                stream.ended = True
        except h2.exceptions.ProtocolError:  # an earlier frame of the same read closed it
            self._forget(stream)
            return
        exchange = stream.exchange
        if exchange is not None:
            full = self._blocked_since > 0 or len(waiting) > self._listener.send_buffer
            if full and not exchange.blocked_since:
                exchange.blocked(time.monotonic())
            elif (
                exchange.blocked_since
                and not self._blocked_since
                and len(waiting) * 2 <= self._listener.send_buffer
            ):
                exchange.unblocked()
        elif stream.ended and stream.task is None:
            self._done(stream)

    def _done(self, stream: Stream) -> None:
        """Ends the stream: the whole answer is being sent, and the rest of the request is not needed (RFC
        9113 8.1)."""
        if not stream.request.over and stream.id in self._streams:
            self._reset(stream.id, _Code.NO_ERROR)
        self._forget(stream)

    def end(self, stream: Stream, code: h2.errors.ErrorCodes) -> None:
        """Resets a stream, and cancels its handler."""
        if self._streams.get(stream.id) is stream:
            self._reset(stream.id, code)
            self._forget(stream)
            self._flush()

    def _forget(self, stream: Stream) -> None:
        if self._streams.pop(stream.id, None) is not None:
            # A stream counts until nothing of it is left: neither bytes that are not sent yet, nor a handler
            # that has not noticed its end.
            if stream.task is None:
                self._left()
            else:
                stream.task.add_done_callback(self._left)
        self._acknowledge(stream)  # its bytes count for the connection's window, too
        self._count(stream, 0)
        stream.exchange = None
        stream.waiting.clear()
        if stream.task is not None:
            self._listener.cancel(stream.task)
            stream.task = None  # a cancelled task that never began would keep it
        self._stream_ended()

    def _stream_ended(self) -> None:
        """Handles the end of a stream: a connection without streams is idle, or can be closed."""
        if not self._streams and self.transport is not None and not self.transport.is_closing():
            self.state, self.since = "idle", time.monotonic()
            if self._leaving or self._listener.closing:
                self._flush()
                self.close()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self.transport is not None and not self.transport.is_closing():
            self._listener.writes.write(self.transport, data)
