"""A fake provider on raw sockets: it can do on the wire whatever a real one does when it misbehaves.

    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED + chunk(b"data: 1\n\n"))
        await peer.stall()                      # the socket stays open and silent until the other side closes it

    async with RawServer(handler) as server:
        ... server.url, server.port
        await server.peers[0].closed.wait()     # the other side has gone
        server.peers[0].requests                # what it had asked

The handler is called once per request, on one connection one after the other; when it returns, the connection
stays open for the next one. `greet` is called once per connection before anything was read, for servers that
do not wait to be asked. Reading goes on all the time, whatever the handler does, so `closed` is set the
moment the other side closes or resets.

`tls=authority().server` serves TLS for localhost; `authority().trust(context)` makes a client believe it.
Servers that are not there: `refused_url()`, `black_hole()`.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, cast

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def chunked(*pieces: bytes) -> bytes:
    """A whole 200 answer, chunked, one chunk per piece."""
    return CHUNKED + b"".join(map(chunk, pieces)) + LAST_CHUNK


def sized(body: bytes, status: int = 200, *headers: tuple[str, str]) -> bytes:
    """A whole answer with a Content-Length."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return (
        f"HTTP/1.1 {status} Whatever\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
    )


@dataclass(frozen=True)
class Request:
    """`headers` with lower-case names; `raw` is the head as it was sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    raw: bytes


@dataclass
class Peer:
    """One connection, from the server's side. `closed_at` and `accepted_at` on time.monotonic's clock."""

    transport: asyncio.Transport
    accepted_at: float
    requests: list[Request] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    closed_at: float = 0.0
    writable: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until (nearly) everything sent is in the kernel's hands, or the other side is gone."""
        await _first(self.writable.wait(), self.closed.wait())

    async def drip(self, data: bytes, size: int = 1) -> None:
        """Send in pieces of `size` bytes, one segment each."""
        for at in range(0, len(data), size):
            self.send(data[at : at + size])
            await asyncio.sleep(0)

    def close(self) -> None:
        """An orderly end, after what was sent."""
        self.transport.close()

    def half_close(self) -> None:
        """No more from us, but we go on reading."""
        self.transport.write_eof()

    def reset(self) -> None:
        """RST at once; what the kernel had not yet sent is lost."""
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def stall(self) -> None:
        """Silence until the other side closes."""
        await self.closed.wait()


Handler = Callable[[Request, Peer], Awaitable[None]]
Greeting = Callable[[Peer], Awaitable[None]]


class RawServer:
    """Listens on 127.0.0.1 while entered; `peers` holds every connection there ever was, in order."""

    def __init__(
        self, handler: Handler, *, greet: Greeting | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._handler = handler
        self._greet = greet
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    @property
    def requests(self) -> list[Request]:
        return [request for peer in self.peers for request in peer.requests]

    @property
    def open(self) -> int:
        """Connections that the other side has not closed yet."""
        return sum(not peer.closed.is_set() for peer in self.peers)

    async def all_closed(self) -> None:
        """Wait until the other side has closed every connection."""
        for peer in self.peers:
            await peer.closed.wait()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Wire(self), "127.0.0.1", 0, ssl=self._tls, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for peer in self.peers:
            peer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.errors and error is None:
            raise self.errors[0]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.errors.append(error)

    async def serve(self, peer: Peer, queue: "asyncio.Queue[Request]") -> None:
        if self._greet is not None:
            await self._greet(peer)
        while True:
            await self._handler(await queue.get(), peer)


class _Wire(asyncio.Protocol):
    def __init__(self, server: RawServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._queue: asyncio.Queue[Request] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._peer = Peer(cast("asyncio.Transport", transport), time.monotonic())
        self._peer.writable.set()
        self._server.peers.append(self._peer)
        self._server.run(self._server.serve(self._peer, self._queue))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := self._next()) is not None:
            self._peer.requests.append(request)
            self._queue.put_nowait(request)

    def _next(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        raw = bytes(self._buffer[: end + 4])
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        if len(self._buffer) < end + 4 + size:
            return None
        body = bytes(self._buffer[end + 4 : end + 4 + size])
        del self._buffer[: end + 4 + size]
        return Request(method, path, headers, body, raw)

    def pause_writing(self) -> None:
        self._peer.writable.clear()

    def resume_writing(self) -> None:
        self._peer.writable.set()

    def eof_received(self) -> None:
        self._gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone()

    def _gone(self) -> None:
        if not self._peer.closed.is_set():
            self._peer.closed_at = time.monotonic()
            self._peer.closed.set()


async def _first(*waits: Awaitable[Any]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


# --- servers that are not there


def refused_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """An address whose SYNs are not answered: a listener whose queue is full and never emptied (Linux)."""
    with contextlib.ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- TLS


@dataclass(frozen=True)
class Authority:
    """A throw-away one. `server` serves localhost by it; `stranger` serves localhost by an authority that
    nobody trusts."""

    server: ssl.SSLContext
    stranger: ssl.SSLContext
    pem: bytes

    def trust(self, context: ssl.SSLContext) -> ssl.SSLContext:
        """Make a client's context trust it, and return it."""
        context.load_verify_locations(cadata=self.pem.decode())
        return context


@lru_cache(maxsize=1)
def authority() -> Authority:
    """Made once per process, in memory (trustme)."""
    import trustme

    known, unknown = trustme.CA(), trustme.CA()
    contexts = []
    for ca in (known, unknown):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        contexts.append(context)
    return Authority(contexts[0], contexts[1], known.cert_pem.bytes())


@contextlib.asynccontextmanager
async def raw_server(handler: Handler, **options: Any) -> AsyncIterator[RawServer]:
    """`RawServer` that also waits, at its end, until the other side has closed every connection: a leak hangs
    here."""
    async with RawServer(handler, **options) as server:
        yield server
        await asyncio.wait_for(server.all_closed(), 10)
