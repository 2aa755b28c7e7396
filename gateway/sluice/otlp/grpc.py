"""OTLP over gRPC: an Export call for each request (https://opentelemetry.io/docs/specs/otlp/#otlpgrpc)."""

import asyncio
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from sluice.otlp.receiver import Exported, ExportResult, ReceiverConfig, Signal, compressed, rejected_by
from sluice.upstream.grpc import GrpcChannel, GrpcFailed
from sluice.upstream.names import joined
from sluice.upstream.tls import grpc_tls
from sluice.wire import grpc_status as code
from sluice.wire.grpc_status import NAMES, retry_delay

AGAIN = frozenset(
    {
        code.CANCELLED,
        code.DEADLINE_EXCEEDED,
        code.ABORTED,
        code.OUT_OF_RANGE,
        code.UNAVAILABLE,
        code.DATA_LOSS,
    }
)
PORT, TLS_PORT = 4317, 443
MAX_REQUEST_BYTES = 4 << 20


class GrpcReceiver:
    """See `OtlpReceiver`. TLS where the endpoint is https://; its authorities are the system's, or those of
    the file that the environment's SSL_CERT_FILE names."""

    largest = MAX_REQUEST_BYTES
    _channel: GrpcChannel

    def __init__(self, config: ReceiverConfig, signal: Signal, deadline: float) -> None:
        url = urlsplit(config.endpoint)
        self._host, self._tls = url.hostname or "", url.scheme == "https"
        self._port = url.port or (TLS_PORT if self._tls else PORT)
        self._method = signal.method
        self._deadline = deadline
        self._gzip = config.compression == "gzip"
        self._metadata = [(name.lower(), value.reveal()) for name, value in config.headers.items()]
        self._metadata.append(("grpc-timeout", f"{round(deadline * 1000)}m"))
        if self._gzip:
            self._metadata.append(("grpc-encoding", "gzip"))

    async def __aenter__(self) -> Self:
        tls = grpc_tls() if self._tls else None
        self._channel = GrpcChannel(self._host, self._port, joined(self._host, self._port), tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._channel.close()

    async def export(self, body: bytes) -> Exported:
        message = await asyncio.to_thread(compressed, body) if self._gzip else body
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._channel.unary(
                    self._method, message, self._metadata, compressed=self._gzip
                )
        except TimeoutError as error:
            self._channel.close()  # a connection whose other end is gone says nothing: the next one is new
            return Exported("again", type(error).__name__)
        except GrpcFailed as error:
            wait = retry_delay(error.details)
            return Exported(_result(error.grpc, wait), f"gRPC status {NAMES[error.grpc]}", wait=wait or 0.0)
        return Exported("accepted", rejected=rejected_by(answer))


def _result(status: int, wait: float | None) -> ExportResult:
    """Maps a gRPC status to a result by the specification's table. RESOURCE_EXHAUSTED is an overload only
    with a time to wait; without one the request was too large."""
    if status in AGAIN or (status == code.RESOURCE_EXHAUSTED and wait is not None):
        return "again"
    return "refused" if status in (code.INVALID_ARGUMENT, code.RESOURCE_EXHAUSTED) else "failed"
