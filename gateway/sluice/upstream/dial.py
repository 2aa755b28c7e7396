"""A new connection to one origin: name, TCP, TLS. Each step's failure becomes the UpstreamError that names it.

Names are looked up by the system's resolver, once for all who wait, and kept for `ttl` seconds; a failed connect forgets
them. Addresses are raced as RFC 8305 says (aiohappyeyeballs, the package under aiohttp), beginning with another one each
time, so that load is spread over the upstream's addresses.

The caller bounds the time: every await here may be cancelled, and leaves no socket behind.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Literal

import aiohappyeyeballs

from sluice.errors import UpstreamError
from sluice.upstream.connection import Connection
from sluice.upstream.request import Origin
from sluice.upstream.tunnel import Proxy, open_tunnel

DNS_TTL = 60.0
RACE_DELAY = 0.25
RECEIVE_BUFFER = 128 << 10
"""Kernel's buffer for one connection: what an upstream can send ahead of a slow reader."""

_Address = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]


class TlsContext(ssl.SSLContext):
    """A client's context that resumes the last session of its one origin: a round trip and a signature less.

    asyncio has no parameter for sessions, but asks the context for its SSLObject: there the session is slipped in.
    """

    session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session or self.session)


def tls_context(*, cafile: str | None = None) -> TlsContext:
    """Verified TLS 1.2 or later, by the system's authorities or by those of `cafile`; ALPN http/1.1 only."""
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificate and host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if cafile is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile)
    return context


class Dialer:
    """Opens connections to `origin`, through a tunnel where there is a `proxy`: then that one's name is looked up alone."""

    def __init__(
        self,
        origin: Origin,
        tls: ssl.SSLContext | None,
        clock: Callable[[], float],
        ttl: float = DNS_TTL,
        proxy: Proxy | None = None,
    ) -> None:
        self._origin = origin
        self._proxy = proxy
        self._peer = proxy.origin if proxy is not None else origin
        self._tls = tls
        self._clock = clock
        self._ttl = ttl
        self._addresses: list[_Address] = []
        self._expires = 0.0
        self._lookup: asyncio.Task[list[_Address]] | None = None

    async def dial(self, connection: Connection) -> None:
        """Connect it. Raises UpstreamError: dns_error, connect_error, tls_error."""
        sock = await self._connect(await self._resolve())
        if self._proxy is not None:
            await self._tunnel(sock, self._proxy)
        await self._start(connection, sock)

    def remember(self, connection: Connection) -> None:
        """Keep the session that this connection's upstream has handed out (with TLS 1.3 that is after the handshake)."""
        tls = connection.tls()
        if isinstance(self._tls, TlsContext) and isinstance(tls, ssl.SSLObject):
            self._tls.session = tls.session

    # --- names

    async def _resolve(self) -> list[_Address]:
        addresses = self._addresses
        if not addresses or self._clock() >= self._expires:
            if self._lookup is None:
                self._lookup = asyncio.get_running_loop().create_task(self._look_up())
                self._lookup.add_done_callback(self._looked_up)
            addresses = await asyncio.shield(self._lookup)
        if self._addresses:  # another dial may have failed by now, and forgotten them
            self._addresses = addresses[1:] + addresses[:1]
        return addresses

    async def _look_up(self) -> list[_Address]:
        peer = self._peer
        try:
            found = await asyncio.get_running_loop().getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UpstreamError("dns_error", f"The name of {peer.name} could not be resolved") from error
        if not found:
            raise UpstreamError("dns_error", f"The name of {peer.name} has no address")
        return list(found)

    def _looked_up(self, lookup: "asyncio.Task[list[_Address]]") -> None:
        self._lookup = None
        if not lookup.cancelled() and lookup.exception() is None:
            self._addresses = lookup.result()
            self._expires = self._clock() + self._ttl

    # --- TCP, TLS

    async def _connect(self, addresses: list[_Address]) -> socket.socket:
        try:
            return await aiohappyeyeballs.start_connection(
                addresses,
                happy_eyeballs_delay=RACE_DELAY,
                interleave=1,
                loop=asyncio.get_running_loop(),
                socket_factory=_socket,
            )
        except (OSError, RuntimeError) as error:  # uvloop raises the latter too
            self._addresses = []
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise UpstreamError("connect_error", f"{self._peer.name} could not be connected to: {reason}") from error

    async def _tunnel(self, sock: socket.socket, proxy: Proxy) -> None:
        opened = False
        try:
            await open_tunnel(sock, self._origin, proxy)
            opened = True
        finally:
            if not opened:
                sock.close()

    async def _start(self, connection: Connection, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        host = self._origin.host if self._tls is not None else None
        started = False
        try:
            await loop.create_connection(lambda: connection, sock=sock, ssl=self._tls, server_hostname=host)
            started = True
        except (OSError, ssl.SSLError) as error:  # SSLCertVerificationError is a ValueError too
            kind: Literal["tls_error", "connect_error"] = "tls_error" if self._tls is not None else "connect_error"
            raise UpstreamError(kind, f"{self._origin.name}: {_reason(error)}") from error
        finally:
            if not started:
                connection.close()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'no reason given'})"
    return "the connection was closed during the TLS handshake"


def _socket(address: _Address) -> socket.socket:
    sock = socket.socket(address[0], address[1], address[2])
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock
