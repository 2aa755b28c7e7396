"""What a provider does to us at the level of HTTP and below, over real sockets."""

import asyncio

import pytest

from sluice.errors import CONNECTION, UpstreamError
from tests.fakes.rawserver import (
    CHUNKED,
    Peer,
    Request,
    black_hole,
    chunk,
    chunked,
    raw_server,
    refused_url,
    sized,
)
from tests.upstream.calls import LONG, Caller, pumped, until

BRIEF = 0.05


async def refused(caller: Caller, url: str, *, connect: float = LONG, headers: float = LONG) -> UpstreamError:
    """The error that entering (or pumping) raises; it names the place and nothing else."""
    with pytest.raises(UpstreamError) as failed:
        async with caller.send(url, connect=connect, headers=headers) as response:
            await pumped(response)
    address = url.rpartition("/")[2]
    assert address not in str(failed.value), "callers are not told where our upstreams are"
    assert (address in failed.value.detail) == (failed.value.kind in CONNECTION), "the log is"
    return failed.value


async def test_a_refused_connection(caller: Caller) -> None:
    assert (await refused(caller, refused_url())).kind == "connect_error"


async def test_a_black_hole_costs_the_connect_time_and_no_more(caller: Caller) -> None:
    with black_hole() as url:
        assert (await refused(caller, url, connect=BRIEF)).kind == "connect_timeout"


async def test_a_name_that_does_not_exist(caller: Caller) -> None:
    assert (await refused(caller, "http://no-such-host.invalid:80")).kind == "dns_error"


