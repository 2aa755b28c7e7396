"""The only place that knows aiohttp's server: connections, requests, and how answers get onto a socket.

aiohttp parses requests and keeps connections alive; what it would do per answer (response objects, its own access
log, error pages that quote the caller's bytes) is not used. An `Exchange` is one request and its answer: it writes
head, chunks and end straight to the transport, one write per call, and pauses the upstream while the client does not
read. Cancellation is on: when a client leaves, its handler's task is cancelled, and with it the upstream call.

Bounds: headers by aiohttp's parser and `header_timeout`, bodies by `body_limit` and `body_timeout`, connections by
`max_connections`, the kernel's and our own send buffers by `send_buffer`. A half-closed client counts as gone.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from gateway.config import Server as ServerConfig
from gateway.errors import BadRequest, PayloadTooLarge, RequestTimeout
from gateway.transport import UpstreamResponse

Pairs = Iterable[tuple[str, str]]
Dispatch = Callable[["Exchange"], Awaitable[None]]

NO_STORE = b"Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n"
MIN_RATE = 1024
"""Bytes per second of a body that may take longer than `body_timeout`."""
GRACE = 5.0
REASONS = {status.value: status.phrase for status in HTTPStatus}
OVERLOADED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
BAD_REQUEST = b'{"error":{"message":"The request is not valid HTTP","type":"invalid_request_error","code":"bad_http"}}'


class _Sent:
    """Tells aiohttp that the answer is out already."""

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


_KEEP = cast(web.StreamResponse, _Sent(True))
_CLOSE = cast(web.StreamResponse, _Sent(False))


class Connection(web.RequestHandler):
    """A client's connection: aiohttp's, with flow control handed to the exchange and a deadline for headers."""

    __slots__ = ("exchange", "head_since", "listener")

    def __init__(self, listener: "Listener", **options: Any) -> None:
        super().__init__(listener, **options)
        self.listener = listener
        self.exchange: Exchange | None = None
        self.head_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.head_since = time.monotonic()
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=self.listener.config.send_buffer)
        if len(self.listener.connections) > self.listener.config.max_connections:
            cast(asyncio.Transport, transport).write(OVERLOADED)
            self.force_close()

    def data_received(self, data: bytes) -> None:
        if not self.head_since and self.exchange is None:
            self.head_since = time.monotonic()
        super().data_received(data)
        if self._messages or self.exchange is not None:
            self.head_since = 0.0

    def eof_received(self) -> None:
        if self.exchange is not None and self.transport is not None:
            self.transport.abort()  # else what is unsent would keep the call alive until it has been flushed

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.blocked(time.monotonic())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.unblocked()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is not HTTP gets an answer that quotes nothing of it, and the connection is closed."""
        exchange = Exchange(request, self)
        exchange.close_after = True
        exchange.reply(400 if status == 400 else 500, BAD_REQUEST if status == 400 else b"{}")
        self.listener.broken(status)
        return _CLOSE


