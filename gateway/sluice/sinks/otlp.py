"""Records as log records of OpenTelemetry. Pure.

The whole record is the log record's body; what is searched by is an attribute, too.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sluice.tracing.otlp import OtlpLog

INFO, ERROR = 9, 17
"""Numbers of severities."""
NAME = "sluice.call"
ATTRIBUTES = (
    "request_id", "alias", "target", "key", "tenant", "frontend", "end", "status", "error", "stream", "duration", "ttft",
    "tokens_in", "tokens_out", "cost_usd",
)  # fmt: skip
"""Fields of records that are attributes, behind `sluice.`."""


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
