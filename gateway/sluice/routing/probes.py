"""Active probes: a cheap request at intervals finds a recovered target without a caller's call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sluice.backends.protocol import Headers, UpstreamRequest
from sluice.backends.transport import Transport
from sluice.config.types import Probe, Timeouts
from sluice.errors import StaleConnection, UpstreamError
from sluice.routing.health import Health

BODY = 64 << 10


async def watch(
    probe: Probe,
    transport: Transport,
    url: str,
    timeouts: Timeouts,
    health: Sequence[Health],
    *,
    headers: Headers = (),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Probes one upstream and reports to the health of all its targets, until cancelled."""
    request = UpstreamRequest(url, headers, b"", method="GET")
    while True:
        await sleep(float(probe.every))
        try:
            await _ask(transport, request, timeouts)
        except StaleConnection:
            continue  # no sign of a failing upstream: the next probe gets a new connection
        except UpstreamError as error:
            for one in health:
                one.failed(error)
        else:
            for one in health:
                one.probe_succeeded()


async def _ask(transport: Transport, request: UpstreamRequest, timeouts: Timeouts) -> None:
    async with transport.send(request, connect=timeouts.connect, headers=timeouts.headers) as response:
        if response.status >= 500:
            raise UpstreamError("server_error", status=response.status)
        try:
            async with asyncio.timeout(timeouts.headers):
                await response.read(BODY)
        except TimeoutError:
            raise UpstreamError("headers_timeout", "The probe's answer did not end in time") from None
