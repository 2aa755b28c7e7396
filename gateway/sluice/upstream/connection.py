"""One socket to an upstream, as an asyncio protocol: reads go through the parser straight to the receiver.

A connection serves one request at a time. `ask` sets the receiver; from then on each read calls it
synchronously, from the socket's callback, and no task is woken for a read. Bytes that arrive without a
request (a late 408, bytes after a response) make the connection unusable, and it is closed. `close` closes
the socket at once, with unsent bytes, so that the upstream stops generating.
"""

import asyncio
import math
import ssl
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from sluice.aio.write_batch import WriteBatch
from sluice.backends.transport import Pieces
from sluice.errors import UpstreamError, UpstreamTruncated
from sluice.upstream.http1 import ResponseParser
from sluice.upstream.tls import tls_failed


class Receiver(Protocol):
    """Receives a response: the head once, body bytes once per read, and the end once, successful or not."""

    def head_came(self, status: int, headers: dict[str, str]) -> None: ...

    def body_came(self, data: bytes) -> None: ...

    def ended(self, error: UpstreamError | None) -> None: ...


class UpstreamConnection(asyncio.BufferedProtocol):
    """A connection.

    `used`: it has carried a request before this one. `answered`: a byte of this request's response has
    arrived. `idle_since`: when it last became idle, on the pool's clock. `until`: the time after which it
    gets no further request. `buffer`: the memory that sockets are read into, which several connections share.
    Its size bounds one read, and so the bytes in flight to a client that has just stopped reading (the event
    loops' own reads have 256 KiB).
    """

    __slots__ = (
        "_blocked",
        "_buffer",
        "_on_closed_idle",
        "_parser",
        "_paused",
        "_peer",
        "_receiver",
        "_rest",
        "_transport",
        "_writes",
        "answered",
        "closed",
        "idle_since",
        "until",
        "used",
    )  # fmt: skip

    def __init__(
        self,
        parser: ResponseParser,
        peer: str,
        closed_idle: "Callable[[UpstreamConnection], None]",
        buffer: memoryview,
        writes: WriteBatch,
        *,
        until: float = math.inf,
    ) -> None:
        self._buffer = buffer
        self._writes = writes
        self._parser = parser
        self._peer = peer
        self._on_closed_idle = closed_idle
        self._receiver: Receiver | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._blocked = False
        self._rest: Iterator[bytes] | None = None  # the rest of a body that is sent in pieces
        self.answered = False
        self.used = False
        self.closed = False
        self.idle_since = 0.0
        self.until = until

    # --- for the exchange

    def ask(self, method: str, head: bytes, body: bytes, receiver: Receiver, lines: bytes = b"") -> None:
        """Sends one request, in one write if it is small enough to be copied. `lines`: more header lines."""
        assert self._transport is not None
        assert self._receiver is None, "one request at a time"
        self._parser.expect(method)
        self._receiver = receiver
        if len(body) < 16 << 10:
            self._writes.write(self._transport, b"%b%d\r\n%b\r\n%b" % (head, len(body), lines, body))
        else:
            self._transport.writelines((b"%b%d\r\n%b\r\n" % (head, len(body), lines), body))

    def ask_in_pieces(
        self, method: str, head: bytes, body: Pieces, receiver: Receiver, lines: bytes = b""
    ) -> None:
        """Sends one request whose body is not in memory, piece by piece as the upstream reads it."""
        assert self._transport is not None
        assert self._receiver is None, "one request at a time"
        self._parser.expect(method)
        self._receiver = receiver
        self._rest = iter(body)
        self._transport.write(b"%b%d\r\n%b\r\n" % (head, len(body), lines))
        self._send_rest()

    def _send_rest(self) -> None:
        """Sends one piece per turn of the event loop, and none while the upstream does not read."""
        if self._rest is None or self._blocked or self.closed or self._transport is None:
            return
        try:
            piece = next(self._rest, None)
        except OSError as error:
            self._ended_by_peer(error)
            return
        if piece is None:
            self._rest = None
            return
        self._transport.write(piece)
        asyncio.get_running_loop().call_soon(self._send_rest)

    def rest(self) -> bool:
        """Ends the request. Returns True if the connection can serve another one; otherwise it has been
        closed."""
        parser = self._parser
        transport = self._transport
        sent = self._rest is None and transport is not None and not transport.get_write_buffer_size()
        if self.closed or not (parser.over and parser.reusable) or not sent:
            self.close()
            return False
        self.resume()
        self.answered = False
        self.used = True
        return True

    def pause(self) -> None:
        if not self._paused and not self.closed and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.closed and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Closes the socket. Idempotent. The receiver gets no more calls."""
        self._receiver = None
        self._rest = None
        if self.closed:
            return
        self.closed = True
        self._parser.close()
        if self._transport is not None:
            self._transport.abort()

    def tls(self) -> object | None:
        """The ssl.SSLObject, if there is one."""
        return self._transport.get_extra_info("ssl_object") if self._transport is not None else None

    # --- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        receiver, parser = self._receiver, self._parser
        if receiver is None:
            self._drop()
            return
        if parser.status:
            body = parser.feed(bytes(self._buffer[:nbytes]))
        else:
            if self._writes.holds(self._transport):  # a response to a request that has not been sent
                self._ended_by_peer(None)
                return
            self.answered = True
            body = parser.feed(bytes(self._buffer[:nbytes]))
            if parser.status:
                receiver.head_came(parser.status, parser.headers)
        if body:
            receiver.body_came(body)
        if parser.over or parser.error is not None:
            self._finish(parser.error)

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._send_rest()

    def eof_received(self) -> None:
        self._ended_by_peer(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended_by_peer(exc)

    # --- ends

    def _ended_by_peer(self, reason: Exception | None) -> None:
        if self.closed:
            return
        if self._receiver is None:
            self._drop()
            return
        parser = self._parser
        parser.reusable = False
        if reason is None:
            parser.eof()
            self._finish(parser.error)
        elif parser.status:
            self._finish(UpstreamTruncated("The upstream broke the connection in the middle of its answer"))
        elif isinstance(reason, ssl.SSLError):
            self._finish(tls_failed(self._peer, reason))
        else:
            self._finish(
                UpstreamError("reset", f"{self._peer} broke the connection before its answer's head")
            )

    def _finish(self, error: UpstreamError | None) -> None:
        receiver, self._receiver = self._receiver, None
        if error is not None or not self._parser.reusable:
            self.close()
        if receiver is not None:
            receiver.ended(error)

    def _drop(self) -> None:
        """Handles an idle or unusable connection that was closed."""
        if not self.closed:
            self.close()
            self._on_closed_idle(self)
