import asyncio
import re

import pytest

from sluice.errors import StaleConnection, UpstreamError
from tests.fakes.rawserver import CHUNKED, Peer, Request, chunk, chunked, raw_server, sized
from tests.upstream.calls import Caller, pumped, until


async def answer(request: Request, peer: Peer) -> None:
    peer.send(chunked(b"ok"))


async def hold(request: Request, peer: Peer) -> None:
    """The head and a piece, and then nothing."""
    peer.send(CHUNKED + chunk(b"held"))
    await peer.stall()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_one_connection_serves_one_call_after_the_other(caller: Caller) -> None:
    async with raw_server(answer) as server:
        for _ in range(20):
            assert await caller.whole(server.url) == (200, b"ok")
        transport = caller.transports[0]
        assert (len(server.peers), len(server.requests), transport.dialed) == (1, 20, 1)
        assert (transport.open, transport.idle, transport.waiting) == (1, 1, 0)
        await transport.close()


async def test_concurrent_calls_have_a_connection_each_and_all_are_kept(caller: Caller) -> None:
    async with raw_server(answer) as server:
        await asyncio.gather(*(caller.whole(server.url) for _ in range(10)))
        assert caller.transports[0].idle == len(server.peers) == 10
        await asyncio.gather(*(caller.whole(server.url) for _ in range(10)))
        assert len(server.peers) == 10
        await caller.transports[0].close()


async def test_the_idle_connection_used_last_is_taken_first(caller: Caller) -> None:
    async with raw_server(answer) as server:
        await asyncio.gather(*(caller.whole(server.url) for _ in range(3)))
        for _ in range(5):
            await caller.whole(server.url)
        assert sorted(len(peer.requests) for peer in server.peers) == [1, 1, 6]
        await caller.transports[0].close()


async def test_an_idle_connection_that_is_too_old_is_closed_and_not_used(caller: Caller) -> None:
    clock = Clock()
    async with raw_server(answer) as server:
        transport = caller.transport(server.url, keepalive=60.0, clock=clock)
        await caller.whole(server.url)
        clock.now += 59.9
        await caller.whole(server.url)
        assert len(server.peers) == 1
        clock.now += 60
        await caller.whole(server.url)
        assert len(server.peers) == 2
        await server.peers[0].closed.wait()
        assert (transport.open, transport.idle) == (1, 1)
        await transport.close()


async def test_idle_connections_are_swept_without_a_call(caller: Caller) -> None:
    async with raw_server(answer) as server:
        transport = caller.transport(server.url, keepalive=0.05)
        await asyncio.gather(caller.whole(server.url), caller.whole(server.url))
        await server.all_closed()
        assert (transport.open, transport.idle) == (0, 0)


async def test_an_idle_connection_closed_by_the_upstream_leaves_the_pool(caller: Caller) -> None:
    async with raw_server(answer) as server:
        await caller.whole(server.url)
        server.peers[0].close()
        await until(lambda: caller.transports[0].open == 0)
        await caller.whole(server.url)
        assert len(server.requests) == 2
        await caller.transports[0].close()


async def second_call_breaks(request: Request, peer: Peer) -> None:
    if len(peer.requests) == 2:
        peer.close()
    else:
        peer.send(chunked(b"ok"))


async def test_a_call_on_a_stale_connection_is_not_sent_again_and_says_so(caller: Caller) -> None:
    async with raw_server(second_call_breaks) as server:
        await asyncio.gather(
            caller.whole(server.url), caller.whole(server.url)
        )  # two idle ones, both will be stale
        with pytest.raises(StaleConnection) as failed:
            await caller.whole(server.url)
        transport = caller.transports[0]
        assert (failed.value.kind, len(server.requests), transport.open, transport.dialed) == (
            "reset",
            3,
            0,
            2,
        )
        assert await caller.whole(server.url) == (
            200,
            b"ok",
        )  # a new connection: the other idle one is not to be trusted
        assert (transport.open, transport.idle, transport.dialed) == (1, 1, 3)
        await transport.close()


async def test_connections_that_came_to_rest_after_a_stale_one_are_kept(caller: Caller) -> None:
    clock = Clock()

    async def handler(request: Request, peer: Peer) -> None:
        if request.body == b"late":
            await closing.wait()
            peer.close()
            return
        peer.send(chunked(b"ok"))

    closing = asyncio.Event()
    async with raw_server(handler) as server:
        transport = caller.transport(server.url, clock=clock)
        await asyncio.gather(caller.whole(server.url), caller.whole(server.url), caller.whole(server.url))
        clock.now += 1
        stale = asyncio.create_task(caller.whole(server.url, body=b"late"))
        await until(lambda: len(server.requests) == 4)
        await caller.whole(server.url)  # on the second one, which is at rest later than the others were
        closing.set()
        with pytest.raises(StaleConnection):
            await stale
        assert (transport.open, transport.idle) == (1, 1)
        await transport.close()


