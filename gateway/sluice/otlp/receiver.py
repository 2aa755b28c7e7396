"""The protocol of OTLP receivers, over HTTP or gRPC, as their senders use it."""

import gzip
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from sluice.config.types import MetricsPush, RecordOtlp, Tracing
from sluice.wire.protobuf import BadProtobuf, fields

ReceiverConfig = MetricsPush | RecordOtlp | Tracing


class Signal(msgspec.Struct, frozen=True):
    """A kind of telemetry: its path over HTTP, its method over gRPC."""

    path: str
    method: str


TRACES = Signal("/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export")
METRICS = Signal("/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
LOGS = Signal("/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export")

ExportResult = Literal["accepted", "again", "failed", "refused"]
"""again: the same request may be accepted later, as the specification says. refused: this very request never
will be. failed: everything else, such as credentials or an address that somebody may mend."""


class Exported(msgspec.Struct, frozen=True):
    """The result of a request. `reason`: why it was not accepted (a status, an error's name); `rejected`: how
    many spans, points or records of an accepted one were not; `wait`: seconds that the receiver wants nothing
    for."""

    result: ExportResult
    reason: str = ""
    rejected: int = 0
    wait: float = 0.0


class OtlpReceiver(Protocol):
    """To be entered before requests are sent to it, one at a time.

    `export` takes an Export…ServiceRequest and raises nothing. `largest`: bytes of a request, before it is
    compressed, that a receiver takes by default.
    """

    largest: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    async def export(self, body: bytes) -> Exported: ...


def rejected_by(answer: bytes) -> int:
    """Returns how many spans, points or records an Export…ServiceResponse rejects; 0 if the bytes are none."""
    try:
        partial = dict(fields(answer)).get(1, b"")
        count = dict(fields(partial)).get(1, 0) if isinstance(partial, bytes) else 0
    except BadProtobuf:
        return 0
    return count if isinstance(count, int) and count < 1 << 63 else 0


def compressed(body: bytes) -> bytes:
    """The body by gzip: the same bytes each time."""
    return gzip.compress(body, 6, mtime=0)
