"""Sends metrics to an OTLP receiver every so often.

Metrics are cumulative, so a failed request is not repeated: the next one has the same data. One of several
workers sends the metrics of all.
"""

import asyncio
import platform
from collections.abc import Awaitable, Callable

from sluice.config.types import MetricsPush
from sluice.errors import GatewayError
from sluice.otlp.client import receiver_of
from sluice.otlp.receiver import METRICS, OtlpReceiver
from sluice.telemetry.points import requests
from sluice.version import VERSION

DEADLINE = 10.0
"""Maximum seconds for collecting and sending one push."""

Collect = Callable[[], Awaitable[bytes]]
"""Returns the current metrics as fields of ScopeMetrics; empty if another process sends them."""


class MetricsPusher:
    """Sends metrics to the receiver at an interval.

    `count` is called with the result of each push (ok, failed) and the reason of a failure. `process` is the
    id that metrics are sent under; with several workers it is the supervisor's. With a worker's own id each
    other worker that sends would begin new series, which start at the totals of all
    (https://opentelemetry.io/docs/specs/semconv/resource/service/#service-instance).
    """

    def __init__(
        self, config: MetricsPush, process: int, collect: Collect, count: Callable[[str, str], object]
    ) -> None:
        self._config = config
        self._every = float(config.every)
        self._collect = collect
        self._count = count
        self._resource = {
            "service.name": config.service, "service.version": VERSION,
            "service.instance.id": f"{platform.node()}:{process}", **config.attributes,
        }  # fmt: skip

    async def run(self) -> None:
        """Sends metrics periodically until cancelled; then once more."""
        async with receiver_of(self._config, METRICS, DEADLINE) as receiver:
            try:
                while True:
                    await asyncio.sleep(self._every)
                    await self._push(receiver)
            finally:
                await self._push(receiver)

    async def _push(self, receiver: OtlpReceiver) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                metrics = await self._collect()
        except (TimeoutError, OSError, GatewayError) as error:
            self._count("failed", type(error).__name__)
            return
        rejected = 0
        for body in requests(
            metrics, self._resource, scope="sluice", version=VERSION, largest=receiver.largest
        ):
            exported = await receiver.export(body)
            if exported.result != "accepted":
                self._count("failed", exported.reason)
                return
            rejected += exported.rejected
        if metrics:
            self._count("failed" if rejected else "ok", f"{rejected} points rejected" if rejected else "")
