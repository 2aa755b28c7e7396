"""307 and 308 within the origin are followed once, with the body; nothing else is."""

import pytest

from tests.fakes.rawserver import Peer, Request, raw_server, sized
from tests.upstream.calls import Caller, pumped


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("location", ["/moved", "moved?x=1", "{url}/v2/moved#there"])
async def test_the_same_request_goes_to_where_it_leads(status: int, location: str, caller: Caller) -> None:
    seen: list[tuple[str, bytes]] = []

    async def handler(request: Request, peer: Peer) -> None:
        seen.append((request.path, request.body))
        if "moved" in request.path:
            peer.send(sized(b"here"))
        else:
            peer.send(sized(b"elsewhere", status, ("Location", location.format(url=server.url))))

    async with raw_server(handler) as server:
        assert await caller.whole(server.url, body=b'{"a":1}') == (200, b"here")
        assert [body for _, body in seen] == [b'{"a":1}'] * 2
        assert len(server.peers) == 1, "the connection is used again"
        await caller.transports[0].close()


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (307, "http://elsewhere.invalid/"), (308, "https://{host}/"), (301, "/moved"), (302, "/moved"), (303, "/moved"),
        (307, ""), (307, "http://["),
    ],
)  # fmt: skip
async def test_others_are_left_to_who_asked(status: int, location: str, caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        peer.send(
            sized(b"elsewhere", status, ("Location", location.format(host=server.url.partition("://")[2])))
        )

    async with raw_server(handler) as server, caller.send(server.url) as response:
        assert response.status == status
        assert await pumped(response) == b"elsewhere"
        await caller.transports[0].close()


async def test_a_ring_is_followed_once(caller: Caller) -> None:
    seen = 0

    async def handler(request: Request, peer: Peer) -> None:
        nonlocal seen
        seen += 1
        peer.send(sized(b"", 307, ("Location", "/again")))

    async with raw_server(handler) as server:
        assert await caller.whole(server.url) == (307, b"")
        assert seen == 2
        await caller.transports[0].close()


async def test_a_redirect_whose_body_does_not_end_costs_a_connection_only(caller: Caller) -> None:
    async def handler(request: Request, peer: Peer) -> None:
        if request.path == "/moved":
            peer.send(sized(b"here"))
        else:
            peer.send(b"HTTP/1.1 308 X\r\nLocation: /moved\r\nContent-Length: 100\r\n\r\nabc")
            await peer.stall()

    async with raw_server(handler) as server:
        assert await caller.whole(server.url) == (200, b"here")
        assert len(server.peers) == 2
        await caller.transports[0].close()
