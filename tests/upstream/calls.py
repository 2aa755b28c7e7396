"""What the tests of the upstream client share: calls, and the loop's complaints."""

import asyncio
from collections.abc import Callable
from typing import Any

from sluice.backends.protocol import UpstreamRequest
from sluice.upstream import HttpTransport
from sluice.upstream.exchange import UpstreamExchange

HEADERS = (("content-type", "application/json"),)
LONG = 30.0
"""Seconds: a deadline that is not meant to pass."""


class Caller:
    def __init__(self) -> None:
        self.transports: list[HttpTransport] = []
        self.complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.complaints.append(context))

    def transport(self, url: str, **options: Any) -> HttpTransport:
        self.transports.append(HttpTransport(url, **options))
        return self.transports[-1]

    def send(
        self, url: str, *, connect: float = LONG, headers: float = LONG, body: bytes = b"{}"
    ) -> UpstreamExchange:
        if not self.transports:
            self.transport(url)
        return self.transports[-1].send(request(url, body), connect=connect, headers=headers)

    async def whole(self, url: str, **options: Any) -> tuple[int, bytes]:
        """Status and body of one call, read to its end."""
        async with self.send(url, **options) as response:
            return response.status, await pumped(response)

    async def close(self) -> None:
        for transport in self.transports:
            await transport.close()
            assert (transport.open, transport.idle, transport.waiting) == (0, 0, 0)
        assert self.complaints == []


def request(url: str, body: bytes = b"{}", method: str = "POST") -> UpstreamRequest:
    return UpstreamRequest(f"{url}/v1/chat/completions", HEADERS, body, method)


async def pumped(response: UpstreamExchange) -> bytes:
    reads: list[bytes] = []
    await response.pump(reads.append)
    assert b"" not in reads
    return b"".join(reads)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it holds (the test's own timeout is the bound)."""
    while not condition():
        await asyncio.sleep(0)
