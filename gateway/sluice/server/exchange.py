"""One request and its answer: the client's side of a call (`sluice.proxy.writer.ResponseWriter`).

It writes head, chunks and end straight to the transport, one write per call, and pauses the upstream while
the client does not read. It only waits for bodies that have not arrived yet.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Protocol
from urllib.parse import parse_qsl

import msgspec

from sluice.aio.write_batch import WriteBatch
from sluice.backends.transport import UpstreamResponse
from sluice.errors import BadRequest, PayloadTooLarge, RequestTimeout, Unavailable
from sluice.server.bodies import Pace
from sluice.server.incoming import Incoming

Pairs = Sequence[tuple[str, str]]

NOT_FOR_PAGES = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)
"""Headers of all responses. None is a page: a browser that opens one must not guess its type, frame it, or
send a referrer."""
NO_STORE_FIELDS = (("Cache-Control", "no-store, no-transform"), ("X-Accel-Buffering", "no"), *NOT_FOR_PAGES)
"""For streamed answers: no cache stores them, and no proxy buffers them."""
_field = ": ".join
_NOT_FOR_PAGES = "".join(f"{_field(field)}\r\n" for field in NOT_FOR_PAGES)
NO_STORE = "".join(f"{_field(field)}\r\n" for field in NO_STORE_FIELDS)
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
RETRY_AFTER = 1.0
"""Seconds of the Retry-After for a body that was dropped for lack of memory."""
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class ClientConnection(Protocol):
    """The connection's interface for the exchange."""

    peer: str
    transport: asyncio.Transport | None

    def read_on(self) -> None: ...


class Terms(Protocol):
    """The listener's interface for exchanges: bounds, and what all exchanges share."""

    loop: asyncio.AbstractEventLoop
    writes: WriteBatch
    draining: bool
    body_limit: int
    body_timeout: float

    @property
    def date(self) -> Callable[[], str]: ...


