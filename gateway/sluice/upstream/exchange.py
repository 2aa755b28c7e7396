"""One request and its response: the context manager that `HttpTransport.send` returns, and the response that
it yields.

enter   takes a connection (an idle one, or a place and a new one, within `connect` seconds); sends the request in
        one write; waits for the head (within `headers` seconds: see `deadlines`)
body    `pump` only waits for the end: each read goes from the socket's callback into the sink, or into the reader's
        from the first byte on, if there is a reader
exit    after a complete body the connection returns to the pool; otherwise it is closed at once

State is kept in fields, and the one waiting coroutine is only woken, so an error that nobody waits for does
not become an "exception was never retrieved". The first event decides: an end, a cut, `abort`, an exception
of the sink.

Nothing is sent twice here. If the upstream closes an idle connection without a byte of a response,
StaleConnection is raised, and all connections that have been idle for as long are closed, so the caller's
next attempt gets a new one. A 307 or 308 to another path of the same origin is followed once, with the body
(RFC 9110 15.4.8, 15.4.9); the reader sees the second response only. A compressed body, although only identity
was accepted, is decompressed (RFC 9110 8.4).
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import msgspec

from sluice.aio.write_batch import WriteBatch
from sluice.backends.transport import Reader, Sink, UpstreamRequest
from sluice.errors import StaleConnection, UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.upstream.connection import UpstreamConnection
from sluice.upstream.deadlines import Deadlines
from sluice.upstream.dial import Dialer
from sluice.upstream.pool import Pool

if TYPE_CHECKING:
    from sluice.wire.content_coding import ContentDecoder

MAX_EARLY = 64 << 10
"""Body bytes that are kept between the head and `pump`; beyond it the socket is not read."""
MAX_EXPANSION = 256
"""Maximum decompressed bytes per compressed byte; text expands less, even if it repeats the same frames."""
FREE_EXPANSION = 1 << 20
"""Decompressed bytes from which on the ratio is checked."""


class UpstreamClient(Protocol):
    """The transport's interface for its exchanges (`sluice.upstream.client`)."""

    writes: WriteBatch
    pool: Pool
    dialer: Dialer

    def new_connection(self) -> UpstreamConnection: ...
    def give_back(self, connection: UpstreamConnection, *, ended: bool) -> None: ...
    def found_stale(self, connection: UpstreamConnection) -> StaleConnection: ...
    def head_of(self, request: UpstreamRequest) -> bytes: ...
    def location_of(self, url: str, location: str) -> str: ...
    def closed_early(self) -> UpstreamError: ...
    def connect_timed_out(self, seconds: float, *, placed: bool) -> UpstreamError: ...
    def headers_timed_out(self, seconds: float) -> UpstreamError: ...


