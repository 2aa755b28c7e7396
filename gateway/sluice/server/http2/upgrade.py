"""Chooses HTTP/1.1 or HTTP/2: by the ALPN protocol of TLS, or by the first bytes, the preface (RFC 9113
3.4)."""

import asyncio

from sluice.server.connection import ServerConnection
from sluice.server.http2.connection import Http2Connection, Http2Owner

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class EitherConnection(ServerConnection):
    """A connection of HTTP/1.1, until its first bytes show that it is HTTP/2."""

    __slots__ = ("_first", "_owner")

    def __init__(self, listener: Http2Owner, *, refused: bool = False) -> None:
        super().__init__(listener, refused=refused)
        self._owner = listener
        self._first: bytes | None = None if refused else b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and self._first is not None:
            if tls.selected_alpn_protocol() == "h2":
                self._become_http2(b"")
            self._first = None

    def data_received(self, data: bytes) -> None:
        if self._first is None:
            return super().data_received(data)
        first = self._first + data
        if first.startswith(PREFACE):
            self._become_http2(first)
        elif PREFACE.startswith(first):
            self._first = first
        else:
            self._first = None
            super().data_received(first)

    def _become_http2(self, first: bytes) -> None:
        """Hands the socket over to an HTTP/2 connection. For this connection, it is as if its client had
        left."""
        if self.transport is None or self.transport.is_closing():
            return
        self._first = None
        transport = self.transport
        other = Http2Connection(self._owner, transport)
        self._owner.connections.add(other)
        transport.set_protocol(other)
        self.connection_lost(None)
        if first:
            other.data_received(first)
