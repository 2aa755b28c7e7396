"""One client's socket that speaks HTTP/2: frames to streams and back.

h2 keeps the protocol's state, and refuses violations of it. It leaves to us:

    flow control   bytes that a stream may not send yet wait here; if they are many, or if the socket is full, the
                   upstream is paused
    bounds         streams of one connection (MAX_STREAMS) and of all (`max_connections`), heads (MAX_HEAD), bodies as over
                   HTTP/1.1; streams that are reset as soon as they are begun (CVE-2023-44487), empty and small frames
    the end        GOAWAY with the last stream that is answered; later ones may be sent again elsewhere (RFC 9113 6.8)

Deadlines are looked at once a second, as those of HTTP/1.1: a connection without streams is closed after
`keepalive_timeout` (`header_timeout` before its first), a socket that takes nothing after `write_idle`, and a
stream whose answer is complete when it takes less of it than MIN_RATE for as long.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import Frame, GoAwayFrame

from sluice.server.bodies import Pace
from sluice.server.connection import OVERLOADED_WAIT, Owner, State
from sluice.server.exchange import unmapped
from sluice.server.http1 import FIELD, MAX_HEAD, MAX_LINE, is_host
from sluice.server.http2.exchange import Head, Http2Exchange, http2_exchange
from sluice.server.http2.frames import FrameBounds
from sluice.server.incoming import Incoming
from sluice.wire.fields import by_name

MAX_STREAMS = 100
"""Requests of one connection at a time (SETTINGS_MAX_CONCURRENT_STREAMS)."""
WINDOW, STREAM_WINDOW = 1 << 20, 256 << 10
"""Bytes of bodies that may be on their way: of one connection, and of each of its streams."""
MAX_FRUITLESS = 1000
"""Frames per second without a request or content: pings, settings, empty data; resets of no stream in all."""
MAX_SMALL = 5000
"""Frames per second with less than 256 bytes of data, also of streams that are over. h2 works 14 to 23 us for
each, however little it brings."""
UPDATES = 10
"""Windows that a client may give for each frame of data that it was sent; beyond these MAX_FRUITLESS in all.
Envoy has the same bound (`max_inbound_window_update_frames_per_data_frame_sent`)."""
RESETS = 100
SHORT = 1.0
"""Streams that a client may reset within SHORT seconds of their beginning; beyond it at most half of all
streams."""
_Code = h2.errors.ErrorCodes


class Http2Owner(Owner, Protocol):
    """The listener's interface for connections. `streams`: requests over HTTP/2 that are being answered."""

    streams: int
    max_connections: int
    connections: set[Any]

    def left(self, connection: Any) -> None: ...


class Http2Protocol(h2.connection.H2Connection):
    """h2's connection, except that a client's GOAWAY does not end running streams.

    GOAWAY means that the client begins no more streams (RFC 9113 6.8), but h2 takes the connection for
    closed: it refuses what the client sends afterwards (acknowledgements, windows), and what is sent to it. A
    test checks that this workaround works.
    """

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[h2.events.Event]]:
        before = self.state_machine.state
        events = super()._receive_goaway_frame(frame)
        self.state_machine.state = before
        return events


