"""Calls of gRPC over HTTP/2 (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): streams, as an
endpoint picker is asked, and single messages, as OTLP sends them.

h2 keeps the protocol's state. A connection carries many streams; a stream sends messages and receives them
until the server ends it. It counts towards the server's bound (RFC 9113 5.1.2) until both sides have ended
it: one that the server has ended is reset, if we have not ended it, and one that we have ended counts until
the server does. Nothing is compressed here, and nothing is sent twice. Imported only for an upstream with a
`picker` and for OTLP over gRPC; h2 is of the extra `http2`.
"""

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Iterable
from typing import cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from sluice.errors import UpstreamError
from sluice.wire.grpc_status import (
    CANCELLED,
    INTERNAL,
    NAMES,
    OK,
    UNAVAILABLE,
    UNKNOWN,
    code_of,
    code_of_http,
)

WINDOW = 1 << 20
"""Bytes that the server may have in flight to the gateway: of a connection, and of each stream."""
MAX_MESSAGE = 5 << 20
MAX_RECEIVED = 64 << 20
"""Bytes of one message, and of all that one stream receives."""
CONNECTIONS = 8
"""Maximum connections to one server; another is opened if the server bounds the streams of each."""
CONNECT = 5.0
"""Seconds for a connection and the server's settings: all calls that need one wait for the same."""
ENDING = 1024
"""Maximum streams of a connection that this side has ended and the server has not; beyond it the oldest is
reset."""


class GrpcFailed(UpstreamError):
    """The server ended a stream with an error, or its connection broke. `grpc`: its status. `details`: the
    value of `grpc-status-details-bin`, "" if there is none."""

    def __init__(self, text: str, grpc: int = UNAVAILABLE, details: str = "") -> None:
        super().__init__("connect_error", text)
        self.grpc = grpc
        self.details = details


