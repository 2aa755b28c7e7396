"""The client goes: whatever phase the call is in, its socket is closed at once, and its place is free."""

import asyncio
from typing import Any

import pytest

from tests.fakes.rawserver import (
    CHUNKED,
    Peer,
    RawServer,
    Request,
    authority,
    black_hole,
    chunk,
    chunked,
    raw_server,
)
from tests.upstream.calls import Caller, pumped, request, until


async def ended(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def silent(request: Request, peer: Peer) -> None:
    await peer.stall()


async def hold(request: Request, peer: Peer) -> None:
    peer.send(CHUNKED + chunk(b"held"))
    await peer.stall()


async def flood(request: Request, peer: Peer) -> None:
    peer.send(CHUNKED)
    while not peer.closed.is_set():
        peer.send(chunk(b"x" * 10_000))
        await peer.drain()


async def test_while_waiting_for_a_place(caller: Caller) -> None:
    async with raw_server(hold) as server:
        transport = caller.transport(server.url, max_connections=1)
        async with caller.send(server.url):
            waiting = asyncio.create_task(caller.whole(server.url))
            await until(lambda: transport.waiting == 1)
            await ended(waiting)
            assert (transport.open, transport.waiting) == (1, 0)
        assert transport.open == 0


async def test_while_connecting(caller: Caller) -> None:
    with black_hole() as url:
        transport = caller.transport(url)
        connecting = asyncio.create_task(caller.whole(url))
        await until(lambda: transport.dialed == 1)
        for _ in range(5):
            await asyncio.sleep(0)
        await ended(connecting)
        assert transport.open == 0


@pytest.mark.parametrize("turns", range(12))
async def test_at_any_turn_of_the_loop_while_opening(turns: int, caller: Caller) -> None:
    async with raw_server(silent) as server:
        call = asyncio.create_task(caller.whole(server.url))
        for _ in range(turns):
            await asyncio.sleep(0)
        await ended(call)
        assert caller.transports == [] or caller.transports[0].open == 0
        await settled(server)


async def test_during_the_tls_handshake(caller: Caller) -> None:
    async with raw_server(silent) as server:  # accepts, and never says a word of TLS
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        call = asyncio.create_task(caller.whole(url))
        await until(lambda: len(server.peers) == 1)
        await ended(call)
        assert caller.transports[0].open == 0


async def test_while_waiting_for_the_head(caller: Caller) -> None:
    async with raw_server(silent) as server:
        call = asyncio.create_task(caller.whole(server.url))
        await until(lambda: len(server.requests) == 1)
        await ended(call)
        assert caller.transports[0].open == 0


@pytest.mark.parametrize("handler", [hold, flood])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_while_pumping(handler: Any, tls: bool, caller: Caller) -> None:
    async with raw_server(handler, tls=authority().server if tls else None) as server:
        if tls:
            caller.transport(server.url, tls=trusted())
        got = asyncio.Event()

        async def call() -> None:
            async with caller.send(server.url) as response:
                await response.pump(lambda _: got.set())

        task = asyncio.create_task(call())
        await got.wait()
        await ended(task)
        assert caller.transports[0].open == 0


async def test_while_held_back(caller: Caller) -> None:
    async with raw_server(flood) as server:
        paused = asyncio.Event()

        async def call() -> None:
            async with caller.send(server.url) as response:

                def sink(_: bytes) -> None:
                    response.pause()
                    paused.set()

                await response.pump(sink)

        task = asyncio.create_task(call())
        await paused.wait()
        await ended(task)
        assert caller.transports[0].open == 0


async def test_while_reading_an_error_answer(caller: Caller) -> None:
    async with raw_server(hold) as server:
        entered = asyncio.Event()

        async def call() -> None:
            async with caller.send(server.url) as response:
                entered.set()
                await response.read(1000)

        task = asyncio.create_task(call())
        await entered.wait()
        await ended(task)
        assert caller.transports[0].open == 0


async def test_leaving_early_closes_the_socket(caller: Caller) -> None:
    async with raw_server(hold) as server:
        async with caller.send(server.url) as response:
            assert response.status == 200
        await server.peers[0].closed.wait()
        assert caller.transports[0].open == 0


async def test_an_error_of_the_caller_closes_the_socket_unless_the_answer_was_read_to_its_end(
    caller: Caller,
) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(chunked(b"ok"))

    async with raw_server(handler) as server:
        with pytest.raises(KeyError):  # noqa: PT012
            async with caller.send(server.url) as response:
                await pumped(response)
                raise KeyError
        assert caller.transports[0].idle == 1
        await caller.transports[0].close()


async def test_hundreds_cancelled_at_random_leak_nothing(caller: Caller) -> None:
    async with raw_server(hold) as server:
        transport = caller.transport(server.url, max_connections=20)
        for batch in range(5):
            calls = [asyncio.create_task(caller.whole(server.url)) for _ in range(50)]
            for _ in range(batch * 7):
                await asyncio.sleep(0)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert (transport.open, transport.waiting) == (0, 0)
        await settled(server)


async def test_nothing_is_sent_or_opened_before_the_call_is_entered(caller: Caller) -> None:
    transport = caller.transport("http://127.0.0.1:1")
    transport.send(request("http://127.0.0.1:1"), connect=1, headers=1)
    assert (transport.open, transport.dialed) == (0, 0)


async def settled(server: RawServer) -> None:
    """Sockets that were closed before the server saw them are seen by it now."""
    for _ in range(20):
        await asyncio.sleep(0)


def trusted() -> Any:
    from sluice.upstream.tls import tls_context

    return authority().trust(tls_context())
