"""A listening socket and its connections: their number, their deadlines, and their end.

Connections beyond the maximum are answered 503 and closed. Up to MAX_REFUSED_CONNECTIONS of them at a time stay open until
the client has read the answer; others are closed at once, which may reach the client before it has read it.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from sluice.aio.write_batch import WriteBatch
from sluice.config.types import Server as ServerConfig
from sluice.server.acceptor import Acceptor
from sluice.server.bodies import Unfinished
from sluice.server.connection import MAX_LINGER_SECONDS, OVERLOADED, ServerConnection, State
from sluice.server.exchange import HttpExchange

if TYPE_CHECKING:
    from sluice.server.http2.connection import Http2Connection

Dispatch = Callable[[HttpExchange], Awaitable[None]]
MAX_REFUSED_CONNECTIONS = 64
"""Refused connections that stay open until their clients have read the response."""
FRESH_SECONDS = 1.0
"""Seconds for which a new or just used connection is likely to bring a request."""


class Listener:
    """A listening socket; it has to be made inside the event loop.

    `dispatch` answers a request, including errors. `broken` gets the status of each response to an invalid
    request: not HTTP (400), too slow (408), one connection too many (503). `warn` gets event and fields for
    each connection that could not be served. The bounds are those of `config`; `send_buffer` bounds unsent
    bytes in the kernel, and in this process again. `draining`: answers have "Connection: close". `closing`:
    connections close after their answer, with or without that header.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        config: ServerConfig,
        broken: Callable[[int], None],
        *,
        connections: int | None = None,
        refused: int = MAX_REFUSED_CONNECTIONS,
        warn: Callable[..., object] = lambda event, **fields: None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.writes = WriteBatch(self.loop)
        self.dispatch = dispatch
        self.broken = broken
        self.draining = self.closing = False
        self.date = Date().text
        self.connections: set[ServerConnection | Http2Connection] = set()
        self.streams = 0
        """Requests over HTTP/2 that are being answered. Each costs as much as a connection of HTTP/1.1, so it
        counts like one."""
        self.make: Callable[..., ServerConnection] = ServerConnection
        if config.http2:
            from sluice.server.http2.upgrade import EitherConnection

            self.make = EitherConnection
        self._refused: set[ServerConnection] = set()
        self._max_refused = refused
        self._emptied: asyncio.Event | None = None
        self._cancelled: set[asyncio.Task[None]] = set()
        self._warn = warn
        self.max_connections = config.max_connections if connections is None else connections
        self.body_limit = int(config.body_limit)
        self.body_timeout = float(config.body_timeout)
        self.unfinished = Unfinished(int(config.body_memory))
        self.send_buffer = int(config.send_buffer)
        self.bounds: dict[State, float] = {
            "head": float(config.header_timeout), "idle": float(config.keepalive_timeout),
            "unread": float(config.write_idle), "linger": MAX_LINGER_SECONDS,
        }  # fmt: skip

    def listen(self, bound: socket.socket) -> Acceptor:
        """Serves connections to this socket, which is bound and non-blocking. Raises OSError."""
        if bound.family != socket.AF_UNIX:
            self._tune(bound)
        return Acceptor(bound, self.take, self._starved)

    def _tune(self, bound: socket.socket) -> None:
        bound.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # accepted sockets inherit what is set here
        # This bounds unsent bytes for a slow reader, and not the bytes in flight to a fast one: bounding both
        # (SO_SNDBUF) makes the sender wait for acknowledgements, which come 40 ms late if there are few whole
        # segments.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, self.send_buffer)

    # --- new connections

    def take(self, accepted: socket.socket) -> None:
        """Serves a connection, or refuses it if there are `max_connections`."""
        if len(self.connections) < self.max_connections:
            connection = self.make(self)
            self.connections.add(connection)
        else:
            self.broken(503)
            self._warn("connections_refused", max_connections=self.max_connections)
            if len(self._refused) >= self._max_refused:
                self.turn_away(accepted)
                return
            connection = self.make(self, refused=True)
            self._refused.add(connection)
        self.begin(connection, accepted)

    def begin(self, connection: ServerConnection, accepted: socket.socket) -> None:
        """Starts reading the connection in the event loop."""
        self.loop.create_task(self._begin(connection, accepted))

    async def _begin(self, connection: ServerConnection, accepted: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: connection, accepted)
        except OSError:  # it was reset meanwhile
            accepted.close()
            self.left(connection)

    def turn_away(self, accepted: socket.socket) -> None:
        """Answers 503 and closes, at once. Reads what has arrived, because closing with unread bytes would be
        a reset.
        """
        with accepted, contextlib.suppress(OSError):
            accepted.setblocking(False)
            accepted.send(OVERLOADED)
            accepted.shutdown(socket.SHUT_WR)
            accepted.recv(64 << 10)

    def _starved(self, error: OSError) -> None:
        self._warn("accept_failed", reason=error.strerror)

    def sweep(self, now: float) -> None:
        """Closes connections that have been slow for too long. `now` on the monotonic clock."""
        for connection in (*self.connections, *self._refused):
            connection.look(now)

    async def shutdown(self, timeout: float) -> None:
        """Closes all connections: idle ones now, those that are being answered within `timeout` seconds.

        Then waits as long again for the tasks of their requests: they must have started to settle their calls
        before the stores are closed.
        """
        self.draining = self.closing = True
        for connection in (*self.connections, *self._refused):
            if connection.exchange is None:
                connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._empty()
        for connection in (*self.connections, *self._refused):
            connection.abort()
        await self._empty()
        if self._cancelled:
            await asyncio.wait(list(self._cancelled), timeout=timeout)

    def answering(self) -> set["asyncio.Task[None]"]:
        """Returns the tasks of requests that are being answered, and of those whose clients have left."""
        return {task for connection in self.connections for task in connection.tasks} | self._cancelled

    def cancel(self, task: "asyncio.Task[None]") -> None:
        """Cancels the task of a request whose client has left."""
        task.cancel()
        self._cancelled.add(task)
        task.add_done_callback(self._cancelled.discard)

    async def answered(self, fresh: float = FRESH_SECONDS) -> None:
        """Waits until no request is being answered, and none is likely to arrive.

        A connection that is new, or was used less than FRESH_SECONDS ago, gets `fresh` seconds to send a
        request: usually one is on its way, and would be reset if the connection were closed.
        """
        until = time.monotonic() + fresh
        while self._expected(until):  # noqa: ASYNC110 (time passing is one of its reasons to end)
            await asyncio.sleep(0.01)

    def _expected(self, until: float) -> bool:
        now = time.monotonic()
        return any(
            connection.exchange is not None
            or (
                now < until
                and (
                    connection.state == "head"
                    or (connection.state == "idle" and now - connection.since < FRESH_SECONDS)
                )
            )
            for connection in self.connections
        )

    def left(self, connection: "ServerConnection | Http2Connection") -> None:
        """Removes a connection that has been closed. Its handler has been notified."""
        self.connections.discard(connection)
        self._refused.discard(connection)
        if not self.connections and not self._refused and self._emptied is not None:
            self._emptied.set()

    async def _empty(self) -> None:
        if self.connections or self._refused:
            self._emptied = asyncio.Event()
            await self._emptied.wait()


class Date:
    """The text of the Date header (RFC 9110 5.6.7), made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def text(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True)
        return self._text