class GrpcStream:
    """One call. `send` and `finish` never wait: bytes that flow control holds back are kept."""

    def __init__(self, connection: "GrpcConnection", id: int) -> None:
        self._connection = connection
        self.id = id
        self.out = bytearray()
        self.finished = False  # this side sends no more, and nobody reads
        self.unread = False  # nobody reads any more
        self.last = False  # this side sends no more
        self.half_closed = False  # and the server has been told so
        self.status: int | None = None
        self._in = bytearray()
        self._received = 0
        self._messages: deque[bytes] = deque()
        self._ended: GrpcFailed | None = None
        self._waiter: asyncio.Future[None] | None = None

    def send(self, message: bytes, *, compressed: bool = False, last: bool = False) -> None:
        """Sends a message. `compressed`: it is compressed, as the call's `grpc-encoding` says. `last`: there
        is no further one; answers are still received."""
        if not self.last and self._ended is None:
            self.out += compressed.to_bytes(1, "big") + len(message).to_bytes(4, "big") + message
            self.last = last
            self._connection.pump(self)

    def finish(self) -> None:
        """Sends no more. The server ends the stream then, and what it still sends is ignored."""
        if not self.finished and self._ended is None:
            self.finished = self.last = True
            self._connection.pump(self)

    def ignore(self) -> None:
        """Drops the messages that have arrived and will arrive. Messages can still be sent."""
        self.unread = True
        self._messages.clear()
        self._in.clear()

    def cancel(self) -> None:
        """Ends the stream at once, if it has not ended."""
        self._connection.cancel(self)

    async def receive(self) -> bytes:
        """Returns the next message. Raises GrpcFailed if the stream ends before there is one."""
        while not self._messages:
            if self._ended is not None:
                raise self._ended
            await self._more()
        return self._messages.popleft()

    async def answer(self) -> bytes:
        """Returns the only message of a call that has one. Raises GrpcFailed if the call ends in an error."""
        while self._ended is None:
            await self._more()
        if self._ended.grpc != OK:
            raise self._ended
        if len(self._messages) != 1:
            raise GrpcFailed("the server did not answer with one message", INTERNAL)
        return self._messages.popleft()

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # --- from the connection

    def came(self, data: bytes) -> bool:
        """Returns whether a server may send this."""
        self._received += len(data)
        if self.finished or self.unread:
            return self._received <= MAX_RECEIVED
        self._in += data
        while len(self._in) >= 5:
            size = int.from_bytes(self._in[1:5], "big")
            if self._in[0] or size > MAX_MESSAGE:
                return False
            if len(self._in) < 5 + size:
                break
            self._messages.append(bytes(self._in[5 : 5 + size]))
            del self._in[: 5 + size]
        self._wake()
        return self._received <= MAX_RECEIVED

    def ended(self, why: GrpcFailed) -> None:
        self._ended = self._ended or why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class GrpcConnection(asyncio.Protocol):
    """One connection. `usable`: new streams may begin on it. `ready` is done when the server's settings, with
    its bound on streams, have arrived, or the connection has closed."""

    def __init__(self, name: str, scheme: str) -> None:
        self._name, self._scheme = name, scheme
        self._streams: dict[int, GrpcStream] = {}
        self._ending: dict[
            int, None
        ] = {}  # those that this side has ended and the server has not, oldest first
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="latin-1")
        )
        self._transport: asyncio.Transport | None = None
        self.usable = True
        self.heard_at = asyncio.get_running_loop().time()
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        settings = {
            h2.settings.SettingCodes.ENABLE_PUSH: 0,
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
        }
        self._h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW - 65535)
        self._flush()

    @property
    def free(self) -> bool:
        bound = self._h2.remote_settings.max_concurrent_streams
        return self.usable and len(self._streams) + len(self._ending) < bound

    def begin(self, path: str, metadata: Iterable[tuple[str, str]] = ()) -> GrpcStream:
        """Begins a stream; the connection must be `free`. Raises GrpcFailed if it has had all streams that a
        connection can have."""
        try:
            id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(id, [
                (":method", "POST"), (":scheme", self._scheme), (":path", path), (":authority", self._name),
                ("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "sluice"), *metadata,
            ])  # fmt: skip
        except h2.exceptions.ProtocolError as error:
            self.usable = False
            raise GrpcFailed(f"{self._name} takes no more calls") from error
        stream = self._streams[id] = GrpcStream(self, id)
        self._flush()
        return stream

    def pump(self, stream: GrpcStream) -> None:
        """Sends as much of a stream as flow control allows."""
        if self._streams.get(stream.id) is not stream:
            return
        try:
            while stream.out:
                size = min(
                    self._h2.local_flow_control_window(stream.id),
                    self._h2.max_outbound_frame_size,
                    len(stream.out),
                )
                if size <= 0:
                    break
                self._h2.send_data(stream.id, bytes(stream.out[:size]))
                del stream.out[:size]
            if stream.last and not stream.out:
                if not stream.half_closed:
                    self._h2.end_stream(stream.id)
                    stream.half_closed = True
                if stream.finished:
                    del self._streams[stream.id]
                    self._ending[stream.id] = None
                    if len(self._ending) > ENDING:
                        self._reset(next(iter(self._ending)))
        except h2.exceptions.ProtocolError:
            self._drop(stream, GrpcFailed(f"{self._name} ended the call"))
        self._sent()

    def leave(self) -> None:
        """Begins no more streams, and closes when the last of its streams has ended."""
        self.usable = False
        self._sent()

    def cancel(self, stream: GrpcStream) -> None:
        self._drop(stream, GrpcFailed("the call was cancelled", CANCELLED))
        self._sent()

    def close(self) -> None:
        self.usable = False
        self._known()
        if self._transport is not None:
            self._transport.abort()

    # --- for the event loop

    def data_received(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self._flush()
            self.close()
            return
        for event in events:
            self._heard(event)
        self._sent()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._transport = None
        self._known()
        for stream in [*self._streams.values()]:
            self._drop(stream, GrpcFailed(f"{self._name} closed the connection"))

    # --- inside

    def _heard(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                stream = self._streams.get(event.stream_id)
                if stream is not None and not stream.came(event.data):
                    self._drop(stream, GrpcFailed(f"{self._name} sent what is no message", INTERNAL))
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    headers = {str(name): str(value) for name, value in event.headers or ()}
                    self._headers(stream, headers, ended=event.stream_ended is not None)
            case h2.events.StreamEnded() | h2.events.StreamReset():
                self._ending.pop(event.stream_id, None)
                stream = self._streams.get(event.stream_id)
                if stream is not None:
                    status = stream.status if isinstance(event, h2.events.StreamEnded) else UNAVAILABLE
                    code = UNKNOWN if status is None else status
                    self._drop(stream, GrpcFailed(f"{self._name} ended the call", code), ended=True)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._known()  # settings are the first frame of a server
                for waiting in [*self._streams.values()]:
                    if waiting.out or waiting.last:
                        self.pump(waiting)
            case h2.events.ConnectionTerminated():
                self.usable = False
                for left in [*self._streams.values()]:  # h2 sends nothing on them any more
                    self._drop(left, GrpcFailed(f"{self._name} is going away"))

    def _headers(self, stream: GrpcStream, headers: dict[str, str], *, ended: bool) -> None:
        """Handles a response's head or its trailers; `ended`: nothing comes after them."""
        if (status := headers.get(":status", "200")) != "200":
            self._drop(
                stream, GrpcFailed(f"{self._name} answered {status}", code_of_http(status)), ended=ended
            )
        elif "grpc-status" in headers:
            stream.status = code = code_of(headers["grpc-status"])
            if code != OK:
                why = f"{self._name} ended the call with gRPC's status {NAMES[code]}"
                details = headers.get("grpc-status-details-bin", "")
                self._drop(stream, GrpcFailed(why, code, details), ended=ended)

    def _drop(self, stream: GrpcStream, why: GrpcFailed, *, ended: bool = False) -> None:
        """Ends a stream on both sides, because h2 and the server would count it until then. `ended`: the
        server has ended it."""
        if self._streams.pop(stream.id, None) is not None:
            if not (ended and stream.half_closed):
                self._reset(stream.id)
            stream.ended(why)

    def _reset(self, id: int) -> None:
        self._ending.pop(id, None)
        with contextlib.suppress(
            h2.exceptions.ProtocolError
        ):  # both have ended it, or the connection is gone
            self._h2.reset_stream(id, h2.errors.ErrorCodes.CANCEL)

    def _known(self) -> None:
        if not self.ready.done():
            self.ready.set_result(None)

    def _sent(self) -> None:
        """Sends the bytes that h2 has made; closes a connection that is no longer needed."""
        self._flush()
        if not self.usable and not self._streams:
            self.close()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)


class GrpcChannel:
    """Connections to one server, opened when they are needed. `tls`: the context; None: not encrypted."""

    def __init__(self, host: str, port: int, name: str, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self.name = host, port, name
        self._tls = tls
        self._connections: list[GrpcConnection] = []
        self._opening: asyncio.Task[None] | None = None

    async def unary(
        self, path: str, message: bytes, metadata: Iterable[tuple[str, str]] = (), *, compressed: bool = False
    ) -> bytes:
        """Sends one message and returns the answer. Raises GrpcFailed; the caller bounds the time.

        `path`: /package.Service/Method. `metadata`: names in lower case. `compressed`: see `GrpcStream.send`.
        """
        stream = await self.begin(path, metadata)
        try:
            stream.send(message, compressed=compressed, last=True)
            return await stream.answer()
        finally:
            stream.cancel()

    async def begin(self, path: str, metadata: Iterable[tuple[str, str]] = ()) -> GrpcStream:
        """Begins a stream. Raises GrpcFailed; the caller bounds the time."""
        while (free := self._free()) is None:
            if len(self._connections) >= CONNECTIONS:
                raise GrpcFailed(f"{self.name} takes no more calls at a time")
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(self._open())
                self._opening.add_done_callback(self._opened)
            await asyncio.shield(self._opening)  # more calls may wait for it than it can take
        return free.begin(path, metadata)

    def _free(self) -> GrpcConnection | None:
        self._connections = [connection for connection in self._connections if connection.usable]
        return next((connection for connection in self._connections if connection.free), None)

    def leave_silent(self, seconds: float) -> None:
        """Begins no more streams on connections that have been silent for so long: their other end may be
        gone without having closed them. To be called if an answer did not come in time."""
        since = asyncio.get_running_loop().time() - seconds
        for connection in [*self._connections]:
            if connection.heard_at <= since:
                connection.leave()

    def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
        for connection in self._connections:
            connection.close()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        scheme = "https" if self._tls is not None else "http"
        connection = None
        try:
            async with asyncio.timeout(CONNECT):
                _, connection = await loop.create_connection(
                    lambda: GrpcConnection(self.name, scheme), self._host, self._port, ssl=self._tls
                )
                await asyncio.shield(connection.ready)
        except OSError as error:  # TLS's errors and TimeoutError are such
            raise GrpcFailed(f"{self.name} could not be connected to") from error
        finally:
            if connection is not None and not connection.ready.done():
                connection.close()
        if not connection.free:
            connection.close()
            raise GrpcFailed(f"{self.name} closed the connection, or takes no calls")
        self._connections.append(connection)

    def _opened(self, task: "asyncio.Task[None]") -> None:
        self._opening = None
        if not task.cancelled():
            task.exception()  # callers that wait for it get the error
