"""Who reads a response from the socket's callbacks on: when it is told what, and what becomes of what it
raises."""

import asyncio

import pytest

from sluice.backends.transport import Sink, UpstreamResponse
from sluice.upstream.client import HttpTransport
from tests.fakes.rawserver import Peer, RawServer, Request, chunked, sized
from tests.upstream.calls import request, until


class Kept:
    """A reader that keeps what it hears, in order."""

    def __init__(self, *, takes: bool = True, fails: bool = False) -> None:
        self.heard: list[str | bytes] = []
        self._takes = takes
        self._fails = fails

    def sent(self) -> None:
        self.heard.append("sent")

    def begin(self, response: UpstreamResponse) -> Sink | None:
        self.heard.append(str(response.status))
        if self._fails:
            raise ValueError("not to my taste")
        return self.heard.append if self._takes else None


async def test_the_first_bytes_reach_it_before_a_task_is_woken() -> None:
    order: list[str] = []

    class Told(Kept):
        def begin(self, response: UpstreamResponse) -> Sink:
            order.append("reader")
            return self.heard.append

    async def answer(asked: Request, peer: Peer) -> None:
        peer.send(chunked(b"one", b"two"))

    reader = Told()
    async with RawServer(answer) as server:
        transport = HttpTransport(server.url)
        async with transport.send(request(server.url), connect=5, headers=5, reader=reader) as response:
            order.append("task")
            assert reader.heard == ["sent", b"onetwo"]
            await response.pump(reader.heard.append)
        assert order == ["reader", "task"]
        assert reader.heard == ["sent", b"onetwo"], "nothing twice"
        assert transport.idle == 1
        await transport.close()


async def test_without_a_sink_the_body_waits() -> None:
    async def answer(asked: Request, peer: Peer) -> None:
        peer.send(sized(b"why", 500))

    reader = Kept(takes=False)
    async with RawServer(answer) as server:
        transport = HttpTransport(server.url)
        async with transport.send(request(server.url), connect=5, headers=5, reader=reader) as response:
            assert await response.read(100) == b"why"
        assert reader.heard == ["sent", "500"]
        await transport.close()


async def test_what_it_raises_is_raised_by_pump_and_the_connection_is_closed() -> None:
    async def answer(asked: Request, peer: Peer) -> None:
        peer.send(chunked(b"one"))

    reader = Kept(fails=True)
    async with RawServer(answer) as server:
        transport = HttpTransport(server.url)
        async with transport.send(request(server.url), connect=5, headers=5, reader=reader) as response:
            with pytest.raises(ValueError, match="taste"):
                await response.pump(reader.heard.append)
        await server.all_closed()
        assert transport.open == 0
        await transport.close()


async def test_nothing_is_said_to_a_reader_that_has_gone() -> None:
    over = asyncio.Event()

    async def answer(asked: Request, peer: Peer) -> None:
        await over.wait()
        peer.send(chunked(b"one"))

    reader = Kept()
    async with RawServer(answer) as server:
        transport = HttpTransport(server.url)

        async def call() -> None:
            async with transport.send(request(server.url), connect=5, headers=5, reader=reader):
                pass

        task = asyncio.create_task(call())
        await until(lambda: bool(server.requests))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        over.set()
        await server.all_closed()
        assert reader.heard == ["sent"]
        await transport.close()
