"""Metrics by OTLP at a receiver's end: every so often, of all workers together by one of them."""

import asyncio
import platform
from typing import Any

import aiohttp
import pytest

from tests.e2e.answers import ask
from tests.e2e.gateway_process import serving
from tests.e2e.gateways import HEAD, gateway
from tests.e2e.test_workers import client, config, listening, stream
from tests.fakes.faulty import Provider, healthy
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.upstream.calls import until

pb = pytest.importorskip(
    "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2",
    reason="opentelemetry-proto is not installed",
)


class Receiver(RawServer):
    """An OTLP receiver; `statuses` are what it answers first, then 200."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(self._answer)
        self._statuses = list(statuses)
        self.senders: list[str] = []
        self.metrics: dict[str, Any] = {}
        """By name, as the last request had them."""

    async def _answer(self, request: Request, peer: Peer) -> None:
        status = self._statuses.pop(0) if self._statuses else 200
        if status == 200:
            assert request.path == "/v1/metrics"
            assert request.headers["content-type"] == "application/x-protobuf"
            assert request.headers["authorization"] == "Bearer secret"
            [resource] = pb.ExportMetricsServiceRequest.FromString(request.body).resource_metrics
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            assert (attributes["service.name"], attributes["deployment.environment.name"]) == (
                "sluice",
                "test",
            )
            self.senders.append(attributes["service.instance.id"])
            self.metrics = {
                metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics
            }
        peer.transport.write(sized(b"", status))

    def value(self, name: str, **labels: str) -> float:
        """That of the series with these labels, of a counter or a gauge; 0.0 where there is none."""
        metric = self.metrics.get(name)
        for point in (
            (metric.sum if metric.HasField("sum") else metric.gauge).data_points if metric is not None else ()
        ):
            if labels.items() <= {pair.key: pair.value.string_value for pair in point.attributes}.items():
                return float(point.as_double)
        return 0.0


def pushing(receiver: Receiver) -> str:
    options = 'headers: {authorization: "Bearer secret"}, attributes: {deployment.environment.name: test}'
    return f'metrics: {{push: {{endpoint: "{receiver.url}", every: 50ms, {options}}}}}\n'


async def test_figures_are_pushed_and_a_receiver_that_was_away_misses_nothing() -> None:
    async with Receiver(503, 302) as receiver, Provider(healthy) as provider:
        text = f"""{HEAD}
upstreams: {{one: {{backend: openai, base_url: "{provider.url}"}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
{pushing(receiver)}"""
        async with gateway(text) as g, aiohttp.ClientSession(g.url) as session:
            for _ in range(3):
                await ask(session, "openai stream", "chat")
            await until(lambda: receiver.value("sluice_requests", alias="chat", code="2xx") == 3)
            await until(lambda: receiver.value("sluice_metrics_pushes", result="failed") == 2)
            await until(lambda: g.metric('sluice_metrics_pushes_total{result="ok"}') > 0)
            said = [line for line in g.log_lines if line["event"].startswith("metrics_")]
            assert [(line["event"], line["why"]) for line in said] == [
                ("metrics_not_pushed", "status 503"),
                ("metrics_pushed", "status 503"),
            ]
            await ask(session, "openai stream", "chat")
            await until(
                lambda: g.metric('sluice_requests_total{alias="chat",code="2xx",frontend="openai"}') == 4
            )
        assert (
            receiver.value("sluice_requests", alias="chat", code="2xx") == 4
        )  # the last request is made at the end


async def test_figures_are_pushed_over_grpc() -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from tests.fakes.otlp_grpc import answering, collecting, failing

    partial = pb.ExportMetricsServiceResponse()
    partial.partial_success.rejected_data_points = 3
    refuse = failing(grpc.StatusCode.UNAUTHENTICATED)
    async with collecting(refuse, answering(partial)) as collector, Provider(healthy) as provider:
        text = f"""{HEAD}
upstreams: {{one: {{backend: openai, base_url: "{provider.url}"}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
metrics: {{push: {{endpoint: "{collector.url}", protocol: grpc, every: 50ms}}}}
"""
        async with gateway(text) as g, aiohttp.ClientSession(g.url) as session:
            await ask(session, "openai stream", "chat")
            await until(lambda: g.metric('sluice_metrics_pushes_total{result="ok"}') > 0)
            said = [line["why"] for line in g.log_lines if line["event"] == "metrics_not_pushed"]
            assert said == ["gRPC status UNAUTHENTICATED"]
            assert g.metric('sluice_metrics_pushes_total{result="failed"}') == 2
        [resource] = collector.requests[-1].resource_metrics
        found = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
        assert sum(point.as_double for point in found["sluice_requests"].sum.data_points) == 1


async def test_one_worker_pushes_what_all_have_counted() -> None:
    async with Receiver() as receiver:
        with serving(config(3, tokens=2, delay="0ms") + pushing(receiver)) as gateway:
            await asyncio.to_thread(listening, gateway, 3)
            async with client(gateway) as session:
                assert {await stream(session, str(number)) for number in range(30)} == {"done"}
            await until(lambda: receiver.value("sluice_requests", alias="chat", code="2xx") == 30)
            await until(lambda: receiver.value("sluice_workers") == 3)
            assert receiver.value("process_resident_memory_bytes") > 1e6
            before = len(receiver.senders)
            await until(lambda: len(receiver.senders) >= before + 5)
            # The whole gateway's, whichever worker has sent them, and whichever was replaced since.
            assert set(receiver.senders) == {f"{platform.node()}:{gateway.process.pid}"}
            await asyncio.to_thread(gateway.stop)