class UpstreamExchange(msgspec.Struct, eq=False):
    """One request and its response. `status` and `headers` (lower case) are set once it has been entered. It
    is a Struct because a Struct is made in a quarter of the time."""

    _client: UpstreamClient
    _request: UpstreamRequest
    _head: bytes
    _connect_timeout: float
    _headers_timeout: float
    _loop: asyncio.AbstractEventLoop
    _heads_due: Deadlines
    _reader: Reader | None = None
    _connection: UpstreamConnection | None = None
    _placed: bool = False
    _was_idle: bool = False
    _waiter: "asyncio.Future[None] | None" = None
    _sink: Sink | None = None
    _early: list[bytes] = []
    _early_size: int = 0
    _wanted: int = MAX_EARLY
    _held: bool = False
    _paused: bool = False
    _ended: bool = False
    _error: BaseException | None = None
    _decoder: "ContentDecoder | None" = None
    _compressed: int = 0  # compressed bytes received
    _decompressed: int = 0  # bytes after decompression
    _followed: bool = False
    _location: str = ""  # the target of a redirect that is to be followed
    status: int = 0
    headers: Mapping[str, str] = {}

    __repr__ = object.__repr__  # it holds a key

    # --- enter, exit

    async def __aenter__(self) -> "UpstreamExchange":
        self._client.writes.users += 1
        entered = False
        try:
            self._connection = self._client.pool.take_now()
            if self._connection is None:
                await self._connect()
            else:
                self._was_idle = True
            self._placed = True
            self._heads_due.expect(self, self._headers_timeout)
            try:
                if self._ask():
                    waiter = self._waiter = self._loop.create_future()
                    try:
                        await waiter
                    finally:
                        self._waiter = None
                if self._location:
                    await self._follow()
            finally:
                self._heads_due.forget(self, self._headers_timeout)
            if not self.status:
                raise self._stale() or self._error or UpstreamError("reset")
            entered = True
        finally:
            if not entered:  # the head may have arrived before the caller was cancelled
                self._leave()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._client.writes.users -= 1
        connection, self._connection = self._connection, None
        self._early.clear()
        self._sink = self._reader = None
        if connection is not None:
            self._client.give_back(connection, ended=self._ended)
        elif self._placed:
            self._client.pool.release()

    # --- a connection

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                self._connection = await self._client.pool.place()
                self._placed = True
                if self._connection is None:
                    await self._dial()
        except TimeoutError:
            raise self._client.connect_timed_out(self._connect_timeout, placed=self._placed) from None

    async def _dial(self) -> None:
        connection = self._client.new_connection()
        await self._client.dialer.dial(connection)
        self._connection = connection

    def _ask(self) -> bool:
        """Sends the request. Returns whether a response is to be waited for."""
        connection = self._connection
        assert connection is not None
        if connection.closed:
            self._ended = True  # the upstream has closed it since it was opened
            self._error = self._client.closed_early()
            return False
        request = self._request
        if request.pieces is None:
            connection.ask(request.method, self._head, request.body, self, request.lines)
        else:
            connection.ask_in_pieces(request.method, self._head, request.pieces, self, request.lines)
        if self._reader is not None:
            self._reader.sent()
        return True

    async def _follow(self) -> None:
        """Sends the request again to the target of a redirect."""
        connection, self._connection, self._placed = self._connection, None, False
        if connection is not None:
            self._client.give_back(connection, ended=self._ended)
        self._request = msgspec.structs.replace(self._request, url=self._location)
        self._head = self._client.head_of(self._request)
        self._followed, self._location = True, ""
        self.status, self.headers = 0, {}
        self._ended, self._error = False, None
        self._early.clear()
        self._early_size = 0
        self._held = False
        self._connection = self._client.pool.take_now()
        self._was_idle = self._connection is not None
        if self._connection is None:
            await self._connect()
        self._placed = True
        if self._error is None and self._ask():  # otherwise the deadline of the head has passed meanwhile
            await self._wait()

    def _stale(self) -> StaleConnection | None:
        """Returns the error for an idle connection that was closed without a byte of a response; None for any
        other end.
        """
        connection, error = self._connection, self._error
        if not self._was_idle or connection is None or connection.answered:
            return None
        if not isinstance(error, UpstreamError) or error.kind != "reset":
            return None
        return self._client.found_stale(connection)

    def too_late(self) -> None:
        """Handles the deadline of the head."""
        if not self.status:
            self.abort(self._client.headers_timed_out(self._headers_timeout))

    # --- the response

    async def pump(self, sink: Sink) -> None:
        """See `sluice.backends.transport.UpstreamResponse`."""
        if self._early or not self._ended:  # otherwise the reader's sink has received all of it
            self._sink = sink
            early = b"".join(self._early)
            self._early.clear()
            if early:
                self.body_came(early)
            self._release_hold()
            while not self._ended:
                await self._wait()
        if self._error is not None:
            raise self._error
        if self._decoder is not None and not self._decoder.complete:
            raise UpstreamTruncated

    async def read(self, limit: int) -> bytes:
        """See `sluice.backends.transport.UpstreamResponse`."""
        self._wanted = limit
        while self._early_size < limit and not self._ended:
            self._release_hold()
            await self._wait()
        if self._error is not None:
            raise self._error
        body = b"".join(self._early)
        return body[:limit] if self._decoder is None else _start_of(body, self._decoder, limit)

    def pause(self) -> None:
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        self._paused = False
        if not self._held and self._connection is not None:
            self._connection.resume()

    def abort(self, error: BaseException) -> None:
        """See `sluice.backends.transport.UpstreamResponse`. Does nothing once the response has been read to
        its end."""
        if self._error is None and (self._early or not self._ended):
            self._early.clear()
            self._fail(error)

    # --- from the connection

    def head_came(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        if status in (307, 308) and not self._followed:
            self._location = self._client.location_of(self._request.url, headers.get("location", ""))
        self._wake()
        if self._location:
            return
        if "content-encoding" in headers:
            self._expect_compressed(headers["content-encoding"])
        if self._reader is not None and not self._ended:
            try:
                self._sink = self._reader.begin(self)
            except Exception as error:  # as below
                self._fail(error)

    def body_came(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            self._keep(data)
            return
        try:
            if self._decoder is None:
                sink(data)
            else:
                self._decompress(data, self._decoder, sink)
        except Exception as error:  # the reader's error is raised to the reader
            self._fail(error)

    def ended(self, error: UpstreamError | None) -> None:
        if not self._ended:
            self._end(error)

    # --- inside

    def _expect_compressed(self, names: str) -> None:
        from sluice.wire.content_coding import ContentDecoder, UnknownCoding

        try:
            self._decoder = ContentDecoder(names)
        except UnknownCoding:
            self._fail(UpstreamGarbled("The upstream's answer is in an encoding that nobody asked for"))

    def _decompress(self, data: bytes, decoder: "ContentDecoder", sink: Sink) -> None:
        from sluice.wire.content_coding import BrokenCoding

        self._compressed += len(data)
        most = FREE_EXPANSION + MAX_EXPANSION * self._compressed
        try:
            for piece in decoder.feed(data):
                self._decompressed += len(piece)
                if self._decompressed > most:
                    raise UpstreamGarbled("The upstream's answer is compressed beyond reason")
                sink(piece)
        except BrokenCoding:
            raise UpstreamGarbled("The upstream's answer is not what its Content-Encoding says") from None

    def _keep(self, data: bytes) -> None:
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size >= self._wanted:
            self._held = True
            if self._connection is not None:
                self._connection.pause()
            self._wake()

    def _release_hold(self) -> None:
        self._held = False
        if not self._paused and self._connection is not None:
            self._connection.resume()

    def _fail(self, error: BaseException) -> None:
        if self._connection is not None:
            self._connection.close()
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._ended = True
        self._error = error
        self._wake()

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _start_of(body: bytes, decoder: "ContentDecoder", limit: int) -> bytes:
    """Returns the first `limit` bytes of a compressed body, as far as it can be decompressed."""
    from sluice.wire.content_coding import BrokenCoding

    start = bytearray()
    try:
        for piece in decoder.feed(body):
            start += piece
            if len(start) >= limit:
                break
    except BrokenCoding:
        pass
    return bytes(start[:limit])
