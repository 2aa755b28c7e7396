"""Requests to a real gRPC server of the official protobufs, and to an HTTP server: what became of them."""

import asyncio
import gzip
import ssl
from pathlib import Path
from typing import Any

import pytest

from sluice.config.types import HeaderValue, Tracing
from sluice.otlp.client import receiver_of
from sluice.otlp.receiver import LOGS, METRICS, TRACES, Exported, OtlpReceiver
from tests.fakes.rawserver import Peer, RawServer, Request, refused_url, sized

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

from google.rpc import status_pb2  # noqa: E402
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: E402
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: E402
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: E402

from tests.fakes.otlp_grpc import GrpcCollector, answering, collecting, failing  # noqa: E402

Code = grpc.StatusCode
REQUEST = trace_service_pb2.ExportTraceServiceRequest()
REQUEST.resource_spans.add().scope_spans.add().spans.add(name="chat", trace_id=b"1" * 16)
BODY = REQUEST.SerializeToString()
DEADLINE = 60.0


def receiver(url: str, *, signal: Any = TRACES, deadline: float = DEADLINE, **options: Any) -> OtlpReceiver:
    return receiver_of(Tracing(endpoint=url, **{"protocol": "grpc", **options}), signal, deadline)


async def exported(collector: GrpcCollector, **options: Any) -> Exported:
    async with receiver(collector.url, **options) as to:
        return await to.export(BODY)


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_request_arrives_with_its_headers_by_one_connection(compression: str) -> None:
    async with collecting() as collector:
        headers = {"Authorization": HeaderValue("Bearer x")}
        async with receiver(collector.url, compression=compression, headers=headers) as to:
            for _ in range(3):
                assert await to.export(BODY) == Exported("accepted")
        assert collector.requests == [REQUEST] * 3
        assert collector.metadata[0]["authorization"] == "Bearer x"


@pytest.mark.parametrize(
    ("signal", "request_type"),
    [
        (METRICS, metrics_service_pb2.ExportMetricsServiceRequest),
        (LOGS, logs_service_pb2.ExportLogsServiceRequest),
    ],
)
async def test_each_signal_has_its_service(signal: Any, request_type: Any) -> None:
    async with collecting() as collector:
        async with receiver(collector.url, signal=signal) as to:
            assert await to.export(b"") == Exported("accepted")
        assert isinstance(collector.requests[0], request_type)


@pytest.mark.parametrize(
    ("code", "delay", "result"),
    [
        (Code.CANCELLED, None, "again"),
        (Code.UNKNOWN, None, "failed"),
        (Code.INVALID_ARGUMENT, None, "refused"),
        (Code.DEADLINE_EXCEEDED, None, "again"),
        (Code.NOT_FOUND, None, "failed"),
        (Code.ALREADY_EXISTS, None, "failed"),
        (Code.PERMISSION_DENIED, None, "failed"),
        (Code.UNAUTHENTICATED, None, "failed"),
        (Code.RESOURCE_EXHAUSTED, None, "refused"),
        (Code.RESOURCE_EXHAUSTED, 1.5, "again"),
        (Code.FAILED_PRECONDITION, None, "failed"),
        (Code.ABORTED, None, "again"),
        (Code.OUT_OF_RANGE, None, "again"),
        (Code.UNIMPLEMENTED, None, "failed"),
        (Code.INTERNAL, None, "failed"),
        (Code.UNAVAILABLE, None, "again"),
        (Code.UNAVAILABLE, 7.25, "again"),
        (Code.DATA_LOSS, None, "again"),
    ],
)
async def test_a_status_is_taken_as_the_specification_says(
    code: Any, delay: float | None, result: Any
) -> None:
    async with collecting(failing(code, delay)) as collector, receiver(collector.url) as to:
        assert await to.export(BODY) == Exported(result, f"gRPC status {code.name}", wait=delay or 0.0)
        assert await to.export(BODY) == Exported("accepted")  # the connection serves the next one


async def test_what_a_receiver_rejects_of_a_request_is_told() -> None:
    partial = trace_service_pb2.ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 300
    partial.partial_success.error_message = "too old"
    warned = trace_service_pb2.ExportTraceServiceResponse()
    warned.partial_success.error_message = "slow down"
    async with collecting(answering(partial), answering(warned)) as collector:
        assert await exported(collector) == Exported("accepted", rejected=300)
        assert await exported(collector) == Exported("accepted")


