"""Body bytes on their way: one sink call per read, back-pressure, aborting from outside."""

import asyncio
import tracemalloc

import pytest

from sluice.errors import UpstreamError
from sluice.upstream.exchange import MAX_EARLY
from tests.fakes.rawserver import (
    CHUNKED,
    LAST_CHUNK,
    Peer,
    RawServer,
    Request,
    chunk,
    chunked,
    raw_server,
    sized,
)
from tests.upstream.calls import Caller, pumped, until


async def hold(request: Request, peer: Peer) -> None:
    peer.send(CHUNKED + chunk(b"held"))
    await peer.stall()


async def test_the_chunks_of_one_read_reach_the_sink_in_one_call(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED)
        await entered.wait()
        peer.send(b"".join(chunk(b"data: %d\n\n" % n) for n in range(64)) + LAST_CHUNK)

    entered = asyncio.Event()
    async with raw_server(handler) as server, caller.send(server.url) as response:
        reads: list[bytes] = []
        entered.set()
        await response.pump(reads.append)
        assert reads == [b"".join(b"data: %d\n\n" % n for n in range(64))]
        await caller.transports[0].close()


async def test_what_came_with_the_head_is_delivered_first(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED + chunk(b"first "))
        await entered.wait()
        peer.send(chunk(b"second") + LAST_CHUNK)

    entered = asyncio.Event()
    async with raw_server(handler) as server, caller.send(server.url) as response:
        entered.set()
        assert await pumped(response) == b"first second"
        await caller.transports[0].close()


async def test_a_cut_that_came_with_the_head_is_raised_after_what_came_before_it(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED + chunk(b"owed") + b"zz\r\n")

    async with raw_server(handler) as server:
        got: list[bytes] = []
        with pytest.raises(UpstreamError) as failed:
            async with caller.send(server.url) as response:
                await response.pump(got.append)
        assert (failed.value.kind, got) == ("garbled", [b"owed"])


async def flood(request: Request, peer: Peer) -> None:
    peer.send(CHUNKED)
    piece = chunk(b"x" * 16_000)
    while not peer.closed.is_set():
        peer.send(piece)
        await peer.drain()


async def stopped(server: RawServer) -> None:
    """The server cannot send any more: what is in between is full."""
    peer = server.peers[0]
    while True:
        await until(lambda: not peer.writable.is_set())
        for _ in range(100):  # turns of the loop, in which the client would read if it did
            await asyncio.sleep(0)
        if not peer.writable.is_set():
            return


async def test_before_pump_no_more_is_read_than_the_buffer_holds(caller: Caller) -> None:
    async with raw_server(flood) as server, caller.send(server.url) as response:
        await stopped(server)
        assert response._early_size < MAX_EARLY + (300 << 10)


async def test_a_paused_reader_stops_the_upstream_and_a_resumed_one_gets_everything(caller: Caller) -> None:
    sent = 300 * 16_000

    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED)
        for _ in range(300):
            peer.send(chunk(b"x" * 16_000))
            await peer.drain()
        peer.send(LAST_CHUNK)

    async with raw_server(handler) as server, caller.send(server.url) as response:
        got = 0
        first = asyncio.Event()

        def sink(data: bytes) -> None:
            nonlocal got
            got += len(data)
            if not first.is_set():
                response.pause()
                response.pause()
                first.set()

        pump = asyncio.create_task(response.pump(sink))
        await first.wait()
        seen = got
        await stopped(server)
        assert got == seen < sent
        response.resume()
        response.resume()
        await pump
        assert got == sent
        await caller.transports[0].close()


async def test_a_connection_that_was_paused_at_its_end_is_used_again(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(chunked(b"ok"))

    async with raw_server(handler) as server:
        for _ in range(3):
            async with caller.send(server.url) as response:
                await response.pump(lambda _, response=response: response.pause())  # type: ignore[misc]
        assert len(server.peers) == 1
        await caller.transports[0].close()


@pytest.mark.parametrize("early", [True, False], ids=["with the head", "later"])
async def test_a_sink_that_raises_ends_the_call_with_its_error(early: bool, caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED + (chunk(b"a") if early else b""))
        await entered.wait()
        peer.send(chunk(b"b"))
        await peer.stall()

    class Broken(Exception):
        pass

    def sink(data: bytes) -> None:
        calls.append(data)
        raise Broken

    entered = asyncio.Event()
    calls: list[bytes] = []
    async with raw_server(handler) as server:
        async with caller.send(server.url) as response:
            entered.set()
            with pytest.raises(Broken):
                await response.pump(sink)
            await server.peers[0].closed.wait()
        assert len(calls) == 1
        assert caller.transports[0].open == 0


async def test_abort_ends_pump_with_the_given_error_and_closes_the_socket(caller: Caller) -> None:
    async with raw_server(hold) as server, caller.send(server.url) as response:
        late = UpstreamError("idle_timeout")
        pump = asyncio.create_task(response.pump(lambda _: None))
        await asyncio.sleep(0)
        response.abort(late)
        response.abort(KeyError())
        with pytest.raises(UpstreamError) as failed:
            await pump
        assert failed.value is late
        await server.peers[0].closed.wait()


async def test_abort_before_pump_or_read_is_raised_by_them(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(sized(b"whole"))

    async with raw_server(handler) as server:
        for reader in ("pump", "read"):
            async with caller.send(server.url) as response:
                response.abort(UpstreamError("total_timeout"))
                with pytest.raises(UpstreamError, match="total timeout"):
                    await (pumped(response) if reader == "pump" else response.read(10))


async def test_abort_from_within_the_sink_is_the_last_call_of_the_sink(caller: Caller) -> None:
    async with raw_server(flood) as server, caller.send(server.url) as response:
        calls = 0

        def sink(_: bytes) -> None:
            nonlocal calls
            calls += 1
            response.abort(UpstreamError("garbled", "too long"))

        with pytest.raises(UpstreamError, match="too long"):
            await response.pump(sink)
        assert calls == 1


async def test_abort_after_the_end_is_too_late(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(chunked(b"ok"))

    async with raw_server(handler) as server:
        async with caller.send(server.url) as response:
            await pumped(response)
            response.abort(KeyError())
        assert caller.transports[0].idle == 1
        await caller.transports[0].close()


@pytest.mark.parametrize("size", [0, 1, 16 << 10, 300_000, 5_000_000])
async def test_the_body_arrives_as_it_was_sent(size: int, caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(sized(request.body))

    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with raw_server(handler) as server:
        for _ in range(2):
            assert await caller.whole(server.url, body=body) == (200, body)
        assert len(server.peers) == 1
        await caller.transports[0].close()


async def test_a_stream_that_is_silent_costs_a_few_kilobytes(caller: Caller) -> None:
    async with raw_server(hold) as server:
        exchanges = [caller.send(server.url) for _ in range(101)]
        await exchanges[0].__aenter__()  # imports, caches
        tracemalloc.start()
        responses = [await exchange.__aenter__() for exchange in exchanges[1:]]
        ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/sluice/upstream/*")])
        tracemalloc.stop()
        per_stream = sum(trace.size for trace in ours.traces) / len(responses)
        for response in exchanges:
            await response.__aexit__(None, None, None)
    assert per_stream < 4096
