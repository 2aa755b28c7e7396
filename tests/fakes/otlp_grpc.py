"""A receiver of OTLP over gRPC, of grpcio and the official protobufs."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

Answer = Callable[[Any], Any]
"""Of the call's context, what it is answered with; raises, by `abort`, where it is refused."""


class GrpcCollector:
    """`answers` are what comes first; then everything is accepted. `requests`: what was accepted, in order."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = [*answers]
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: Any, context: Any, accepted: Any) -> Any:
        self.metadata.append({pair.key: pair.value for pair in context.invocation_metadata()})
        answer = self.answers.pop(0)(context) if self.answers else accepted
        if hasattr(answer, "__await__"):
            answer = await answer
        self.requests.append(request)
        return answer


def failing(code: grpc.StatusCode, delay: float | None = None) -> Answer:
    """Refuses a call; with a RetryInfo of `delay` seconds, where there are any."""

    async def answer(context: Any) -> None:
        if delay is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromNanoseconds(round(delay * 1e9))
            packed = Packed()
            packed.Pack(info)
            status = status_pb2.Status(code=code.value[0], message="later", details=[packed])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        await context.abort(code, "later")

    return answer


def answering(message: Any) -> Answer:
    return lambda context: message


@asynccontextmanager
async def collecting(
    *answers: Answer, port: int = 0, credentials: grpc.ServerCredentials | None = None, options: Any = ()
) -> AsyncIterator[GrpcCollector]:
    collector = GrpcCollector(*answers)

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:
            return await collector.answer(request, context, trace_service_pb2.ExportTraceServiceResponse())

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:
            accepted = metrics_service_pb2.ExportMetricsServiceResponse()
            return await collector.answer(request, context, accepted)

    class Logs(logs_service_pb2_grpc.LogsServiceServicer):
        async def Export(self, request: Any, context: Any) -> Any:
            return await collector.answer(request, context, logs_service_pb2.ExportLogsServiceResponse())

    server = grpc.aio.server(options=options)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(), server)
    address = f"127.0.0.1:{port}"
    collector.port = (
        server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    )
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)