class Listener(web.Server):
    """One listening socket's connections. `broken` is told the status of requests that were not HTTP, or crashed."""

    def __init__(self, dispatch: Dispatch, config: ServerConfig, broken: Callable[[int], None]) -> None:
        super().__init__(self._handle, request_factory=self._request, handler_cancellation=True)
        self.config = config
        self.broken = broken
        self.draining = False
        self.date = _Date()
        self._dispatch = dispatch

    def __call__(self) -> Connection:
        return Connection(
            self,
            loop=self._loop,
            access_log=None,
            keepalive_timeout=float(self.config.keepalive_timeout),
            auto_decompress=False,
            max_line_size=8190,
            max_field_size=8190,
            lingering_time=2.0,
        )

    def _request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=int(self.config.body_limit) + 1
        )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        if not _plain(request):
            return connection.handle_error(request, 400)
        exchange = Exchange(request, connection)
        connection.exchange = exchange
        try:
            await self._dispatch(exchange)
        finally:
            connection.exchange = None
        return _CLOSE if exchange.close_after else _KEEP

    def sweep(self, now: float) -> None:
        """Close connections whose request head has been coming for too long."""
        for connection in self.connections:
            since = cast(Connection, connection).head_since
            if since and now - since > self.config.header_timeout:
                connection.force_close()

    async def bind(self, address: str, backlog: int = 4096) -> asyncio.Server:
        """Listen on "HOST:PORT". Raises OSError."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it; the kernel doubles what is set.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(self.config.send_buffer) // 2)
            listening.bind((host, int(port)))
            listening.setblocking(False)
            return await self._loop.create_server(self, sock=listening, backlog=backlog)
        except BaseException:
            listening.close()
            raise


class Exchange:
    """One request and its answer; the client's side of a call (`gateway.call.Outlet`)."""

    __slots__ = (
        "_chunked", "_connection", "_date", "_head", "_request", "_transport", "_upstream", "_writable", "begun",
        "blocked_since", "caller", "close_after", "extra", "last_write", "path", "received", "status",
    )  # fmt: skip

    def __init__(self, request: web.BaseRequest, connection: Connection) -> None:
        self.received = time.monotonic()
        self.path = _path_of(request.raw_path)
        self.close_after = connection.listener.draining or not request.keep_alive or request.version < (1, 1)
        self.begun = False
        self.blocked_since = 0.0
        self.last_write = 0.0
        self.status = 0
        self.caller: str | None = None
        """The key that the request was found to come with, for the log."""
        self.extra: list[tuple[str, str]] = []
        """Headers for whatever will be answered (request id, CORS …)."""
        self._request = request
        self._connection = connection
        self._date = connection.listener.date
        self._transport = connection.transport
        self._upstream: UpstreamResponse | None = None
        self._writable: asyncio.Event | None = None
        self._head = b""
        self._chunked = True

    # --- the request

    @property
    def method(self) -> str:
        return self._request.method

    @property
    def headers(self) -> Mapping[str, str]:
        """Case-insensitive."""
        return self._request.headers

    @property
    def raw_headers(self) -> Sequence[tuple[bytes, bytes]]:
        return self._request.raw_headers

    @property
    def query(self) -> Mapping[str, str]:
        return self._request.rel_url.query

    @property
    def peer(self) -> str:
        """The address of the other end of the connection; "" where it has none (a Unix socket)."""
        peername = self._connection.peername
        return str(peername[0]) if isinstance(peername, tuple) else ""

    async def body(self) -> bytes:
        """The whole body. Raises PayloadTooLarge, RequestTimeout, BadRequest (broken framing).

        It may take `body_timeout`, or longer for as long as it comes at MIN_RATE.
        """
        request, config = self._request, self._connection.listener.config
        try:
            if (request.content_length or 0) > config.body_limit:
                raise self._too_large()
            if request.headers.get("Expect", "").lower() == "100-continue" and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if request.content.is_eof():
                body = request.content.read_nowait()
                if len(body) > config.body_limit:
                    raise self._too_large()
                return body
            return await self._slow_body(float(config.body_timeout), int(config.body_limit))
        except web.HTTPRequestEntityTooLarge:
            raise self._too_large() from None
        except TimeoutError:
            self.close_after = True
            raise RequestTimeout("The body did not arrive in time") from None
        except (HttpProcessingError, RequestPayloadError, ValueError):
            self.close_after = True
            raise BadRequest("The body's framing is broken") from None

    async def _slow_body(self, patience: float, limit: int) -> bytes:
        content, loop = self._request.content, asyncio.get_running_loop()
        body = bytearray()
        started = loop.time()
        async with asyncio.timeout_at(started + patience) as deadline:
            while piece := await content.readany():
                body += piece
                if len(body) > limit:
                    raise self._too_large()
                deadline.reschedule(started + max(patience, GRACE + len(body) / MIN_RATE))
        return bytes(body)

    def _too_large(self) -> PayloadTooLarge:
        self.close_after = True
        return PayloadTooLarge(f"The body may have {int(self._connection.listener.config.body_limit)} bytes")

    # --- a whole answer

    def reply(self, status: int, body: bytes, headers: Pairs = (), content_type: str = "application/json") -> None:
        """Head and body in one write."""
        self.status = status
        self.begun = True
        content = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n" if status != 204 else ""
        head = (
            f"HTTP/1.1 {status} {REASONS.get(status, '')}\r\nDate: {self._date()}\r\n{content}"
            f"Cache-Control: no-store\r\n{self._fields(headers)}\r\n"
        )
        self._write(head.encode("latin-1") + (b"" if self._request.method == "HEAD" else body))

    def _fields(self, headers: Pairs) -> str:
        fields = "".join([f"{name}: {value}\r\n" for name, value in (*self.extra, *headers)])
        return fields + "Connection: close\r\n" if self.close_after else fields

    def _write(self, data: bytes) -> None:
        self.last_write = time.monotonic()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    # --- a streamed answer

    def begin(self, content_type: str, headers: Pairs = ()) -> None:
        """The head of a 200; it leaves with the first chunk."""
        self.status = 200
        self.begun = True
        self._chunked = self._request.version >= (1, 1)
        self._head = (
            f"HTTP/1.1 200 OK\r\nDate: {self._date()}\r\nContent-Type: {content_type}\r\n{self._fields(headers)}"
        ).encode("latin-1") + NO_STORE

    def write(self, data: bytes, *, last: bool = False) -> None:
        """One chunk (of no bytes: the head alone); `last` ends the body with it."""
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if last else b"%x\r\n%b\r\n" % (len(data), data)
            elif last:
                data = b"0\r\n\r\n"
        if self._head:
            data = self._head + (b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n") + data
            self._head = b""
        self._write(data)

    def attach(self, upstream: UpstreamResponse | None) -> None:
        """Whom to pause while the client does not read."""
        self._upstream = upstream
        if upstream is not None and self.blocked_since:
            upstream.pause()

    def blocked(self, now: float) -> None:
        self.blocked_since = now
        if self._upstream is not None:
            self._upstream.pause()

    def unblocked(self) -> None:
        self.blocked_since = 0.0
        if self._upstream is not None:
            self._upstream.resume()
        if self._writable is not None:
            self._writable.set()

    async def writable(self) -> None:
        """Waits while the client does not read; for who writes at its pace and has no upstream to pause."""
        if self.blocked_since:
            self._writable = asyncio.Event()
            await self._writable.wait()

    def detach(self) -> None:
        """The client has left, and the call goes on without it: nothing is written, nothing holds the upstream up."""
        self._transport = None
        self.unblocked()

    def abort(self) -> None:
        """Close the connection at once, unsent bytes included; the handler is cancelled."""
        if self._transport is not None:
            self._transport.abort()


def _plain(request: web.BaseRequest) -> bool:
    """HTTP/1.0 or 1.1 whose body is framed in a way that no proxy before us can have read differently (RFC 9112 6.1)."""
    if "Transfer-Encoding" not in request.headers:
        return (1, 0) <= request.version <= (1, 1)
    codings = ",".join(request.headers.getall("Transfer-Encoding"))
    return request.version == (1, 1) and codings.lower() == "chunked"


def _path_of(target: str) -> str:
    """The path of a request's target in origin-form or absolute-form (RFC 9112 3.2)."""
    path = target.partition("?")[0]
    if path.startswith("/"):
        return path
    _, _, rest = path.partition("://")
    return "/" + rest.partition("/")[2] if rest else path


class _Date:
    """The Date header's text (RFC 9110 5.6.7), made once a second."""

    __slots__ = ("second", "text")

    def __init__(self) -> None:
        self.second = 0
        self.text = ""

    def __call__(self) -> str:
        second = int(time.time())
        if second != self.second:
            self.second = second
            self.text = formatdate(second, usegmt=True)
        return self.text
