"""Sends metrics to an OTLP receiver over HTTP every so often
(https://opentelemetry.io/docs/specs/otlp/#otlphttp).

Metrics are cumulative, so a failed request is not repeated: the next one has the same data. One of several
workers sends the metrics of all.
"""

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp

from sluice.config.types import MetricsPush
from sluice.errors import GatewayError
from sluice.telemetry.points import request
from sluice.version import VERSION

DEADLINE = 10.0
"""Seconds for one request."""

Collect = Callable[[], Awaitable[bytes]]
"""Returns the current metrics as fields of ScopeMetrics; empty if another process sends them."""


def metrics_url(endpoint: str) -> str:
    """Returns the URL for metrics at a receiver with the base URL `endpoint`; an address with the path
    already in it is unchanged.
    """
    return (
        endpoint if urlsplit(endpoint).path.endswith("/v1/metrics") else f"{endpoint.rstrip('/')}/v1/metrics"
    )


class MetricsPusher:
    """`count` is called with the result of each request (ok, failed), and the reason of a failure."""

    def __init__(self, config: MetricsPush, collect: Collect, count: Callable[[str, str], object]) -> None:
        self._url = metrics_url(config.endpoint)
        self._headers = {name: value.reveal() for name, value in config.headers.items()}
        self._headers["content-type"] = "application/x-protobuf"
        self._every = float(config.every)
        self._collect = collect
        self._count = count
        self._resource = {
            "service.name": config.service, "service.version": VERSION,
            "service.instance.id": f"{platform.node()}:{os.getpid()}", **config.attributes,
        }  # fmt: skip

    async def run(self) -> None:
        """Sends metrics periodically until cancelled; then once more."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE)) as session:
            try:
                while True:
                    await asyncio.sleep(self._every)
                    await self._push(session)
            finally:
                await self._push(session)

    async def _push(self, session: aiohttp.ClientSession) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                metrics = await self._collect()
                if not metrics:
                    return
                body = request(metrics, self._resource, scope="sluice", version=VERSION)
                async with session.post(
                    self._url, data=body, headers=self._headers, allow_redirects=False
                ) as answer:
                    good = answer.status // 100 == 2
                    self._count("ok" if good else "failed", "" if good else f"status {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError, GatewayError) as error:
            self._count("failed", type(error).__name__)
