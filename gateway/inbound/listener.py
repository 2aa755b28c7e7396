"""A listening socket and its connections: how many there may be, how long they may be slow, and how they end."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate

from gateway.config import Server as ServerConfig
from gateway.inbound.bodies import Unfinished
from gateway.inbound.connection import LINGER, Connection, State
from gateway.inbound.exchange import Exchange
from gateway.outbox import Outbox

Dispatch = Callable[[Exchange], Awaitable[None]]


class Listener:
    """Build it inside the event loop. `dispatch` answers a request, and sees to it that any error is answered.

    `broken` is told the status of what was answered before it was a request: no HTTP (400), too slow (408), one connection
    too many (503). Bounds are `config`'s; the kernel's and our own send buffers are bounded by `send_buffer` each.
    `draining`: answers say that they close their connections; `closing`: they do, whether they have said so or not.
    """

    def __init__(self, dispatch: Dispatch, config: ServerConfig, broken: Callable[[int], None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.outbox = Outbox(self.loop)
        self.dispatch = dispatch
        self.broken = broken
        self.draining = self.closing = False
        self.date = Date()
        self.connections: set[Connection] = set()
        self._emptied: asyncio.Event | None = None
        self._cancelled: set[asyncio.Task[None]] = set()
        self.max_connections = config.max_connections
        self.body_limit = int(config.body_limit)
        self.body_timeout = float(config.body_timeout)
        self.unfinished = Unfinished(int(config.body_memory))
        self.send_buffer = int(config.send_buffer)
        self.bounds: dict[State, float] = {
            "head": float(config.header_timeout), "idle": float(config.keepalive_timeout),
            "unread": float(config.write_idle), "linger": LINGER,
        }  # fmt: skip

    async def bind(self, address: str, backlog: int = 4096, *, reuse_port: bool = False) -> asyncio.Server:
        """Listen on "HOST:PORT"; `reuse_port`: beside other processes that do. Raises OSError."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            # Accepted sockets inherit it; the kernel doubles what is set.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer // 2)
            listening.bind((host, int(port)))
            listening.setblocking(False)
            return await self.loop.create_server(lambda: Connection(self), sock=listening, backlog=backlog)
        except BaseException:
            listening.close()
            raise

    def sweep(self, now: float) -> None:
        """Close connections that have been slow for too long. `now` on the monotonic clock."""
        for connection in list(self.connections):
            connection.look(now)

    async def shutdown(self, timeout: float) -> None:
        """Close all connections: idle ones now, those that are being answered within `timeout` seconds.

        Then wait until their requests' tasks have ended, for as long again: what they settle at their end must be under way
        before the stores are closed.
        """
        self.draining = self.closing = True
        for connection in list(self.connections):
            if connection.exchange is None:
                connection.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._empty()
        for connection in list(self.connections):
            connection.abort()
        await self._empty()
        if self._cancelled:
            await asyncio.wait(list(self._cancelled), timeout=timeout)

    def cancel(self, task: "asyncio.Task[None]") -> None:
        """End the task of a request whose client has left."""
        task.cancel()
        self._cancelled.add(task)
        task.add_done_callback(self._cancelled.discard)

    def left(self, connection: Connection) -> None:
        """It is closed, and its handler has been told."""
        self.connections.discard(connection)
        if not self.connections and self._emptied is not None:
            self._emptied.set()

    async def _empty(self) -> None:
        if self.connections:
            self._emptied = asyncio.Event()
            await self._emptied.wait()


class Date:
    """The Date header's text (RFC 9110 5.6.7), made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True)
        return self._text
