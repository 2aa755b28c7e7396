"""A tunnel through an HTTP proxy: CONNECT (RFC 9110 9.3.6), for http and https upstreams alike.

The proxy sees names, not requests: what is sent through the tunnel is the same bytes as without it, TLS included. It is
configured per upstream; the environment's `HTTPS_PROXY` is not read.
"""

import asyncio
import base64
import re
import socket
from urllib.parse import unquote, urlsplit

import msgspec

from sluice.errors import UpstreamError
from sluice.upstream.request import Origin, origin_of

MAX_HEAD = 16 << 10
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]").match


class Proxy(msgspec.Struct, frozen=True):
    """`authorization`: the value of Proxy-Authorization (RFC 7617), empty without credentials."""

    origin: Origin
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.origin.name})"


def proxy_of(url: str) -> Proxy:
    """The proxy at http://[user:password@]host:port. Raises ValueError, without the URL: it may hold a password."""
    if not url.isprintable() or urlsplit(url).scheme != "http":
        raise ValueError("expected http://host:port (or http://user:password@host:port)")
    parts = urlsplit(url)
    origin = origin_of(f"http://{parts.netloc.rpartition('@')[2]}")
    if parts.username is None:
        return Proxy(origin)
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(origin, f"Basic {base64.b64encode(credentials.encode()).decode()}")


def connect_request(target: Origin, authorization: str = "") -> bytes:
    place = target.name
    credentials = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    return f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{credentials}\r\n".encode()


def refusal(head: bytes, proxy: Proxy) -> UpstreamError | None:
    """What the head of the proxy's answer means: None where the tunnel is open."""
    found = _STATUS(head)
    if found is None:
        return UpstreamError("connect_error", f"The proxy {proxy.origin.name} did not answer in HTTP/1.1")
    status = int(found[1])
    if 200 <= status < 300:
        return None
    return UpstreamError("connect_error", f"The proxy {proxy.origin.name} refused with status {status}")


async def open_tunnel(sock: socket.socket, target: Origin, proxy: Proxy) -> None:
    """Have the proxy at the other end of `sock` connect it to `target`. Raises UpstreamError("connect_error")."""
    loop = asyncio.get_running_loop()
    head = bytearray()
    try:
        await loop.sock_sendall(sock, connect_request(target, proxy.authorization))
        while not head.endswith(b"\r\n\r\n") and len(head) < MAX_HEAD:
            piece = await loop.sock_recv(sock, 1 if head else 12)  # not a byte of what comes behind the head
            if not piece:
                raise UpstreamError("connect_error", f"The proxy {proxy.origin.name} hung up")
            head += piece
    except OSError as error:
        raise UpstreamError("connect_error", f"The proxy {proxy.origin.name} broke the connection") from error
    failed = (
        refusal(bytes(head), proxy) if len(head) < MAX_HEAD else UpstreamError("connect_error", "The proxy's head is too long")
    )
    if failed is not None:
        raise failed
