"""Opens a connection to one origin: name, TCP, proxy, TLS. A failure becomes the UpstreamError of its step.

Addresses are raced as in RFC 8305 (aiohappyeyeballs, the package that aiohttp uses), in the order of
`sluice.upstream.names`: each time another one comes first, so that load is spread over the upstream's
addresses; those that have failed come last. The caller bounds the time: every await here may be cancelled,
and leaves no socket open.
"""

import asyncio
import copy
import socket
import ssl
from collections.abc import Callable

import aiohappyeyeballs

from sluice.errors import UpstreamError
from sluice.upstream.connection import UpstreamConnection
from sluice.upstream.names import DNS_TTL, Addresses, ResolvedAddress
from sluice.upstream.proxies import Proxy
from sluice.upstream.request import Origin
from sluice.upstream.socks import SocksRefused, conversation
from sluice.upstream.tls import TlsContext, WatchedTls, tls_context, tls_failed
from sluice.upstream.tunnel import TlsTunnel, open_socks, open_tunnel

RACE_DELAY = 0.25
RECEIVE_BUFFER = 128 << 10
"""Size of the kernel's receive buffer of a connection: the bytes that an upstream can send ahead of a slow
reader."""


class Dialer:
    """Opens connections to `origin`, through a tunnel if there is a `proxy`. Then only the proxy's name is
    looked up here; with socks5 also the origin's."""

    def __init__(
        self,
        origin: Origin,
        tls: ssl.SSLContext | WatchedTls | None,
        clock: Callable[[], float],
        ttl: float = DNS_TTL,
        proxy: Proxy | None = None,
    ) -> None:
        self._origin = origin
        self._proxy = proxy
        self._clock, self._ttl = clock, ttl
        self._peer = peer = proxy.origin if proxy is not None else origin
        self._tls = tls
        self._server_name = (tls.server_name if isinstance(tls, WatchedTls) else None) or origin.host
        self._addresses = Addresses(peer.host, peer.port, peer.name, clock, ttl=ttl)
        self._behind = Addresses(origin.host, origin.port, origin.name, clock, ttl=ttl)
        self._to_proxy = tls_context() if proxy is not None and proxy.scheme == "https" else None

    def towards(self, host: str, port: int) -> "Dialer":
        """Returns a dialer whose connections go to this address, whatever the origin's is; TLS still verifies
        the origin's name."""
        other = copy.copy(self)
        other._peer = Origin(self._origin.scheme, host, port, self._origin.authority)
        other._addresses = Addresses(host, port, other._peer.name, self._clock, ttl=self._ttl)
        return other

    async def dial(self, connection: UpstreamConnection) -> None:
        """Opens a connection. Raises UpstreamError: dns_error, connect_error, tls_error."""
        tls = await self._tls.context() if isinstance(self._tls, WatchedTls) else self._tls
        sock = await self._connect(await self._addresses.ordered())
        proxy = self._proxy
        if proxy is not None and self._to_proxy is not None:
            await self._start_within(connection, sock, proxy, self._to_proxy, tls)
            return
        if proxy is not None:
            await self._tunnel(sock, proxy)
        await self._start(connection, sock, tls)

    def remember(self, connection: UpstreamConnection) -> None:
        """Keeps the TLS session that this connection's upstream has issued (with TLS 1.3 that is after the
        handshake).
        """
        tls = connection.tls()
        if isinstance(tls, ssl.SSLObject) and isinstance(tls.context, TlsContext):
            tls.context.session = tls.session

    # --- TCP, proxies

    async def _connect(self, addresses: list[ResolvedAddress]) -> socket.socket:
        tried: dict[socket.socket, ResolvedAddress] = {}

        def opened(address: ResolvedAddress) -> socket.socket:
            sock = _socket(address)
            tried[sock] = address
            return sock

        try:
            sock = await aiohappyeyeballs.start_connection(
                addresses,
                happy_eyeballs_delay=RACE_DELAY,
                interleave=0,
                loop=asyncio.get_running_loop(),
                socket_factory=opened,
            )
        except (OSError, RuntimeError) as error:  # uvloop raises the latter too
            self._addresses.failed(tried.values())
            self._addresses.forget()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise UpstreamError(
                "connect_error", f"{self._peer.name} could not be connected to: {reason}"
            ) from error
        if len(tried) > 1:
            self._addresses.failed(address for other, address in tried.items() if other is not sock)
        return sock

    async def _tunnel(self, sock: socket.socket, proxy: Proxy) -> None:
        opened = False
        try:
            if proxy.scheme == "http":
                await open_tunnel(sock, self._origin, proxy)
            else:
                await self._socks(sock, proxy)
            opened = True
        finally:
            if not opened:
                sock.close()

    async def _socks(self, sock: socket.socket, proxy: Proxy) -> None:
        host, address = self._origin.host, None
        if proxy.scheme == "socks5":
            address = (await self._behind.ordered())[0]
            host = str(address[4][0])
        try:
            await open_socks(sock, proxy, conversation(host, self._origin.port, proxy.user, proxy.password))
        except UpstreamError as error:
            if address is not None and isinstance(error.__cause__, SocksRefused) and error.__cause__.target:
                self._behind.failed([address])
            raise

    # --- TLS

    async def _start(
        self, connection: UpstreamConnection, sock: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        loop = asyncio.get_running_loop()
        host = self._server_name if tls is not None else None
        started = False
        try:
            await loop.create_connection(lambda: connection, sock=sock, ssl=tls, server_hostname=host)
            started = True
        except (OSError, ssl.SSLError) as error:  # SSLCertVerificationError is a ValueError too
            raise self._not_started(error, tls) from error
        finally:
            if not started:
                connection.close()

    async def _start_within(
        self,
        connection: UpstreamConnection,
        sock: socket.socket,
        proxy: Proxy,
        outer: ssl.SSLContext,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Starts TLS within a tunnel of a proxy that speaks TLS itself: for an https upstream that is TLS
        within TLS.
        """
        loop = asyncio.get_running_loop()
        tunnel = TlsTunnel(self._origin, proxy)
        started = False
        try:
            try:
                await loop.create_connection(
                    lambda: tunnel, sock=sock, ssl=outer, server_hostname=proxy.origin.host
                )
            except (OSError, ssl.SSLError) as error:
                raise tls_failed(proxy.origin.name, error) from error
            await tunnel.opened
            assert tunnel.transport is not None
            try:
                await self._hand_over(connection, tunnel.transport, tls)
            except (OSError, ssl.SSLError) as error:
                raise self._not_started(error, tls) from error
            started = True
        finally:
            if not started:
                tunnel.close()
                connection.close()

    async def _hand_over(
        self, connection: UpstreamConnection, transport: asyncio.Transport, tls: ssl.SSLContext | None
    ) -> None:
        carried: asyncio.BaseTransport | None = transport
        if tls is None:
            transport.set_protocol(connection)
        else:
            loop = asyncio.get_running_loop()
            carried = await loop.start_tls(transport, connection, tls, server_hostname=self._server_name)
        if carried is None:  # it was closed meanwhile
            raise ConnectionResetError
        connection.connection_made(carried)

    def _not_started(self, error: OSError, tls: ssl.SSLContext | None) -> UpstreamError:
        if tls is None:
            return UpstreamError("connect_error", f"{self._origin.name}: the connection was closed at once")
        return tls_failed(self._origin.name, error)


def _socket(address: ResolvedAddress) -> socket.socket:
    sock = socket.socket(address[0], address[1], address[2])
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock
