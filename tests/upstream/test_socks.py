"""SOCKS 5, as bytes and over sockets; proxies that speak TLS; and which proxy the environment names."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sluice.errors import UpstreamError
from sluice.upstream.socks import SocksRefused, conversation
from tests.fakes.rawserver import Peer, Request, authority, chunked, raw_server
from tests.upstream.calls import Caller
from tests.upstream.test_tls import trusted
from tests.upstream.test_tunnel import ESTABLISHED, Proxy, carry

OPEN = b"\x05\x00"
BOUND = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38"


def spoken(
    replies: bytes, host: str = "api.example", user: str = "", password: str = ""
) -> tuple[bytes, bytes]:
    """What is sent to a proxy that says `replies`, and what is left of these at the end."""
    steps = conversation(host, 443, user, password)
    sent = b""
    try:
        out, wanted = next(steps)
        while True:
            sent += out
            piece, replies = replies[:wanted], replies[wanted:]
            assert len(piece) == wanted
            out, wanted = steps.send(piece)
    except StopIteration:
        return sent, replies


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("api.example", b"\x03\x0bapi.example"),
        ("192.0.2.7", b"\x01\xc0\x00\x02\x07"),
        ("2001:db8::1", b"\x04\x20\x01\x0d\xb8" + b"\0" * 11 + b"\x01"),
        ("fe80::1%eth0", b"\x04\xfe\x80" + b"\0" * 13 + b"\x01"),
    ],
)
def test_names_and_addresses_are_written_by_their_type(host: str, target: bytes) -> None:
    assert spoken(OPEN + BOUND, host) == (b"\x05\x01\x00" + b"\x05\x01\x00" + target + b"\x01\xbb", b"")


@pytest.mark.parametrize(
    "bound",
    [
        BOUND,
        b"\x05\x00\x00\x04" + b"\0" * 18,
        b"\x05\x00\x00\x03\x04name\x00\x50",
        b"\x05\x00\x00\x03\x00\x00\x50",
    ],
)
def test_not_a_byte_behind_the_reply_is_taken(bound: bytes) -> None:
    assert spoken(OPEN + bound + b"server speaks")[1] == b"server speaks"


def test_a_user_is_offered_and_sent_only_where_it_is_asked_for() -> None:
    offered = b"\x05\x02\x00\x02"
    assert spoken(OPEN + BOUND, user="me", password="pw")[0].startswith(offered + b"\x05\x01")
    assert spoken(b"\x05\x02" + b"\x01\x00" + BOUND, user="me", password="pw")[0].startswith(
        offered + b"\x01\x02me\x02pw\x05"
    )


@pytest.mark.parametrize(
    ("replies", "user", "words", "target"),
    [
        (b"HT", "", "does not speak SOCKS 5", False),
        (b"\x05\xff", "", "wants a user and a password", False),
        (b"\x05\x02", "", "wants a user and a password", False),
        (b"\x05\xff", "u", "takes none of our credentials", False),
        (b"\x05\x01", "u", "takes none of our credentials", False),
        (b"\x05\x02\x01\x01", "u", "refused the user or the password", False),
        (OPEN + b"\x04\x00\x00\x01", "", "does not speak SOCKS 5", False),
        (OPEN + b"\x05\x01\x00\x01", "", "general failure", False),
        (OPEN + b"\x05\x02\x00\x01", "", "not allowed by its rules", False),
        (OPEN + b"\x05\x04\x00\x01", "", "the host is unreachable", True),
        (OPEN + b"\x05\x05\x00\x03", "", "connection refused", True),
        (OPEN + b"\x05\x63\x00\x01", "", "reply 99", False),
        (OPEN + b"\x05\x00\x00\x02", "", "unknown type of address", False),
    ],
)
def test_refusals_are_told(replies: bytes, user: str, words: str, target: bool) -> None:
    with pytest.raises(SocksRefused, match=words) as refused:
        spoken(replies, user=user)
    assert refused.value.target is target


# --- over sockets


class Socks:
    """A SOCKS 5 proxy that connects where it is asked to; `wants` a user and password, or none."""

    def __init__(self, wants: bytes = b"", reply: bytes = BOUND) -> None:
        self.wants = wants
        self.reply = reply
        self.targets: list[tuple[int, bytes]] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            await self._speak(reader, writer)
        writer.close()

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, methods = await reader.readexactly(2)
        await reader.readexactly(methods)
        writer.write(b"\x05\x02" if self.wants else OPEN)
        if self.wants:
            given = await reader.readexactly(len(self.wants))
            writer.write(b"\x01\x00" if given == self.wants else b"\x01\x01")
        _, _, _, kind = await reader.readexactly(4)
        size = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host = await reader.readexactly(size)
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.targets.append((kind, host))
        for byte in self.reply:  # in as many pieces as can be
            writer.write(bytes([byte]))
            await writer.drain()
        if self.reply == BOUND:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))


@asynccontextmanager
async def socks(**options: bytes) -> AsyncIterator[Socks]:
    found = Socks(**options)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()


async def answer(request: Request, peer: Peer) -> None:
    peer.send(chunked(b"ok"))


async def test_calls_go_through_socks_and_its_connection_is_kept(caller: Caller) -> None:
    async with socks() as through, raw_server(answer) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        transport = caller.transport(url, proxy=f"socks5h://127.0.0.1:{through.port}")
        for _ in range(3):
            assert await caller.whole(url) == (200, b"ok")
        assert transport.dialed == 1
        assert through.targets == [(3, b"localhost")]
        await transport.close()


async def test_socks5_looks_the_name_up_here(caller: Caller) -> None:
    async with socks() as through, raw_server(answer) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        transport = caller.transport(url, proxy=f"socks5://127.0.0.1:{through.port}")
        assert await caller.whole(url) == (200, b"ok")
        assert [kind for kind, _ in through.targets] in ([1], [4])
        await transport.close()


async def test_tls_goes_through_socks_with_a_user(caller: Caller) -> None:
    wants = b"\x01\x02me\x04p@ss"
    async with socks(wants=wants) as through, raw_server(answer, tls=authority().server) as server:
        transport = caller.transport(
            server.url, tls=trusted(), proxy=f"socks5h://me:p%40ss@127.0.0.1:{through.port}"
        )
        assert await caller.whole(server.url) == (200, b"ok")
        await transport.close()
        caller.transport(server.url, tls=trusted(), proxy=f"socks5h://me:wrng@127.0.0.1:{through.port}")
        with pytest.raises(UpstreamError) as failed:
            await caller.whole(server.url)
        assert failed.value.kind == "connect_error"
        assert "refused the user or the password" in failed.value.detail
        assert "wrng" not in failed.value.detail


@pytest.mark.parametrize("reply", [b"\x05\x05\x00\x01", b"\x05", b""])
async def test_a_socks_proxy_that_will_not_is_a_connect_error(reply: bytes, caller: Caller) -> None:
    async with socks(reply=reply) as through:
        caller.transport("http://127.0.0.1:9", proxy=f"socks5://127.0.0.1:{through.port}")
        with pytest.raises(UpstreamError) as failed:
            await caller.whole("http://127.0.0.1:9")
        assert failed.value.kind == "connect_error"
        assert ("connection refused" if len(reply) > 1 else "hung up") in failed.value.detail


# --- proxies that speak TLS


@pytest.fixture
def proxies_authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The system's authorities are the test's."""
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@asynccontextmanager
async def tls_proxy(reply: bytes = ESTABLISHED, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    found = Proxy(reply)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=tls or authority().server)
    found.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


@pytest.mark.parametrize("inner", [True, False], ids=["https", "http"])
async def test_calls_go_through_a_proxy_that_speaks_tls(
    inner: bool, caller: Caller, proxies_authority: None
) -> None:
    tls = authority().server if inner else None
    big = b"x" * 300_000

    async def large(request: Request, peer: Peer) -> None:
        peer.send(chunked(big))

    async with tls_proxy() as through, raw_server(large, tls=tls) as server:
        transport = caller.transport(server.url, tls=trusted(), proxy=through.url.replace("//", "//u:p@"))
        for _ in range(3):
            assert await caller.whole(server.url) == (200, big)
        assert transport.dialed == len(through.heads) == 1
        assert "Proxy-Authorization: Basic " in through.heads[0]
        await transport.close()


@pytest.mark.parametrize("inner", [True, False], ids=["https", "http"])
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"HTTP/1.1 407 no\r\n\r\n", "refused with status 407"),
        (b"", "hung up"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "more than its answer"),
    ],
)
async def test_a_tls_proxy_that_will_not_is_a_connect_error(
    inner: bool, reply: bytes, words: str, caller: Caller, proxies_authority: None
) -> None:
    async with tls_proxy(reply) as through:
        url = "https://localhost:9" if inner else "http://localhost:9"
        caller.transport(url, proxy=through.url)
        with pytest.raises(UpstreamError) as failed:
            await caller.whole(url)
        assert failed.value.kind == "connect_error"
        assert words in failed.value.detail


async def test_a_tls_proxy_that_is_not_trusted_is_a_tls_error(
    caller: Caller, proxies_authority: None
) -> None:
    async with tls_proxy(tls=authority().stranger) as through:
        caller.transport("http://localhost:9", proxy=through.url)
        with pytest.raises(UpstreamError) as failed:
            await caller.whole("http://localhost:9")
        assert failed.value.kind == "tls_error"


# --- which one