class HttpExchange(msgspec.Struct, eq=False):
    """`received`: when the head was complete (monotonic). `complete`: the whole answer has been written.

    `caller`: the id of the request's key, for the log. `extra`: headers of any answer (request id, CORS …).
    `parameters`: the values in the path for the names in its route. `bytes_out`: of the answer's body, as far
    as it has been written. `rename` translates the answer's own headers, but `extra`, to a dialect's names.
    """

    request: Incoming
    method: str
    headers: Mapping[str, str]
    path: str
    peer: str
    received: float
    close_after: bool
    _connection: ClientConnection
    _listener: Terms
    _transport: "asyncio.Transport | None"
    begun: bool = False
    complete: bool = False
    blocked_since: float = 0.0
    last_write: float = 0.0
    status: int = 0
    caller: str | None = None
    extra: list[tuple[str, str]] = []
    parameters: Mapping[str, str] = NO_PARAMETERS
    bytes_out: int = 0
    rename: Callable[[Pairs], Pairs] | None = None
    _upstream: UpstreamResponse | None = None
    _writable: asyncio.Event | None = None
    _moved: "asyncio.Future[None] | None" = None
    _head: bytes = b""
    _chunked: bool = True

    __repr__ = object.__repr__  # it holds a key

    # --- the request

    @property
    def raw_headers(self) -> Sequence[tuple[bytes, bytes]]:
        request = self.request
        return request.pairs or [(name.encode(), value.encode()) for name, value in request.fields.items()]

    @property
    def query(self) -> Mapping[str, str]:
        return query_of(self.request.target)

    @property
    def bytes_in(self) -> int:
        """Bytes of the request's body that have arrived, as they were sent."""
        return self.request.size

    def body_now(self) -> bytes | None:
        """Returns the whole body if it has arrived and is not too large; else None: then `body` waits for it,
        or raises the error.
        """
        request = self.request
        return request.body() if request.over and request.size <= self._listener.body_limit else None

    async def body(self) -> bytes:
        """Returns the whole body.

        Raises PayloadTooLarge, RequestTimeout, BadRequest for invalid framing, and Unavailable if it was
        dropped to free memory for others. It may take `body_timeout` seconds, or longer while it arrives at
        `bodies.MIN_RATE` or faster.
        """
        request = self.request
        if request.length > self._listener.body_limit:
            raise self._too_large()
        if not request.over:
            try:
                await self._rest_of_body(request)
            except TimeoutError:
                self.close_after = True
                raise RequestTimeout("The body did not arrive in time") from None
        if request.size > self._listener.body_limit:
            raise self._too_large()
        return request.body()

    async def pieces(self, limit: int) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, at most `limit` bytes; a slow reader of this slows the client down.
        Raises what `body` does."""
        request = self.request
        if request.size > len(request.content):  # too much arrived before it was read
            raise self._too_large()
        request.limit = limit
        pace = Pace(self._listener.body_timeout, self._listener.loop.time())
        self._go_ahead(request)
        while True:
            if max(request.length, request.size) > limit:
                raise self._too_large(limit)
            over = request.over
            if piece := request.taken():
                self._connection.read_on()
                yield piece
            if over:
                return
            if not piece:
                try:
                    await self._more(request, pace)
                except TimeoutError:
                    self.close_after = True
                    raise RequestTimeout("The body did not arrive in time") from None

    async def _rest_of_body(self, request: Incoming) -> None:
        request.whole = True
        self._connection.read_on()
        self._go_ahead(request)
        pace = Pace(self._listener.body_timeout, self._listener.loop.time())
        while not request.over:
            if request.size > self._listener.body_limit:
                raise self._too_large()
            await self._more(request, pace)

    def _go_ahead(self, request: Incoming) -> None:
        """Asks a client that waits for it (RFC 9110 10.1.1) to send the body."""
        if request.over:
            return
        expected = request.version == (1, 1) and request.fields.get("expect", "").lower() == "100-continue"
        if expected and self._transport is not None:
            self._listener.writes.write(self._transport, b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _more(self, request: Incoming, pace: Pace) -> None:
        """Waits for more of the body. Raises TimeoutError, BadRequest, Unavailable."""
        loop = self._listener.loop
        if request.given_up:
            self.close_after = True
            raise Unavailable(
                "Too many bodies are on their way; this one was given up", retry_after=RETRY_AFTER
            )
        if request.broken:
            self.close_after = True
            raise BadRequest("The body's framing is broken")
        size = request.size
        self._moved = loop.create_future()
        try:
            async with asyncio.timeout_at(pace.due):
                await self._moved
        finally:
            self._moved = None  # when cancelled, the future refers to the frame that refers to this object
        pace.came(request.size - size, loop.time())

    def body_moved(self) -> None:
        """Notes that more of the body has arrived, or that it is invalid or was dropped."""
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    def _too_large(self, limit: int = 0) -> PayloadTooLarge:
        self.close_after = True
        return PayloadTooLarge(f"The body may have {limit or self._listener.body_limit} bytes")

    # --- a whole answer

    def reply(
        self,
        status: int,
        body: bytes,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = "application/json",
    ) -> None:
        """Writes head and body at once. A `Cache-Control` that is the first of `headers` replaces
        no-store."""
        bodiless = status in (204, 304)
        content = "" if bodiless else f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        store = "" if headers and headers[0][0] == "Cache-Control" else "Cache-Control: no-store\r\n"
        line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
        head = (
            f"{line}Date: {self._listener.date()}\r\n{content}{store}{_NOT_FOR_PAGES}{self._fields(headers)}\r\n"
        ).encode("latin-1")  # encoded before anything is written, so that an error can still be answered 500
        self.status = status
        self.begun = self.complete = True
        self.bytes_out = len(body)
        self._write(head if self.method == "HEAD" else head + body)

    def _fields(self, headers: Pairs) -> str:
        if self.rename is not None:
            headers = self.rename(headers)
        fields = [*map(_field, (*self.extra, *headers))]
        if self.close_after or not self.request.over:
            self.close_after = True
            fields.append("Connection: close")
        fields.append("")
        return "\r\n".join(fields)

    def _write(self, data: bytes) -> None:
        self.last_write = time.monotonic()
        if self._transport is not None and not self._transport.is_closing():
            self._listener.writes.write(self._transport, data)

    # --- a streamed answer

    def begin(self, content_type: str, headers: Pairs = ()) -> None:
        """Sets the head of a 200; it is sent with the first chunk."""
        if self.request.version != (1, 1):
            self._chunked = False
        framing = "Transfer-Encoding: chunked\r\n\r\n" if self._chunked else "\r\n"
        self._head = (
            f"HTTP/1.1 200 OK\r\nDate: {self._listener.date()}\r\nContent-Type: {content_type}\r\n"
            f"{self._fields(headers)}{NO_STORE}{framing}"
        ).encode("latin-1")
        self.status = 200
        self.begun = True

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Writes one chunk (an empty one: the head alone); `last` ends the body with it."""
        self.bytes_out += len(data)
        before = behind = b""
        if self._chunked and data:
            before, behind = b"%x\r\n" % len(data), b"\r\n"
        if last:
            self.complete = True
            if self._chunked:
                behind += b"0\r\n\r\n"
        if self._head:
            before = self._head + before
            self._head = b""
        data = before + data + behind
        self.last_write = time.monotonic()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._listener.writes.write(transport, data)

    def fail(self, data: bytes) -> None:
        """Writes the error that ends an answer which has begun."""
        self.write(data, last=True)

    def attach(self, upstream: UpstreamResponse | None) -> None:
        """Sets the upstream response to pause while the client does not read."""
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
        """Waits while the client does not read: for answers without an upstream to pause."""
        if self.blocked_since:
            self._writable = asyncio.Event()
            await self._writable.wait()

    def detach(self) -> None:
        """Notes that the client has left and the call goes on: from now on nothing is written or paused."""
        self._transport = None
        self.unblocked()

    def abort(self) -> None:
        """Closes the connection at once, with unsent bytes; the handler is cancelled."""
        if self._transport is not None:
            self._transport.abort()


def exchange_of(request: Incoming, connection: ClientConnection, listener: Terms) -> HttpExchange:
    """Makes the exchange of a request."""
    target = request.target
    return HttpExchange(
        request,
        request.method,
        request.fields,
        target if "?" not in target and target[:1] == "/" else path_of(target),
        connection.peer,
        time.monotonic(),
        listener.draining or not request.keep_alive or request.version != (1, 1),
        connection,
        listener,
        connection.transport,
    )


def path_of(target: str) -> str:
    """Returns the path of a request's target in origin-form or absolute-form (RFC 9112 3.2)."""
    path = target.partition("?")[0]
    if path.startswith("/"):
        return path
    _, _, rest = path.partition("://")
    return "/" + rest.partition("/")[2] if rest else path


def query_of(target: str) -> Mapping[str, str]:
    """Returns the query of a request's target. The last value of each name counts; invalid parts are
    ignored."""
    return dict(parse_qsl(target.partition("?")[2], keep_blank_values=True, max_num_fields=None))


def unmapped(address: str) -> str:
    """Returns an IPv4 address as such if it came from a dual-stack socket (RFC 4291 2.5.5.2)."""
    ipv4 = address.removeprefix("::ffff:")
    return address if ":" in ipv4 else ipv4