async def test_a_resolver_that_hangs_costs_the_connect_time(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    transport = caller.transport("http://slow.invalid:80")
    monkeypatch.setattr(transport.dialer._addresses, "_look_up", hang)
    assert (await refused(caller, "http://slow.invalid:80", connect=BRIEF)).kind == "connect_timeout"


async def test_a_reset_before_the_head(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.reset()

    async with raw_server(handler) as server:
        assert (await refused(caller, server.url)).kind == "reset"
        assert len(server.peers) == 1  # a new connection that breaks is not asked twice


async def test_a_reset_on_accept(caller: Caller) -> None:
    async def greet(peer: Peer) -> None:
        peer.reset()

    async with raw_server(silent, greet=greet) as server:
        assert (await refused(caller, server.url)).kind in ("reset", "connect_error")


async def silent(request: Request, peer: Peer) -> None:
    await peer.stall()


async def test_an_orderly_close_before_the_head(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.close()

    async with raw_server(handler) as server:
        assert (await refused(caller, server.url)).kind == "reset"


async def test_accepting_and_never_answering_costs_the_headers_time(caller: Caller) -> None:
    async with raw_server(silent) as server:
        assert (await refused(caller, server.url, headers=BRIEF)).kind == "headers_timeout"


async def test_a_head_that_drips_for_ever_costs_the_headers_time(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nX: ")
        while not peer.closed.is_set():
            peer.send(b"a")
            await asyncio.sleep(0.005)  # the pace of the drip

    async with raw_server(handler) as server:
        assert (await refused(caller, server.url, headers=BRIEF)).kind == "headers_timeout"


BROKEN: dict[str, tuple[bytes, str]] = {
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "reset"),
    "half a body": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "truncated"),
    "no last chunk": (CHUNKED + chunk(b"data: 1\n\n"), "truncated"),
    "half a chunk": (CHUNKED + b"f\r\nabc", "truncated"),
    "bad chunk size": (CHUNKED + b"zz\r\nabc\r\n", "garbled"),
    "chunked and a length": (CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "garbled"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "garbled"),
    "5000 headers": (
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        "garbled",
    ),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", "garbled"),
    "switch of protocols": (
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "garbled",
    ),
}


@pytest.mark.parametrize(("raw", "kind"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_is_an_error_and_its_connection_is_closed(
    raw: bytes, kind: str, caller: Caller
) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(raw)
        peer.close()

    async with raw_server(handler) as server:
        for calls in (1, 2):
            assert (await refused(caller, server.url)).kind == kind
            assert len(server.peers) == calls
        assert caller.transports[0].open == 0


async def test_a_reset_in_the_middle_is_a_cut_even_where_a_close_would_be_the_end(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        await received.wait()
        peer.reset()

    received = asyncio.Event()
    async with raw_server(handler) as server:
        got: list[bytes] = []

        def sink(data: bytes) -> None:
            got.append(data)
            received.set()

        with pytest.raises(UpstreamError) as failed:
            async with caller.send(server.url) as response:
                await response.pump(sink)
        assert (failed.value.kind, b"".join(got)) == ("truncated", b"abc")


async def test_a_line_of_64_mebibytes_is_refused_after_64_kibibytes(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(1024):
            peer.send(b"a" * (64 << 10))
            await peer.drain()
            if peer.closed.is_set():
                return
        raise AssertionError("all of it was read")

    async with raw_server(handler) as server:
        assert (await refused(caller, server.url)).kind == "garbled"


WHOLE: dict[str, tuple[bytes, int, bytes, bool]] = {
    "chunked": (chunked(b"a", b"b"), 200, b"ab", True),
    "length": (sized(b"abc"), 200, b"abc", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "interim heads": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + sized(b"x"),
        200,
        b"x",
        True,
    ),
    "redirect": (sized(b"", 302, ("Location", "http://127.0.0.1:1/steal")), 302, b"", True),
    "error status": (sized(b"{}", 429, ("Retry-After", "1")), 429, b"{}", True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc", False),
    "ended by close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", 200, b"abc", False),
    "extra response": (sized(b"abc") + sized(b"evil"), 200, b"abc", False),
    "extra bytes": (chunked(b"abc") + b"evil", 200, b"abc", False),
}


@pytest.mark.parametrize("by_byte", [False, True], ids=["at once", "slow drip"])
@pytest.mark.parametrize(("raw", "status", "body", "reused"), WHOLE.values(), ids=WHOLE.keys())
async def test_a_whole_answer(
    raw: bytes, status: int, body: bytes, reused: bool, by_byte: bool, caller: Caller
) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        await peer.drip(raw, 1 if by_byte else len(raw))
        if not reused:
            peer.close()

    async with raw_server(handler) as server:
        for _ in range(2):
            assert await caller.whole(server.url) == (status, body)
            if not reused:
                await until(lambda: not server.open)
        assert len(server.peers) == (1 if reused else 2)
        assert len(server.requests) == 2
        await caller.transports[0].close()


async def test_an_extra_response_sent_later_never_answers_the_next_request(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(sized(b"one"))
        await first_read.wait()
        peer.send(sized(b"evil"))

    first_read = asyncio.Event()
    async with raw_server(handler) as server:
        assert await caller.whole(server.url) == (200, b"one")
        first_read.set()
        await server.peers[0].closed.wait()
        assert await caller.whole(server.url) == (200, b"one")
        assert len(server.peers) == 2
        await caller.transports[0].close()


async def test_an_error_answers_beginning_is_read_and_an_endless_rest_is_not_waited_for(
    caller: Caller,
) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not peer.closed.is_set():
            peer.send(chunk(b"x" * 1000))
            await peer.drain()

    async with raw_server(handler) as server:
        async with caller.send(server.url) as response:
            assert (response.status, await response.read(5000)) == (500, b"x" * 5000)
        await server.peers[0].closed.wait()


async def test_read_returns_a_short_body_whole_and_the_connection_is_used_again(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(sized(b"short", 400))

    async with raw_server(handler) as server:
        for _ in range(3):
            async with caller.send(server.url) as response:
                assert await response.read(1 << 20) == b"short"
        assert len(server.peers) == 1
        await caller.transports[0].close()


async def test_read_raises_on_a_cut(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(b"HTTP/1.1 500 X\r\nContent-Length: 10\r\n\r\nabc")
        peer.close()

    async with raw_server(handler) as server:
        with pytest.raises(UpstreamError, match="middle"):
            async with caller.send(server.url) as response:
                await response.read(1 << 20)


async def test_an_answer_that_comes_before_a_large_request_was_read_is_seen_and_the_connection_not_used_again(
    caller: Caller,
) -> None:
    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sized(b"too large", 413))
        await done.wait()
        writer.transport.abort()

    done = asyncio.Event()
    listener = await asyncio.start_server(early, "127.0.0.1", 0, limit=1024)
    port = listener.sockets[0].getsockname()[1]
    async with caller.send(f"http://127.0.0.1:{port}", body=b"x" * (32 << 20)) as response:
        assert (response.status, await pumped(response)) == (413, b"too large")
    assert caller.transports[0].open == 0
    listener.close()
    done.set()
