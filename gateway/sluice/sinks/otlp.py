"""Sends records as log records of OpenTelemetry to an OTLP receiver. The whole record is the log record's
body; the fields that are searched by are attributes, too."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from sluice.config.types import RecordOtlp
from sluice.otlp.client import receiver_of
from sluice.otlp.receiver import LOGS
from sluice.sinks.delivery import Delivered, RecordBatch
from sluice.tracing.otlp import OtlpLog, logs
from sluice.version import VERSION

DEADLINE = 15.0
"""Seconds for one request."""
INFO, ERROR = 9, 17
"""Numbers of severities."""
NAME = "sluice.call"
ATTRIBUTES = (
    "request_id", "alias", "target", "key", "tenant", "frontend", "end", "status", "error", "stream", "duration", "ttft",
    "tokens_in", "tokens_out", "cost_usd",
)  # fmt: skip
"""Fields of records that become attributes, with the prefix `sluice.`."""


class OtlpLogs:
    """Sends batches as log records. See `Delivery`."""

    def __init__(self, config: RecordOtlp, instance: str) -> None:
        self._receiver = receiver_of(config, LOGS, DEADLINE)
        self._resource = {
            "service.name": config.service,
            "service.version": VERSION,
            "service.instance.id": instance,
        }

    async def __aenter__(self) -> Self:
        await self._receiver.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._receiver.__aexit__(kind, error, at)

    async def deliver(self, batch: RecordBatch) -> Delivered:
        """Sends the batch in as few requests as the receiver's limit of size allows. If one has to be sent
        again, all are."""
        refused, reason = 0, ""
        for body, records in await asyncio.to_thread(self._bodies, batch.lines):
            exported = await self._receiver.export(body)
            if exported.result in ("again", "failed"):
                return Delivered("again", exported.reason, wait=exported.wait)
            refused += min(exported.rejected, records) if exported.result == "accepted" else records
            reason = reason or exported.reason
        return Delivered("delivered", reason, refused)

    def _bodies(self, lines: Sequence[bytes]) -> list[tuple[bytes, int]]:
        """Returns the requests for these records, and the number of records in each."""
        records = [log_of(json.loads(line)) for line in lines]
        body = logs(records, self._resource, scope="sluice", version=VERSION)
        if len(body) <= self._receiver.largest or len(lines) == 1:
            return [(body, len(lines))]
        half = len(lines) // 2
        return [*self._bodies(lines[:half]), *self._bodies(lines[half:])]


def log_of(record: Mapping[str, Any]) -> OtlpLog:
    failed = record.get("error") is not None
    trace = str(record.get("trace_id", ""))
    return OtlpLog(
        NAME,
        _nanoseconds(record.get("timestamp", "")),
        ERROR if failed else INFO,
        "ERROR" if failed else "INFO",
        record,
        {f"sluice.{name}": record[name] for name in ATTRIBUTES if record.get(name) is not None},
        trace if len(trace) == 32 else "",
    )


def _nanoseconds(timestamp: str) -> int:
    try:
        return round(datetime.fromisoformat(timestamp).timestamp() * 1000) * 1_000_000
    except ValueError:
        return 0
