"""Few file descriptors and many clients: those that there is room for are served, the others are answered
503."""

import asyncio
import contextlib
import json
import resource
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, serving
from tests.fakes.rawserver import CHUNKED, LAST_CHUNK, Peer, RawServer, Request, chunk

FILES, CLIENTS = 256, 1000
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def config(*upstreams: str, more: str = "") -> str:
    sections = "".join(
        f"  u{n}: {{backend: openai, base_url: '{url}', api_key: k}}\n" for n, url in enumerate(upstreams)
    )
    aliases = "".join(
        f"  a{n}: {{tiers: [[{{upstream: u{n}, model: m}}]], retry: {{same_target: 0}}}}\n"
        for n in range(len(upstreams))
    )
    return f"""
server: {{listen: "127.0.0.1:${{API_PORT}}", admin_listen: "127.0.0.1:${{ADMIN_PORT}}", drain_delay: 0s{more}}}
keys: [{{id: test, digest: "{DIGEST}", default_alias: a0}}]
limits: {{address: null}}
upstreams:
{sections}aliases:
{aliases}"""


@pytest.fixture(autouse=True)
def enough_for_the_clients() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 3 * CLIENTS:
        pytest.skip("too few file descriptors for the clients of this test")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class Client:
    """One connection with one streaming call."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def call(cls, gateway: GatewayProcess, number: int, alias: str = "a0") -> "Client":
        client = cls(*await asyncio.open_connection("127.0.0.1", gateway.port))
        body = json.dumps({"sessionId": str(number), "message": "hi", "model": alias}).encode()
        head = f"POST /v1/chat/stream HTTP/1.1\r\nHost: x\r\nx-api-key: {KEY}\r\nContent-Type: application/json\r\n"
        client.writer.write(
            head.encode() + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        return client

    async def begun(self) -> int:
        """The status, when the answer's head is there."""
        return int((await self.reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1])

    async def rest(self) -> bytes:
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


def room_of(gateway: GatewayProcess) -> int:
    """Clients at a time, as the gateway says at its start."""
    line = gateway.wait_for(lambda record: record["event"] == "max_connections")
    assert line["level"] == "warning", "so few"
    room: int = line["used"]
    return room


async def served_whole(clients: list[Client]) -> None:
    for client in clients:
        assert b'"done"' in await client.rest()
        client.writer.close()


async def test_those_that_there_is_room_for_are_served_and_the_others_are_answered_503() -> None:
    go = asyncio.Event()

    async def handler(_: Request, peer: Peer) -> None:
        peer.send(CHUNKED + chunk(EVENT))
        await go.wait()
        peer.send(chunk(END) + LAST_CHUNK)

    async with RawServer(handler) as upstream:
        with serving(config(upstream.url), shell=f'ulimit -n {FILES}; exec "$@"') as gateway:
            room = room_of(gateway)
            assert FILES // 4 < room < FILES // 2
            clients = await asyncio.gather(*(Client.call(gateway, number) for number in range(CLIENTS)))
            statuses = await asyncio.gather(*(client.begun() for client in clients))
            assert Counter(statuses) == {200: room, 503: CLIENTS - room}
            assert (await asyncio.to_thread(gateway.scrape)).count("sluice_build_info"), (
                "the admin port is served"
            )
            go.set()
            served = [client for client, status in zip(clients, statuses, strict=True) if status == 200]
            await served_whole(served)
            after = await Client.call(gateway, CLIENTS)
            assert await after.begun() == 200
            await served_whole([after])
            for client in clients:
                client.writer.close()
            refusals = await asyncio.to_thread(
                gateway.wait_for, lambda record: record["event"] == "connections_refused"
            )
            assert refusals["max_connections"] == room
            assert len(gateway.records("connections_refused")) == 1, "a line a minute, not a line each"
            assert not gateway.records("accept_failed")


async def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    async def handler(_: Request, peer: Peer) -> None:
        peer.send(CHUNKED + chunk(EVENT + END) + LAST_CHUNK)

    async with RawServer(handler) as upstream:
        text = config(upstream.url, more=", max_connections: 400")
        with serving(text, shell=f'ulimit -Hn 2048; ulimit -Sn {FILES}; exec "$@"') as gateway:
            gateway.wait_for(lambda record: record["event"] == "started")
            assert not gateway.records("max_connections"), "there are enough"
            clients = await asyncio.gather(*(Client.call(gateway, number) for number in range(380)))
            assert {await client.begun() for client in clients} == {200}
            await served_whole(clients)


async def test_connections_kept_for_one_upstream_are_given_up_for_another() -> None:
    """Three upstreams one after the other, each with as many calls at a time as there is room for."""

    arrived = asyncio.Semaphore(0)
    go = asyncio.Event()

    async def handler(_: Request, peer: Peer) -> None:
        arrived.release()
        await go.wait()
        peer.send(CHUNKED + chunk(EVENT + END) + LAST_CHUNK)

    async with RawServer(handler) as first, RawServer(handler) as second, RawServer(handler) as third:
        text = config(first.url, second.url, third.url)
        with serving(text, shell=f'ulimit -n {FILES}; exec "$@"') as gateway:
            room = room_of(gateway)
            for alias in ("a0", "a1", "a2", "a0"):
                go.clear()
                clients = await asyncio.gather(
                    *(Client.call(gateway, number, alias) for number in range(room))
                )
                async with asyncio.timeout(20):
                    for _ in clients:
                        await arrived.acquire()
                go.set()
                assert {await client.begun() for client in clients} == {200}
                await served_whole(clients)
