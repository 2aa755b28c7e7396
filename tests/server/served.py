"""A listener whose requests are answered by the test, and clients of it.

    async with served(answer, max_connections=2) as server:
        wire = await server.wire()

When it is left nothing may be left: no connection, no task, no object of a connection (with the collector
switched off), no complaint of the loop.
"""

import asyncio
import gc
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from sluice.config.types import Server
from sluice.server.connection import ServerConnection
from sluice.server.exchange import HttpExchange
from sluice.server.http1 import RequestParser
from sluice.server.incoming import Incoming
from sluice.server.listener import Listener
from sluice.server.tls import TlsListener, WatchedCertificate
from tests.e2e.watched import Wire
from tests.upstream.calls import until

BOUND = 10.0
"""Seconds after which what is left is left for good."""

Answer = Callable[[HttpExchange], Awaitable[None]]


class Served:
    """`exchanges`: paths of the requests that came to be answered; `cancelled`: of those whose handler was
    cancelled; `handshakes`: what those of TLS failed of."""

    def __init__(self, answer: Answer, config: Server, certificate: WatchedCertificate | None = None) -> None:
        self.answer = answer
        self.paths: list[str] = []
        self.cancelled: list[str] = []
        self.broken: list[int] = []
        self.complaints: list[dict[str, Any]] = []
        self.clients: list[socket.socket | asyncio.StreamWriter] = []
        self.handshakes: list[str] = []
        if certificate is None:
            self.listener = Listener(self.dispatch, config, self.broken.append)
        else:
            self.listener = TlsListener(
                self.dispatch, config, self.broken.append,
                certificate=certificate, broken_handshake=self.handshakes.append,
            )  # fmt: skip
        self.address = ("127.0.0.1", 0)

    async def dispatch(self, exchange: HttpExchange) -> None:
        self.paths.append(exchange.path)
        try:
            await self.answer(exchange)
        finally:
            if being_cancelled():
                self.cancelled.append(exchange.path)

    @property
    def connection(self) -> ServerConnection:
        """The only one."""
        (connection,) = self.listener.connections
        return connection

    @property
    def request(self) -> Incoming:
        """The only one that is being answered."""
        exchange = self.connection.exchange
        assert exchange is not None
        return exchange.request

    async def wire(self, tls: ssl.SSLContext | None = None) -> Wire:
        """A client that reads."""
        name = None if tls is None else "localhost"
        wire = Wire(*await asyncio.open_connection(*self.address, ssl=tls, server_hostname=name))
        self.clients.append(wire.writer)
        return wire

    async def mute(self, *sent: bytes) -> socket.socket:
        """A client that has sent this, and does not read. Its kernel takes next to nothing."""
        client = socket.socket()
        self.clients.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, self.address)
        for data in sent:
            await loop.sock_sendall(client, data)
        return client

    def later(self, seconds: float) -> None:
        """The sweep, as it will be so many seconds from now."""
        self.listener.sweep(time.monotonic() + seconds)

    async def emptied(self) -> None:
        await until(lambda: not self.listener.connections)


@asynccontextmanager
async def served(
    answer: Answer, certificate: WatchedCertificate | None = None, **config: Any
) -> AsyncIterator[Served]:
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    gc.collect()
    gc.disable()
    try:
        server = Served(answer, Server(**config), certificate)
        loop.set_exception_handler(lambda _, context: server.complaints.append(context))
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        acceptor = server.listener.listen(bound)
        server.address = acceptor.address
        yield server
        for client in server.clients:
            client.close()
        acceptor.close()
        async with asyncio.timeout(BOUND):
            await server.emptied()
            await until(lambda: asyncio.all_tasks() <= before)
            await until(lambda: not left_over())
        assert server.complaints == []
    finally:
        gc.enable()


def being_cancelled() -> bool:
    """Of the task that asks; it is no variable of the asker's frame, which an exception may keep."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def left_over() -> list[object]:
    return [
        found
        for found in gc.get_objects()
        if isinstance(found, (ServerConnection, HttpExchange, RequestParser, Incoming))
    ]


def reset(wire: Wire) -> None:
    """The client leaves with a TCP reset."""
    wire.writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    wire.writer.transport.abort()
