"""Traces, metrics and call records through a collector that others wrote (rotel), on to a receiver of the official
protobufs behind it."""

import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")

from tests.e2e.answers import ask
from tests.e2e.gateways import HEAD, gateway
from tests.fakes.faulty import Provider, healthy, refusing
from tests.fakes.otlp_grpc import GrpcCollector, collecting
from tests.servers import free_port
from tests.upstream.calls import until

PROGRAM = Path(__file__).parents[2] / ".cache" / "bin" / "rotel-agent"
PATIENCE = 60.0


@asynccontextmanager
async def collector(directory: Path) -> AsyncIterator[tuple[dict[str, str], GrpcCollector]]:
    """A collector's address by protocol, and what comes out of it."""
    if not PROGRAM.is_file():
        pytest.skip("no rotel-agent (make test fetches it into .cache/bin)")
    async with collecting() as behind:
        ports = {"grpc": free_port(), "http": free_port()}
        options = [f"--otlp-{name}-endpoint=127.0.0.1:{port}" for name, port in ports.items()]
        options += [
            "--exporter=otlp",
            f"--otlp-exporter-endpoint={behind.url}",
            "--otlp-exporter-protocol=grpc",
        ]
        log = directory / "collector.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220
                [PROGRAM, "start", *options, "--batch-timeout=100ms", f"--pid-file={directory}/pid"],
                stdout=output, stderr=output,
            )  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE
            async with aiohttp.ClientSession() as client:
                while True:
                    try:
                        await client.post(f"http://127.0.0.1:{ports['http']}/v1/traces")
                        break
                    except aiohttp.ClientError:
                        assert time.monotonic() < end, log.read_text("utf-8", "replace")
            yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}, behind
        finally:
            process.kill()
            process.wait()


def items(behind: GrpcCollector, signal: str, field: str) -> list[Any]:
    """The spans, metrics or log records of all requests."""
    return [
        item
        for request in behind.requests
        for resource in getattr(request, f"resource_{signal}", ())
        for scope in getattr(resource, f"scope_{signal}")
        for item in getattr(scope, field)
    ]


def spans(behind: GrpcCollector) -> list[Any]:
    return items(behind, "spans", "spans")


def logs(behind: GrpcCollector) -> list[Any]:
    return items(behind, "logs", "log_records")


def points(behind: GrpcCollector, name: str) -> list[Any]:
    return [metric for metric in items(behind, "metrics", "metrics") if metric.name == name]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_collector_takes_all_three_and_passes_them_on(
    protocol: str, compression: str, tmp_path: Path
) -> None:
    async with (
        collector(tmp_path) as (address, behind),
        Provider(refusing("server")) as one,
        Provider(healthy) as two,
    ):
        to = f'endpoint: "{address[protocol]}", protocol: {protocol}, compression: {compression}'
        config = f"""{HEAD}
upstreams:
  one: {{backend: openai, base_url: "{one.url}"}}
  two: {{backend: openai, base_url: "{two.url}"}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m1}}], [{{upstream: two, model: m2}}]], retry: {{same_target: 0}}}}}}
tracing: {{{to}, interval: 20ms}}
metrics: {{push: {{{to}, every: 1s}}}}
records: [{{name: out, interval: 20ms, otlp: {{{to}}}}}]
"""
        async with gateway(config) as running, aiohttp.ClientSession(running.url) as client:
            assert (await ask(client, "openai stream", "chat")).complete
            await until(lambda: len(spans(behind)) >= 3 and len(logs(behind)) >= 1)
            await until(lambda: bool(points(behind, "sluice_time_to_first_token_seconds")))
            (line,) = running.requests
            assert running.metric('sluice_trace_spans_total{result="failed"}') == 0
            assert running.metric('sluice_call_records_total{result="refused",sink="out"}') == 0
    call, *attempts = sorted(spans(behind), key=lambda span: span.start_time_unix_nano)
    assert {span.trace_id.hex() for span in (call, *attempts)} == {line["trace_id"]}
    assert {attempt.parent_span_id for attempt in attempts} == {call.span_id}
    (log,) = logs(behind)
    assert {pair.key: pair.value.string_value for pair in log.body.kvlist_value.values}["request_id"] == line[
        "request_id"
    ]
    assert log.trace_id.hex() == line["trace_id"]
    histogram = points(behind, "sluice_time_to_first_token_seconds")[-1].histogram
    assert sum(point.count for point in histogram.data_points) == 1
    requests = points(behind, "sluice_requests")[-1].sum
    assert requests.is_monotonic
    assert sum(point.as_double or point.as_int for point in requests.data_points) == 1
