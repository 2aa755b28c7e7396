import asyncio

import pytest

from sluice.config.types import Probe, Timeouts
from sluice.config.units import Seconds
from sluice.errors import UpstreamError
from sluice.routing.health import BreakerPolicy, BreakerState, Health
from sluice.routing.probes import watch
from sluice.upstream import HttpTransport
from tests.fakes.rawserver import Peer, RawServer, Request, sized


class Enough(Exception):
    """Ends the watch."""


async def probed(status: int, health: Health, times: int) -> list[str]:
    """Probe a server that answers `status` so many times; returns the paths asked for."""
    asked: list[str] = []

    async def handler(request: Request, peer: Peer) -> None:
        asked.append(f"{request.method} {request.path}")
        peer.send(sized(b"{}", status))

    left = [None] * times

    async def sleep(seconds: float) -> None:
        assert seconds == 7
        if not left:
            raise Enough
        left.pop()

    async with RawServer(handler) as server:
        transport = HttpTransport(server.url + "/v1")
        try:
            await watch(
                Probe(every=Seconds(7)),
                transport,
                server.url + "/v1/models",
                Timeouts(),
                [health],
                sleep=sleep,
            )
        except Enough:
            pass
        finally:
            await transport.close()
    return asked


async def test_a_probe_that_succeeds_lets_a_call_find_out() -> None:
    health = Health(asyncio.get_running_loop().time, BreakerPolicy(failures=1, open_for=1000, open_max=1000))
    health.failed(UpstreamError("server_error"))
    assert not health.ready()
    assert await probed(200, health, 1) == ["GET /v1/models"]
    assert health.ready()
    assert health.state is BreakerState.HALF_OPEN, "a call decides, not the probe"


async def test_probes_that_fail_open_the_breaker() -> None:
    health = Health(asyncio.get_running_loop().time, BreakerPolicy(failures=2))
    await probed(503, health, 2)
    assert health.state is BreakerState.OPEN


async def test_a_probe_on_a_stale_connection_says_nothing() -> None:
    health = Health(asyncio.get_running_loop().time, BreakerPolicy(failures=1))

    async def handler(request: Request, peer: Peer) -> None:
        if len(peer.requests) == 1:
            peer.send(sized(b"{}"))
        else:
            peer.close()

    left = [None] * 4

    async def sleep(seconds: float) -> None:
        if not left:
            raise Enough
        left.pop()

    async with RawServer(handler) as server:
        transport = HttpTransport(server.url)
        with pytest.raises(Enough):
            await watch(Probe(), transport, server.url, Timeouts(), [health], sleep=sleep)
        await transport.close()
    assert [len(peer.requests) for peer in server.peers] == [2, 2]
    assert health.state is BreakerState.CLOSED


async def test_an_upstream_that_wants_credentials_is_well() -> None:
    health = Health(asyncio.get_running_loop().time, BreakerPolicy(failures=1))
    await probed(401, health, 3)
    assert health.state is BreakerState.CLOSED
