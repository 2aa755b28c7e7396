"""Upstreams behind an HTTP proxy: real tunnels, with and without TLS in them, and proxies that will not."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sluice.errors import UpstreamError
from sluice.upstream.proxies import proxy_of
from sluice.upstream.tunnel import MAX_HEAD
from tests.fakes.rawserver import Peer, Request, authority, chunked, raw_server
from tests.upstream.calls import Caller
from tests.upstream.test_tls import trusted

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"


async def answer(request: Request, peer: Peer) -> None:
    peer.send(chunked(b"ok"))


class Proxy:
    """A proxy that says `reply` to CONNECT, and carries bytes both ways where that is 200."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        self.heads: list[str] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        writer.write(self.reply)
        if self.reply is ESTABLISHED:
            host, _, port = head.split(" ")[1].rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
        writer.close()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


@asynccontextmanager
async def proxy(reply: bytes = ESTABLISHED) -> AsyncIterator[Proxy]:
    found = Proxy(reply)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


async def test_calls_go_through_the_tunnel_and_its_connection_is_kept(caller: Caller) -> None:
    async with proxy() as through, raw_server(answer) as server:
        transport = caller.transport(server.url, proxy=through.url)
        for _ in range(3):
            assert await caller.whole(server.url) == (200, b"ok")
        assert transport.dialed == len(through.heads) == 1
        assert through.heads[0].startswith(f"CONNECT {server.url.removeprefix('http://')} HTTP/1.1\r\n")
        assert "roxy-" not in through.heads[0]
        await transport.close()


async def test_tls_is_between_us_and_the_upstream_whoever_carries_it(caller: Caller) -> None:
    async with proxy() as through, raw_server(answer, tls=authority().server) as server:
        transport = caller.transport(
            server.url, tls=trusted(), proxy=through.url.replace("//", "//user:p%40ss@")
        )
        assert await caller.whole(server.url) == (200, b"ok")
        assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:p@ss').decode()}\r\n" in through.heads[0]
        assert "roxy-authorization" not in server.requests[0].headers
        await transport.close()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            "refused with status 407",
        ),
        (b"HTTP/1.1 503 no\r\n\r\n", "refused with status 503"),
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\n", "hung up"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "did not answer in HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD, "too long"),
    ],
)
async def test_a_proxy_that_will_not_is_a_connect_error(reply: bytes, words: str, caller: Caller) -> None:
    async with proxy(reply) as through:
        caller.transport("http://127.0.0.1:9", proxy=through.url)
        with pytest.raises(UpstreamError, match="The upstream could not be reached") as failed:
            await caller.whole("http://127.0.0.1:9")
        assert failed.value.kind == "connect_error"
        assert words in failed.value.detail


async def test_a_proxy_that_is_not_there_or_says_nothing(caller: Caller) -> None:
    caller.transport("http://127.0.0.1:9", proxy="http://127.0.0.1:1")
    with pytest.raises(UpstreamError) as failed:
        await caller.whole("http://127.0.0.1:9")
    assert failed.value.kind == "connect_error"
    async with raw_server(answer, greet=silence) as silent:
        caller.transport("http://127.0.0.1:9", proxy=silent.url.replace("localhost", "127.0.0.1"))
        with pytest.raises(UpstreamError) as late:
            await caller.whole("http://127.0.0.1:9", connect=0.05)
        assert late.value.kind == "connect_timeout"


async def silence(peer: Peer) -> None:
    await asyncio.Event().wait()


NOT_PROXIES = [
    "socks4://u:canary@p:1",
    "canary:3128",
    "http://u:canary@",
    "socks5://u:canary@",
    "socks5h://u:canary@p:x",
    "http://a canary:1",
    "http://u:canary@p:x",
]


@pytest.mark.parametrize("url", NOT_PROXIES)
def test_what_is_no_proxy_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        proxy_of(url)
    assert "canary" not in str(refused.value)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(proxy_of("http://user:secret@p:3128"))