async def test_a_new_connection_that_is_closed_is_not_called_stale(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.close()

    async with raw_server(handler) as server:
        with pytest.raises(UpstreamError) as failed:
            await caller.whole(server.url)
        assert (failed.value.kind, type(failed.value)) == ("reset", UpstreamError)


async def test_a_connection_that_was_handed_on_without_a_rest_is_not_called_stale(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        if len(peer.requests) == 1:
            await waits.wait()
            peer.send(chunked(b"ok"))
        else:
            peer.close()

    waits = asyncio.Event()
    async with raw_server(handler) as server:
        transport = caller.transport(server.url, max_connections=1)
        first, second = (asyncio.create_task(caller.whole(server.url)) for _ in range(2))
        await until(lambda: transport.waiting == 1 and len(server.requests) == 1)
        waits.set()
        assert await first == (200, b"ok")
        with pytest.raises(UpstreamError) as failed:
            await second
        assert (failed.value.kind, type(failed.value), len(server.requests)) == ("reset", UpstreamError, 2)


async def test_a_call_that_got_a_byte_is_not_called_stale(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        if len(peer.requests) == 1:
            peer.send(chunked(b"ok"))
        else:
            peer.send(b"H")
            peer.close()

    async with raw_server(handler) as server:
        await caller.whole(server.url)
        with pytest.raises(UpstreamError) as failed:
            await caller.whole(server.url)
        assert (failed.value.kind, type(failed.value), len(server.requests)) == ("reset", UpstreamError, 2)


@pytest.mark.parametrize("connections", [1, 3])
async def test_the_bulkhead_holds_and_waiters_are_served_in_their_order(
    connections: int, caller: Caller
) -> None:
    served: list[int] = []
    release = asyncio.Event()

    async def handler(request: Request, peer: Peer) -> None:
        await release.wait()
        peer.send(sized(request.body))

    async def call(number: int) -> None:
        _, body = await caller.whole(server.url, body=b"%d" % number)
        served.append(int(body))

    async with raw_server(handler) as server:
        transport = caller.transport(server.url, max_connections=connections)
        calls = [asyncio.create_task(call(number)) for number in range(8)]
        await until(lambda: transport.waiting == 8 - connections and len(server.requests) == connections)
        assert (transport.open, len(server.peers)) == (connections, connections)
        release.set()
        await asyncio.gather(*calls)
        assert set(served[:connections]) == set(range(connections))
        assert connections > 1 or served == sorted(served)
        assert (len(server.peers), transport.open, transport.waiting) == (connections, connections, 0)
        await transport.close()


async def test_a_full_pool_costs_the_connect_time_and_says_so(caller: Caller) -> None:
    async with raw_server(hold) as server:
        transport = caller.transport(server.url, max_connections=1)
        async with caller.send(server.url):
            with pytest.raises(UpstreamError) as failed:
                await caller.whole(server.url, connect=0.02)
            assert re.search("pool is full", failed.value.detail)
            assert failed.value.kind == "connect_timeout"
            assert (transport.open, transport.waiting) == (1, 0)
        assert transport.open == 0


async def test_a_place_whose_connection_broke_goes_to_the_next_waiter(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        if len(server.requests) == 1:
            await waits.wait()
            peer.reset()
        else:
            peer.send(chunked(b"ok"))

    waits = asyncio.Event()
    async with raw_server(handler) as server:
        transport = caller.transport(server.url, max_connections=1)
        first = asyncio.create_task(caller.whole(server.url))
        await until(lambda: len(server.requests) == 1)
        second = asyncio.create_task(caller.whole(server.url))
        await until(lambda: transport.waiting == 1)
        waits.set()
        with pytest.raises(UpstreamError):
            await first
        assert await second == (200, b"ok")
        await transport.close()


async def test_a_waiter_cancelled_just_as_it_is_served_passes_its_place_on(caller: Caller) -> None:
    async with raw_server(answer) as server:
        transport = caller.transport(server.url, max_connections=1)
        async with caller.send(server.url) as response:
            second, third = (asyncio.create_task(caller.whole(server.url)) for _ in range(2))
            await until(lambda: transport.waiting == 2)
            await pumped(response)
        second.cancel()  # it holds the connection by now, and has not run yet
        assert await third == (200, b"ok")
        assert second.cancelled()
        assert (transport.open, transport.idle, len(server.peers)) == (1, 1, 1)
        await transport.close()


async def test_close_spares_calls_in_flight_and_closes_their_connections_afterwards(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(CHUNKED)
        await closing.wait()
        peer.send(chunk(b"late") + b"0\r\n\r\n")

    closing = asyncio.Event()
    async with raw_server(handler) as server, caller.send(server.url) as response:
        await caller.transports[0].close()
        closing.set()
        assert await pumped(response) == b"late"


async def test_addresses_are_asked_for_once_and_again_after_their_time(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, lookups = Clock(), 0
    async with raw_server(second_call_breaks) as server:
        transport = caller.transport(server.url, clock=clock)
        names = transport.dialer._addresses
        look_up = names._look_up

        async def counted() -> object:
            nonlocal lookups
            lookups += 1
            return await look_up()

        monkeypatch.setattr(names, "_look_up", counted)
        await asyncio.gather(*(caller.whole(server.url) for _ in range(5)))
        assert (lookups, transport.dialed) == (1, 5)
        await transport.close()
        clock.now += 61
        await caller.whole(server.url)
        assert lookups == 2


async def test_a_second_address_is_tried_where_the_first_does_not_answer(caller: Caller) -> None:
    async with raw_server(answer) as server:
        transport = caller.transport(f"http://two.invalid:{server.port}")
        names = transport.dialer._addresses
        names._known = [(2, 1, 6, "", ("127.0.0.2", 1)), (2, 1, 6, "", ("127.0.0.1", server.port))]
        names._expires = float("inf")
        assert await caller.whole(f"http://two.invalid:{server.port}") == (200, b"ok")
        await transport.close()
