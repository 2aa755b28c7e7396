"""One aiohttp request and its answer, with the interface that routes need (`sluice.api.request.Request`).

Routes write from callbacks and never wait. `deliver`, in aiohttp's handler, sends what they have written, and
pauses the upstream while aiohttp's transport is full.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, StreamWriter

from sluice.backends.transport import UpstreamResponse
from sluice.config.types import Config
from sluice.errors import BadRequest, PayloadTooLarge, RequestTimeout, Unavailable
from sluice.server.bodies import Pace, Unfinished
from sluice.server.exchange import NOT_FOR_PAGES, RETRY_AFTER, Pairs, path_of, query_of, unmapped
from sluice.wire.fields import by_name

DECODED = {"gzip", "deflate", "br", "zstd"}
"""Codings that aiohttp decodes for a mounted application; its parent's runner decides about that."""
NO_STORE = (("Cache-Control", "no-store, no-transform"), ("X-Accel-Buffering", "no"), *NOT_FOR_PAGES)


class Terms(Protocol):
    """The gateway's interface for an exchange."""

    config: Config
    draining: bool
    unfinished: Unfinished


class AiohttpExchange:
    """`response`: the answer, once it has begun. `complete`: all of it has been written, though perhaps not
    sent.

    The other fields are those of `sluice.server.exchange.HttpExchange`.
    """

    def __init__(self, request: web.Request, terms: Terms) -> None:
        self._request = request
        self._terms = terms
        self._decoded = len(request.match_info.apps) > 1
        self._pending = bytearray()
        self._moved = asyncio.Event()  # there is something to send, or nothing more will come
        self._free = asyncio.Event()
        self._over = False
        self._detached = False
        self._close_after = False
        self._given_up = False
        self._reading: asyncio.Timeout | None = None
        self._upstream: UpstreamResponse | None = None
        self.response: web.StreamResponse | None = None
        self.complete = False
        self.received = time.monotonic()
        self.method = request.method
        self.path = _path_within(request)
        self.parameters: Mapping[str, str] = {}
        self.rename: Callable[[Pairs], Pairs] | None = None
        self.raw_headers = tuple((name, value.strip(b" \t")) for name, value in request.raw_headers)
        self.headers: Mapping[str, str] = self._headers()
        self.peer = unmapped(request.remote or "")
        self.extra: list[tuple[str, str]] = []
        self.caller: str | None = None
        self.status = 0
        self.begun = False
        self.last_write = 0.0
        self.bytes_out = 0
        self.blocked_since = 0.0

    # --- the request

    @property
    def query(self) -> Mapping[str, str]:
        return query_of(self._request.raw_path)

    @property
    def bytes_in(self) -> int:
        """Returns the bytes of the request's body that have arrived, decompressed if aiohttp has done that."""
        return self._request.content.total_bytes

    @property
    def client_is_gone(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def _headers(self) -> dict[str, str]:
        """By lower-case name, repeated ones joined, so that a repeated credential is noticed."""
        fields = by_name(self.raw_headers)
        if self._decoded and fields.get("content-encoding", "").lower() in DECODED:
            del fields["content-encoding"]
        return fields

    def body_now(self) -> bytes | None:
        """Returns the whole body if it arrived with the head and is not too large; otherwise None: then
        `body` waits, or raises the error."""
        content = self._request.content
        if content.at_eof() or not content.is_eof() or content.exception() is not None:
            return None
        return content.read_nowait() if content.total_bytes <= self._terms.config.server.body_limit else None

    async def body(self) -> bytes:
        """Returns the whole body, within the same bounds and with the same errors as
        `sluice.server.exchange`."""
        server = self._terms.config.server
        limit = int(server.body_limit)
        if (self._request.content_length or 0) > limit:
            raise self._too_large(limit)
        await self._continue()
        clock = asyncio.get_running_loop().time
        pace = Pace(float(server.body_timeout), clock())
        body = bytearray()
        try:
            while piece := await self._piece(pace.due):
                body += piece
                if len(body) > limit:
                    raise self._too_large(limit)
                self._terms.unfinished.keep(self, len(body))
                pace.came(len(piece), clock())
        finally:
            self._terms.unfinished.keep(self, 0)
        return bytes(body) or await self._request.read()  # a middleware of the host has read it before

    async def _continue(self) -> None:
        """Sends 100 Continue if the client waits for it (RFC 9110 10.1.1). Not earlier, because the request
        could have been refused."""
        request = self._request
        if self.headers.get("expect", "").lower() == "100-continue" and request.version == HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _piece(self, due: float) -> bytes:
        try:
            async with asyncio.timeout_at(due) as self._reading:
                return await self._request.content.readany()
        except TimeoutError:
            self._close_after = True
            if self._given_up:
                raise Unavailable(
                    "Too many bodies are on their way; this one was given up", retry_after=RETRY_AFTER
                ) from None
            raise RequestTimeout("The body did not arrive in time") from None
        except web.RequestPayloadError:
            self._close_after = True
            raise BadRequest("The body's framing is broken") from None
        except ConnectionError:
            return await self._left()
        finally:
            self._reading = None

    async def _left(self) -> bytes:
        """Handles that the client has left: the call is cancelled, as while it waits for anything else."""
        if (task := asyncio.current_task()) is not None:
            task.cancel()
        await asyncio.sleep(0)
        return b""

    def give_up(self) -> None:
        """Drops the body to free memory for others; the client is answered 503."""
        self._given_up = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(0.0)

    def _too_large(self, limit: int) -> PayloadTooLarge:
        self._close_after = True
        return PayloadTooLarge(f"The body may have {limit} bytes")

    # --- the answer

    def reply(
        self,
        status: int,
        body: bytes,
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = "application/json",
    ) -> None:
        """Writes a whole answer. A `Cache-Control` that is the first of `headers` replaces no-store."""
        kind = [("Content-Type", content_type)] if status not in (204, 304) else []
        store = [] if headers and headers[0][0] == "Cache-Control" else [("Cache-Control", "no-store")]
        fields = [*store, *NOT_FOR_PAGES, *self.extra, *self._renamed(headers), *kind]
        self.last_write = time.monotonic()
        self.bytes_out = len(body)
        self._begin(web.Response(status=status, body=body, headers=_sendable(fields)))
        self._finish()

    def begin(self, content_type: str, headers: Pairs = ()) -> None:
        """Sets the head of a 200; it is sent with the first chunk."""
        fields = [("Content-Type", content_type), *self.extra, *self._renamed(headers), *NO_STORE]
        self._begin(web.StreamResponse(headers=_sendable(fields)))

    def _renamed(self, headers: Pairs) -> Pairs:
        return headers if self.rename is None else self.rename(headers)

    def _begin(self, response: web.StreamResponse) -> None:
        if self._close_after or self._terms.draining:
            response.force_close()
        self.response = response
        self.status = response.status
        self.begun = True

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Writes one chunk; `last` ends the body with it."""
        self.last_write = time.monotonic()
        self.bytes_out += len(data)
        if not self._detached:
            self._pending += data
            if len(self._pending) > self._terms.config.server.send_buffer and not self.blocked_since:
                self._block()
        if last:
            self._finish()
        self._moved.set()

    def fail(self, data: bytes) -> None:
        """Writes the error that ends an answer which has begun."""
        self.write(data, last=True)

    def attach(self, upstream: UpstreamResponse | None) -> None:
        """Sets the upstream to pause while the client does not read."""
        self._upstream = upstream
        if upstream is not None and self.blocked_since:
            upstream.pause()

    async def writable(self) -> None:
        """Waits while the client does not read."""
        if self.blocked_since:
            self._free.clear()
            await self._free.wait()

    def detach(self) -> None:
        """Notes that the client has left and the call continues: from now on nothing is kept or paused."""
        self._detached = True
        self._pending.clear()
        self._unblock()

    def abort(self) -> None:
        """Closes the connection at once, with unsent bytes."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    def ended(self, answering: "asyncio.Task[None]") -> None:
        """Handles the end of the call. If it has not written the end of its answer, the client must see that
        it was cut."""
        if not self.complete:
            self.abort()
        self._over = True
        self._moved.set()

    # --- for aiohttp's handler

    async def deliver(self) -> None:
        """Sends the answer as fast as the client reads it. Raises ConnectionError if the client has left."""
        await self._moved.wait()
        response = self.response
        if response is None:
            return
        await response.prepare(self._request)
        if isinstance(response, web.Response):
            self._block()
        else:
            self._bound_kernel()
            await self._deliver_stream(self._request.writer)
        if self.complete:
            await response.write_eof()
        self._unblock()

    async def _deliver_stream(self, writer: AbstractStreamWriter) -> None:
        chunks = cast(StreamWriter, writer)
        while self._pending or not self._over:
            await self._moved.wait()
            self._moved.clear()
            data = bytes(self._pending)
            self._pending.clear()
            if data:
                await chunks.write(data, drain=False)
            if self._request.protocol.writing_paused:
                if not self.blocked_since:
                    self._block()
                await chunks.drain()
            if self.blocked_since:
                self._unblock()

    def _bound_kernel(self) -> None:
        """Bounds unsent bytes for a slow reader, here and in the kernel, as the gateway's own listener does."""
        transport, size = self._request.transport, int(self._terms.config.server.send_buffer)
        if transport is not None:
            transport.set_write_buffer_limits(high=size)
            raw = transport.get_extra_info("socket")
            with contextlib.suppress(
                OSError, AttributeError
            ):  # a Unix socket has none; not every system knows it
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)

    def _finish(self) -> None:
        self.complete = self._over = True
        self._moved.set()

    def _block(self) -> None:
        self.blocked_since = time.monotonic()
        if self._upstream is not None:
            self._upstream.pause()

    def _unblock(self) -> None:
        self.blocked_since = 0.0
        self._free.set()
        if self._upstream is not None:
            self._upstream.resume()


def _sendable(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the fields unchanged. Raises UnicodeEncodeError before anything is sent, as the gateway's own
    server does; aiohttp would send UTF-8."""
    for _, value in fields:
        value.encode("latin-1")
    return fields


def _path_within(request: web.Request) -> str:
    """Returns the path as it was sent, without the prefix under which the application is mounted."""
    resource = request.match_info.route.resource
    prefix = resource.canonical.removesuffix("/{path}") if resource is not None else ""
    return path_of(request.raw_path).removeprefix(prefix)
