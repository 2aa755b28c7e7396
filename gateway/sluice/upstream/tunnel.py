"""Tunnels through proxies: CONNECT to an HTTP proxy (RFC 9110 9.3.6), SOCKS 5; for http and https upstreams
alike.

The proxy sees names, not requests: what is sent through the tunnel is the same bytes as without it, TLS
included. It is configured per upstream; the environment's `HTTPS_PROXY` is read only where that says so
(`sluice.upstream.proxies`).
"""

import asyncio
import re
import socket
from typing import cast

from sluice.errors import UpstreamError
from sluice.upstream.proxies import Proxy
from sluice.upstream.request import Origin
from sluice.upstream.socks import SocksRefused, Steps

MAX_HEAD = 16 << 10
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]").match


def connect_request(target: Origin, authorization: str = "") -> bytes:
    place = target.name
    credentials = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    return f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{credentials}\r\n".encode()


def refusal(head: bytes, proxy: Proxy) -> UpstreamError | None:
    """Returns the error that the head of the proxy's response means; None if the tunnel is open."""
    found = _STATUS(head)
    if found is None:
        return UpstreamError("connect_error", f"The proxy {proxy.origin.name} did not answer in HTTP/1.1")
    status = int(found[1])
    if 200 <= status < 300:
        return None
    return UpstreamError("connect_error", f"The proxy {proxy.origin.name} refused with status {status}")


async def open_tunnel(sock: socket.socket, target: Origin, proxy: Proxy) -> None:
    """Has the HTTP proxy at the other end of `sock` connect to `target` (CONNECT). Raises
    UpstreamError("connect_error")."""
    loop = asyncio.get_running_loop()
    head = bytearray()
    try:
        await loop.sock_sendall(sock, connect_request(target, proxy.authorization))
        while not head.endswith(b"\r\n\r\n") and len(head) < MAX_HEAD:
            piece = await loop.sock_recv(sock, 1 if head else 12)  # nothing beyond the head may be read
            if not piece:
                raise _hung_up(proxy)
            head += piece
    except OSError as error:
        raise _broke(proxy) from error
    failed = refusal(bytes(head), proxy) if len(head) < MAX_HEAD else _too_long()
    if failed is not None:
        raise failed


async def open_socks(sock: socket.socket, proxy: Proxy, steps: Steps) -> None:
    """Runs the SOCKS conversation with the proxy at the other end of `sock`. Raises
    UpstreamError("connect_error"), caused by SocksRefused if the proxy refused.
    """
    loop = asyncio.get_running_loop()
    try:
        out, wanted = next(steps)
        while True:
            if out:
                await loop.sock_sendall(sock, out)
            data = b""
            while len(data) < wanted:
                piece = await loop.sock_recv(sock, wanted - len(data))
                if not piece:
                    raise _hung_up(proxy)
                data += piece
            out, wanted = steps.send(data)
    except StopIteration:
        return
    except SocksRefused as refused:
        raise UpstreamError("connect_error", f"The proxy {proxy.origin.name} {refused}") from refused
    except OSError as error:
        raise _broke(proxy) from error


class TlsTunnel(asyncio.Protocol):
    """CONNECT through a proxy that speaks TLS itself; `opened` ends when the tunnel is open."""

    def __init__(self, target: Origin, proxy: Proxy) -> None:
        self._target = target
        self._proxy = proxy
        self._head = bytearray()
        self.transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(connect_request(self._target, self._proxy.authorization))

    def data_received(self, data: bytes) -> None:
        head = self._head
        head += data
        end = head.find(b"\r\n\r\n")
        if len(head) >= MAX_HEAD:
            self._done(_too_long())
        elif end >= 0:
            early = UpstreamError(
                "connect_error", f"The proxy {self._proxy.origin.name} sent more than its answer"
            )
            self._done(refusal(bytes(head), self._proxy) or (early if len(head) > end + 4 else None))

    def eof_received(self) -> None:
        self._done(_hung_up(self._proxy))

    def connection_lost(self, exc: Exception | None) -> None:
        self._done(_hung_up(self._proxy))

    def close(self) -> None:
        self.opened.cancel()
        if self.transport is not None:
            self.transport.abort()

    def _done(self, error: UpstreamError | None) -> None:
        if self.opened.done():
            return
        if error is None:
            self.opened.set_result(None)
        else:
            self.opened.set_exception(error)


def _hung_up(proxy: Proxy) -> UpstreamError:
    return UpstreamError("connect_error", f"The proxy {proxy.origin.name} hung up")


def _broke(proxy: Proxy) -> UpstreamError:
    return UpstreamError("connect_error", f"The proxy {proxy.origin.name} broke the connection")


def _too_long() -> UpstreamError:
    return UpstreamError("connect_error", "The proxy's head is too long")