class Stream:
    """One request and its response. `waiting`: bytes of the response that may not be sent yet; `last`: no
    more will follow.

    `pace`: the deadline of the rest, once the answer is complete and no handler waits for it any more.
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
        """Answers `Expect: 100-continue`."""
        self.connection.go_on(self)

    def send(self, head: Head | None, data: bytes, *, last: bool) -> None:
        self.connection.send(self, head, data, last=last)

    def reset(self) -> None:
        self.connection.end(self, _Code.INTERNAL_ERROR)

    def give_up(self) -> None:
        """Drops the body: of all requests it was silent for the longest time, and the memory for unfinished
        bodies is used up.
        """
        self.kept = 0
        self.request.given_up = True
        self.request.content = b""
        self.moved()

    def read_on(self) -> None:
        """Continues reading: the exchange has taken the bytes of the body that have arrived, or wants all of
        it."""
        self.connection.read_on(self)

    def moved(self) -> None:
        if self.exchange is not None:
            self.exchange.body_moved()


class Http2Connection(asyncio.Protocol):
    """`transport` is open already, and nothing of the client's preface has been read."""

    def __init__(self, listener: Http2Owner, transport: asyncio.Transport) -> None:
        self._listener = listener
        self.transport: asyncio.Transport | None = transport
        peername = transport.get_extra_info("peername")
        self.peer = unmapped(str(peername[0])) if isinstance(peername, tuple) else ""
        self.state: State = "head"
        self.since = time.monotonic()
        self._blocked_since = 0.0
        self._begun = self._resets = 0
        self._sent = 0  # frames of data
        self._wider: set[int] = set()  # streams whose windows have grown; 0: all of them
        self._leaving = False
        self._bounds = FrameBounds()
        self._streams: dict[int, Stream] = {}
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._h2 = Http2Protocol(config)
        self._h2.decoder.max_header_list_size = MAX_HEAD
        settings = {
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        }
        self._h2.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self._h2.initiate_connection()
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
        if not self._bounds.hold(data):
            self._listener.broken(400)
            self._h2.close_connection(_Code.FRAME_SIZE_ERROR)
            self._refuse()
            return
        if self._is_flood():  # before h2 works through it
            self._end_flood()
            return
        try:
            for event in self._h2.receive_data(data):
                self._heard(event)
        except h2.exceptions.ProtocolError:  # h2 has the GOAWAY ready
            self._listener.broken(400)
            self._refuse()
            return
        if self._is_flood():
            self._end_flood()
            return
        self._pump_wider()
        self._flush()

    def _is_flood(self) -> bool:
        bounds, begun = self._bounds, self._begun
        return (
            bounds.fruitless > MAX_FRUITLESS
            or bounds.small > MAX_SMALL
            or bounds.updates > MAX_FRUITLESS + 2 * begun + UPDATES * self._sent
            or bounds.resets > MAX_FRUITLESS + begun
            or (self._resets > RESETS and self._resets * 2 > begun)
        )

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
        """The exchange of one of the requests that are being answered, if there is any."""
        return next(
            (stream.exchange for stream in self._streams.values() if stream.exchange is not None), None
        )

    @property
    def tasks(self) -> "Sequence[asyncio.Task[None]]":
        return [stream.task for stream in self._streams.values() if stream.task is not None]

    def look(self, now: float) -> None:
        """Closes what has taken too long; tells the client to leave if the listener is draining."""
        bounds = self._listener.bounds
        self._bounds.fruitless = self._bounds.small = 0
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
        """Tells the client to leave, and closes after what is written; if answers are under way, after their
        ends."""
        self._leave()
        if self.transport is not None and not self._streams:
            self.state, self.since = "unread", time.monotonic()
            self._listener.writes.flush()
            self.transport.close()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _leave(self) -> None:
        """Sends the one GOAWAY. Not by h2, which would send nothing more afterwards."""
        if not self._leaving and self.transport is not None:
            self._leaving = True
            frame = GoAwayFrame(
                0, last_stream_id=self._h2.highest_inbound_stream_id, error_code=int(_Code.NO_ERROR)
            )
            self._listener.writes.write(self.transport, frame.serialize())

    def _refuse(self) -> None:
        """Closes after h2's last frame; the streams end with the connection."""
        self._flush()
        self._leaving = True
        if self.transport is not None:
            self._listener.writes.flush()
            self.transport.close()

    # --- frames come

    def _heard(self, event: h2.events.Event) -> None:
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
                    self._resets += stream.task is not None and time.monotonic() - stream.started < SHORT
                    self._forget(stream)
            case h2.events.WindowUpdated(stream_id=int(id)):
                self._wider.add(id)
            case h2.events.RemoteSettingsChanged():
                self._wider.add(0)
            case h2.events.ConnectionTerminated():
                self._leaving = True
                self._after()

    def _begin(self, event: h2.events.RequestReceived) -> None:
        id, listener = event.stream_id, self._listener
        if self._leaving:
            self._reset(id, _Code.REFUSED_STREAM)
            return
        self._begun += 1
        request = _request_of(event.headers)
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
            padded = event.flow_controlled_length > 0  # what is empty altogether the bounds have counted
            self._bounds.fruitless += event.stream_ended is None and padded
        elif stream is not None and not stream.request.given_up:
            request = stream.request
            request.add(data, self._listener.body_limit)
            if stream.task is None:  # it has been answered
                request.content = b""
            self._count(stream, len(request.content))
            stream.moved()

    def read_on(self, stream: Stream) -> None:
        """Lets the client send as much again as has been taken: an unread body is kept up to one window."""
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

    # --- answers go

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
                self._sent += 1
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
        """Ends the stream: the whole answer is being sent, and the rest of the request is not wanted (RFC
        9113 8.1)."""
        if not stream.request.over and stream.id in self._streams:
            self._reset(stream.id, _Code.NO_ERROR)
        self._forget(stream)

    def end(self, stream: Stream, code: h2.errors.ErrorCodes) -> None:
        """Resets a stream, and ends its handler."""
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
        self._after()

    def _after(self) -> None:
        """Handles the end of a stream: without streams the connection is idle, or can close."""
        if not self._streams and self.transport is not None and not self.transport.is_closing():
            self.state, self.since = "idle", time.monotonic()
            if self._leaving or self._listener.closing:
                self._flush()
                self.close()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self.transport is not None and not self.transport.is_closing():
            self._listener.writes.write(self.transport, data)


def _request_of(headers: list[tuple[bytes, bytes]]) -> Incoming | None:
    """Returns the request of a head that h2 has found valid; None if it has a form for which HTTP/1.1
    requests are refused, too.
    """
    pseudo = {name: value for name, value in headers if name[:1] == b":"}
    pairs = [(bytes(name), bytes(value)) for name, value in headers if name[:1] != b":"]
    if b":authority" in pseudo and not any(name == b"host" for name, _ in pairs):
        pairs.append((b"host", pseudo[b":authority"]))
    target = pseudo.get(b":path", b"").decode("latin-1")
    fields = by_name(pairs)
    method = pseudo.get(b":method", b"").decode("latin-1")
    size = sum(len(name) + len(value) + FIELD for name, value in pairs)
    longest = max([len(name) + len(value) for name, value in pairs], default=0)
    if (
        method == "CONNECT"
        or "#" in target
        or len(target) > MAX_LINE
        or longest > MAX_LINE
        or size > MAX_HEAD
    ):
        return None
    length = fields.get("content-length", "-1")
    if not is_host(fields.get("host", "")) or not length.lstrip("-").isdigit():
        return None
    return Incoming(method, target, (2, 0), pairs, fields, True, int(length), size)
