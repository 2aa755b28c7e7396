"""Streams of gRPC to a server that bounds how many there may be on a connection (RFC 9113 5.1.2)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest

from sluice.backends.transport import UpstreamRequest
from sluice.errors import UpstreamError
from sluice.upstream.grpc import GrpcChannel, GrpcFailed
from sluice.upstream.picked import PickedTransport
from tests.upstream.calls import until

HANG = 60.0
ECHO, REFUSE, HOLD, BAD = "/echo", "/refuse", "/hold", "/bad"
"""Paths: messages are sent back; the stream is ended with an error at once; it is never ended; no gRPC."""


class Server(asyncio.Protocol):
    """One connection of a gRPC server. `open`: the streams that it counts. Breaking its bound is `broken`."""

    def __init__(self, all: "list[Server]", bound: int) -> None:
        all.append(self)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.h2.local_settings = h2.settings.Settings(
            client=False, initial_values={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: bound}
        )
        self.bound = bound
        self.open: dict[int, str] = {}
        self.ours: set[int] = set()
        self.begun = self.most = self.resets = 0
        self.broken = self.lost = False
        self.deaf = False  # it reads and does nothing, as if its host were gone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.deaf:
            return
        self.h2.initiate_connection()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        try:
            events = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.broken, events = True, []
        for event in events:
            with contextlib.suppress(h2.exceptions.ProtocolError):  # reset by what came behind it
                self.heard(event)
        self.flush()

    def heard(self, event: h2.events.Event) -> None:
        id = cast("Any", event).stream_id if hasattr(event, "stream_id") else 0
        match event:
            case h2.events.RequestReceived():
                path = dict(event.headers or ())[b":path"].decode()
                self.open[id] = path
                self.begun += 1
                self.most = max(self.most, len(self.open))
                status = "404" if path == BAD else "200"
                self.h2.send_headers(id, [(":status", status), ("content-type", "application/grpc")])
                if path == REFUSE:
                    self.end(id, "8")
            case h2.events.DataReceived():
                self.h2.acknowledge_received_data(event.flow_controlled_length, id)
                if self.open.get(id) == ECHO:
                    self.h2.send_data(id, event.data)
            case h2.events.StreamEnded():
                if self.open.get(id) == ECHO:
                    self.end(id, "0")
                if id in self.ours:
                    self.open.pop(id, None)
            case h2.events.StreamReset():
                self.resets += 1
                self.open.pop(id, None)

    def end(self, id: int, status: str) -> None:
        """Our side of a stream; it is open until the client has ended its own."""
        self.ours.add(id)
        self.h2.send_headers(id, [("grpc-status", status)], end_stream=True)

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())


@asynccontextmanager
async def serving(bound: int, *, deaf: int = 0) -> AsyncIterator[tuple[GrpcChannel, list[Server]]]:
    """The first `deaf` connections say nothing."""
    loop = asyncio.get_running_loop()
    servers: list[Server] = []

    def accepted() -> Server:
        server = Server(servers, bound)
        server.deaf = len(servers) <= deaf
        return server

    listener = await loop.create_server(accepted, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    channel = GrpcChannel("127.0.0.1", port, "picker")
    try:
        yield channel, servers
    finally:
        channel.close()
        listener.close()
        await until(lambda: all(server.lost for server in servers))


async def free(channel: GrpcChannel) -> None:
    await until(lambda: all(connection.free for connection in channel._connections))


async def echoed(channel: GrpcChannel) -> None:
    stream = await channel.begin(ECHO)
    stream.send(b"hello")
    assert await stream.receive() == b"hello"
    stream.finish()


async def test_a_connection_is_used_again_by_one_stream_after_another() -> None:
    async with serving(1) as (channel, servers):
        for _ in range(20):
            await echoed(channel)
            await free(channel)
        assert [server.begun for server in servers] == [20]


async def test_streams_that_the_server_has_ended_do_not_fill_a_connection() -> None:
    async with serving(2) as (channel, servers):
        for path in (REFUSE, BAD) * 10:
            stream = await channel.begin(path)
            with pytest.raises(GrpcFailed):
                await stream.receive()
        await echoed(channel)
        assert [(server.begun, server.broken) for server in servers] == [(21, False)]
        await until(lambda: not servers[0].open)


async def test_a_stream_that_we_have_ended_counts_until_the_server_ends_it() -> None:
    async with serving(2) as (channel, servers):
        for _ in range(4):
            (await channel.begin(HOLD)).finish()
        await until(lambda: sum(len(server.open) for server in servers) == 4)
        assert [(len(server.open), server.broken) for server in servers] == [(2, False), (2, False)]
        for server in servers:
            for id in [*server.open]:
                server.end(id, "0")
                server.open.pop(id)
            server.flush()
        await free(channel)
        await echoed(channel)
        assert len(servers) == 2


async def test_calls_that_wait_for_one_connection_keep_to_its_bound() -> None:
    """They all began on it, before its settings had come."""
    async with serving(3) as (channel, servers):
        await asyncio.gather(*(echoed(channel) for _ in range(12)))
        assert sum(server.begun for server in servers) == 12
        assert all(server.most <= 3 and not server.broken for server in servers)


async def test_a_full_server_refuses_calls_and_keeps_those_that_it_has() -> None:
    async with serving(1) as (channel, servers):
        streams = [await channel.begin(ECHO) for _ in range(8)]
        with pytest.raises(GrpcFailed) as failed:
            await channel.begin(ECHO)
        assert "at a time" in failed.value.detail
        for stream in streams:
            stream.send(b"still here")
            assert await stream.receive() == b"still here"
            stream.finish()
        await free(channel)
        await echoed(channel)
        assert len(servers) == 8


async def test_streams_that_a_server_never_ends_are_reset_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sluice.upstream.grpc.ENDING", 16)
    async with serving(1 << 20) as (channel, servers):
        for _ in range(20):
            (await channel.begin(HOLD)).finish()
        await until(lambda: servers[0].begun == 20 and servers[0].resets == 4)


async def test_a_server_that_takes_no_calls_is_said_to() -> None:
    async with serving(0) as (channel, _):
        with pytest.raises(GrpcFailed) as failed:
            await channel.begin(ECHO)
        assert "takes no calls" in failed.value.detail


async def test_a_server_that_accepts_and_says_nothing_is_connected_to_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sluice.upstream.grpc.CONNECT", 0.5)
    async with serving(1, deaf=1) as (channel, servers), asyncio.timeout(HANG):
        with pytest.raises(GrpcFailed) as failed:
            await channel.begin(ECHO)
        assert "could not be connected to" in failed.value.detail
        await until(lambda: servers[0].lost)
        while True:  # the machine may be busy
            with contextlib.suppress(GrpcFailed):
                await echoed(channel)
                break


async def test_a_connection_that_has_fallen_silent_gets_no_more_streams_and_keeps_those_that_it_has() -> None:
    async with serving(2) as (channel, servers):
        held = await channel.begin(ECHO)
        channel.leave_silent(HANG)
        await echoed(channel)
        assert len(servers) == 1
        channel.leave_silent(0.0)
        await echoed(channel)
        assert len(servers) == 2
        held.send(b"still here")
        assert await held.receive() == b"still here"
        held.finish()
        await until(lambda: servers[0].lost)


async def test_a_picker_whose_host_is_gone_is_asked_on_a_new_connection() -> None:
    async with serving(9) as (channel, servers), asyncio.timeout(HANG):
        await echoed(channel)
        servers[0].deaf = True
        picked = PickedTransport(cast("Any", None), channel, timeout=0.05)
        while len(servers) < 2:
            with pytest.raises(UpstreamError):
                await picked.pick(UpstreamRequest("http://pool/v1/chat", (), b"{}"))