async def test_a_request_that_is_too_large_for_the_server_is_refused() -> None:
    async with (
        collecting(options=(("grpc.max_receive_message_length", 1000),)) as collector,
        receiver(collector.url) as to,
    ):
        large = trace_service_pb2.ExportTraceServiceRequest()
        large.resource_spans.add(schema_url="x" * 200_000)
        assert (await to.export(large.SerializeToString())).result == "refused"
        assert (await to.export(BODY)).result == "accepted"


async def test_megabytes_arrive_whole() -> None:
    async with collecting() as collector, receiver(collector.url) as to:
        large = trace_service_pb2.ExportTraceServiceRequest()
        large.resource_spans.add(schema_url="x" * (to.largest - 1000))
        assert (await to.export(large.SerializeToString())).result == "accepted"
        assert collector.requests == [large]


async def test_a_server_that_restarts_is_found_again() -> None:
    async with collecting() as collector:
        to = receiver(collector.url)
        await to.__aenter__()
        assert (await to.export(BODY)).result == "accepted"
    assert (await to.export(BODY)).result == "again"
    async with collecting(port=collector.port) as second:
        assert (await to.export(BODY)).result == "accepted"
        assert second.requests == [REQUEST]
    await to.__aexit__(None, None, None)


async def test_a_server_that_says_nothing_costs_the_deadline_and_the_connection() -> None:
    async def silent(context: Any) -> None:
        await asyncio.Event().wait()

    async with collecting(silent) as collector:
        async with receiver(collector.url, deadline=0.2) as to:
            assert (await to.export(BODY)).result == "again"
        async with receiver(collector.url) as to:
            assert (await to.export(BODY)).result == "accepted"


@pytest.mark.parametrize("status", [400, 401, 404, 503])
async def test_a_server_that_speaks_http_1_is_no_receiver(status: int) -> None:
    async def answer(request: Request, peer: Peer) -> None:
        peer.send(sized(b"no", status))

    async with RawServer(answer) as server, receiver(server.url) as to:
        assert (await to.export(BODY)).result == "again"


async def test_nobody_there_is_another_try() -> None:
    async with receiver(refused_url()) as to:
        assert (await to.export(BODY)).result == "again"


async def test_over_tls_the_server_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trustme = pytest.importorskip("trustme")
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    async with collecting(credentials=credentials) as collector:
        for trusted, result in ((authority, "accepted"), (other, "again")):
            trusted.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
            monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "ca.pem"))
            async with receiver(collector.url.replace("http:", "https:")) as to:
                assert (await to.export(BODY)).result == result


# --- over HTTP


@pytest.mark.parametrize(
    ("status", "headers", "result", "wait"),
    [
        (429, "", "again", 0.0), (502, "", "again", 0.0), (503, "retry-after: 7\r\n", "again", 7.0), (504, "", "again", 0.0),
        (400, "", "refused", 0.0), (413, "", "refused", 0.0), (401, "", "failed", 0.0), (500, "", "failed", 0.0),
        (302, "location: /\r\n", "failed", 0.0),
    ],
)  # fmt: skip
async def test_an_http_status_is_taken_as_the_specification_says(
    status: int, headers: str, result: Any, wait: float
) -> None:
    async def answer(request: Request, peer: Peer) -> None:
        head, _, body = sized(status_pb2.Status().SerializeToString(), status).partition(b"\r\n\r\n")
        peer.send(head + b"\r\n" + headers.encode() + b"\r\n" + body)

    async with RawServer(answer) as server, receiver(server.url, protocol="http") as to:
        assert await to.export(BODY) == Exported(result, f"status {status}", wait=wait)


async def test_over_http_bodies_are_compressed_and_rejections_read() -> None:
    taken: list[Request] = []
    partial = trace_service_pb2.ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 2
    body = partial.SerializeToString()

    async def answer(request: Request, peer: Peer) -> None:
        taken.append(request)
        kind = "application/x-protobuf" if len(taken) == 1 else "text/html"
        peer.send(
            f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )

    async with RawServer(answer) as server, receiver(server.url, protocol="http", compression="gzip") as to:
        assert await to.export(BODY) == Exported("accepted", rejected=2)
        assert await to.export(BODY) == Exported("accepted")
    assert taken[0].path == "/v1/traces"
    assert taken[0].headers["content-encoding"] == "gzip"
    assert gzip.decompress(taken[0].body) == BODY
