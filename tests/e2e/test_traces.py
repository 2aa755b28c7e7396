"""Traces at a real receiver's end: what is sent is read by the official messages of OTLP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.e2e.answers import ask
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.faulty import Behaviour, Provider, Turn, cut, healthy, refusing
from tests.fakes.rawserver import Peer, RawServer, Request, sized
from tests.upstream.calls import until

pb = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="opentelemetry-proto is not installed"
)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Receiver(RawServer):
    """An OTLP receiver; `statuses` are what it answers first, then 200."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(self._answer)
        self._statuses = list(statuses)
        self.spans: list[Any] = []

    async def _answer(self, request: Request, peer: Peer) -> None:
        status = self._statuses.pop(0) if self._statuses else 200
        if status == 200:
            assert request.path == "/v1/traces"
            assert request.headers["content-type"] == "application/x-protobuf"
            message = pb.ExportTraceServiceRequest.FromString(request.body)
            self.spans += [
                span for part in message.resource_spans for scope in part.scope_spans for span in scope.spans
            ]
        peer.transport.write(sized(b"", status))

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def noted(event: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in event.attributes}


@asynccontextmanager
async def traced(
    one: Behaviour,
    two: Behaviour = healthy,
    *,
    tracing: str = "",
    interval: str = "20ms",
    receiver: Receiver | None = None,
    alias: str = "retry: {same_target: 0}",
) -> AsyncIterator[tuple[Running, Receiver, Provider]]:
    async with receiver or Receiver() as collector, Provider(one) as first, Provider(two) as second:
        config = f"""{HEAD}
upstreams:
  one: {{backend: openai, base_url: "{first.url}"}}
  two: {{backend: openai, base_url: "{second.url}"}}
aliases:
  chat: {{tiers: [[{{upstream: one, model: m1}}], [{{upstream: two, model: m2}}]], {alias}}}
tracing: {{endpoint: "{collector.url}", interval: {interval}{tracing}}}
"""
        async with gateway(config) as running:
            yield running, collector, second


async def call(running: Running, headers: dict[str, str] | None = None) -> None:
    async with aiohttp.ClientSession(running.url) as client:
        await ask(client, "openai stream", "chat", headers)


async def test_a_call_and_its_attempts_are_spans_of_the_callers_trace() -> None:
    async with traced(refusing("server")) as (running, receiver, second):
        await call(running, SAMPLED)
        await until(lambda: len(receiver.spans) == 3)
        (root,), (failed,), (answered,) = (
            receiver.named("chat chat"),
            receiver.named("chat m1"),
            receiver.named("chat m2"),
        )
        assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
        assert root.parent_span_id.hex() == PARENT
        assert {failed.parent_span_id, answered.parent_span_id} == {root.span_id}
        assert (root.kind, failed.kind, answered.kind) == (2, 3, 3)
        assert (root.status.code, failed.status.code, answered.status.code) == (0, 2, 0)
        assert attributes(failed)["error.type"] == "server_error"
        found = attributes(answered)
        assert found["gen_ai.provider.name"] == "openai"
        assert (found["gen_ai.operation.name"], found["gen_ai.request.model"]) == ("chat", "m2")
        assert found["gen_ai.usage.output_tokens"] > 0
        assert (found["server.address"], found["server.port"]) == ("127.0.0.1", second.port)
        assert attributes(root)["sluice.end"] == "done"
        assert root.start_time_unix_nano <= failed.start_time_unix_nano <= failed.end_time_unix_nano
        assert failed.end_time_unix_nano <= answered.start_time_unix_nano <= answered.end_time_unix_nano
        assert answered.end_time_unix_nano <= root.end_time_unix_nano
        assert [event.name for event in root.events] == ["failover", "first_token"]
        assert noted(root.events[0]) == {
            "sluice.from": "one/m1",
            "sluice.to": "two/m2",
            "sluice.cause": "server_error",
        }
        (request,) = second.requests
        assert request.headers["traceparent"] == f"00-{TRACE}-{answered.span_id.hex()}-01"
        (line,) = running.requests
        assert line["trace_id"] == TRACE


async def test_a_cut_stream_that_another_target_goes_on_with_is_a_recovery_of_its_span() -> None:
    async with traced(cut(20)) as (running, receiver, _):
        await call(running)
        await until(lambda: len(receiver.spans) == 3)
        (root,) = receiver.named("chat chat")
        assert [event.name for event in root.events] == ["first_token", "failover", "recovery"]
        assert noted(root.events[2]) == {"sluice.target": "two/m2", "sluice.how": "fresh"}
        times = [event.time_unix_nano for event in root.events]
        assert root.start_time_unix_nano <= times[0] <= times[1] <= times[2] <= root.end_time_unix_nano


async def test_waiting_for_a_place_and_being_refused_one_are_events() -> None:
    gate = asyncio.Event()

    async def held(turn: Turn) -> None:
        await gate.wait()
        await healthy(turn)

    queue = "limits: {streams: 1}, queue: {size: 1, timeout: 100s}"
    async with traced(held, alias=queue) as (running, receiver, _):
        calls = [asyncio.create_task(call(running)) for _ in range(2)]
        waiting = 'sluice_queue_length{alias="chat"}'
        await until(lambda: running.metric(waiting) == 1)
        async with aiohttp.ClientSession(running.url) as client:
            assert (await ask(client, "openai stream", "chat")).status == 429
        await asyncio.sleep(0.002)  # what is no longer than a millisecond is no wait
        gate.set()
        await asyncio.gather(*calls)
        await until(lambda: len(receiver.named("chat chat")) == 3)
        refused, first, second = sorted(receiver.named("chat chat"), key=lambda span: span.end_time_unix_nano)
        assert refused.status.code == 2
        limited = [event for event in refused.events if event.name != "waited"]  # for a machine that is busy
        assert [event.name for event in limited] == ["limited"]
        assert noted(limited[0]) == {"sluice.scope": "alias", "sluice.resource": "streams"}
        assert [event.name for event in first.events] == ["first_token"]
        assert [event.name for event in second.events] == ["waited", "first_token"]
        waited = noted(second.events[0])
        assert waited["sluice.reason"] == "queue"
        lasted = second.events[0].time_unix_nano - second.start_time_unix_nano
        assert 0 < waited["sluice.seconds"] * 1e9 <= lasted


async def test_waiting_for_the_sessions_turn_is_an_event_also_where_its_client_leaves() -> None:
    gate = asyncio.Event()

    async def held(turn: Turn) -> None:
        await gate.wait()
        await healthy(turn)

    async with (
        traced(held) as (running, receiver, _),
        aiohttp.ClientSession(running.url, headers={"x-api-key": KEY}) as client,
    ):

        async def turn() -> None:
            async with client.post("/v1/chat", json={"sessionId": "s", "message": "Count"}) as response:
                await response.read()

        first = asyncio.create_task(turn())
        await until(lambda: len(running.runtime.pipeline.runs) == 1)
        second = asyncio.create_task(turn())
        await until(lambda: running.metric('sluice_requests_waiting{alias="chat"}') == 1)
        await asyncio.sleep(0.002)  # what is no longer than a millisecond is no wait
        second.cancel()
        await until(lambda: len(receiver.named("chat chat")) == 1)
        (root,) = receiver.named("chat chat")
        assert [event.name for event in root.events] == ["waited", "client_gone"]
        assert noted(root.events[0])["sluice.reason"] == "turn"
        gate.set()
        await first


async def test_who_is_not_sampled_is_not_traced_but_its_errors_are() -> None:
    async with traced(healthy, tracing=", sample: 0") as (running, receiver, _):
        await call(running)
        await call(running, {"traceparent": f"00-{TRACE}-{PARENT}-00"})
        await call(running, SAMPLED)
        await until(lambda: len(receiver.spans) == 2)
        assert {span.trace_id.hex() for span in receiver.spans} == {TRACE}
    async with traced(cut(1), cut(1), tracing=", sample: 0") as (running, receiver, _):
        await call(running)
        await until(lambda: len(receiver.spans) >= 2)
        (root,) = receiver.named("chat chat")
        assert root.status.code == 2


async def test_every_call_is_traced_that_takes_as_long_as_the_rule_says() -> None:
    async with traced(healthy, tracing=", sample: 0, slow: 0s") as (running, receiver, _):
        await call(running)
        await until(lambda: len(receiver.spans) == 2)


async def test_older_conventions_have_older_names() -> None:
    async with traced(healthy, tracing=', semconv: "1.36"') as (running, receiver, _):
        await call(running)
        await until(lambda: len(receiver.spans) == 2)
        (attempt,) = receiver.named("chat m1")
        assert attributes(attempt)["gen_ai.system"] == "openai"
        assert "gen_ai.provider.name" not in attributes(attempt)


async def test_a_receiver_that_refuses_costs_its_spans_and_nothing_else() -> None:
    async with traced(healthy, receiver=Receiver(400)) as (running, receiver, _):
        await call(running)
        await until(lambda: running.metric('sluice_trace_spans_total{result="failed"}') == 2)
        await call(running)
        await until(lambda: running.metric('sluice_trace_spans_total{result="exported"}') == 2)
        assert len(receiver.spans) == 2


async def test_spans_go_over_grpc_and_what_is_rejected_of_them_has_failed() -> None:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    from tests.fakes.otlp_grpc import answering, collecting, failing

    partial = pb.ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 1
    unavailable = failing(grpc.StatusCode.UNAVAILABLE, 0.01)
    async with collecting(unavailable, answering(partial)) as collector, Provider(healthy) as provider:
        config = f"""{HEAD}
upstreams: {{one: {{backend: openai, base_url: "{provider.url}"}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m1}}]]}}}}
tracing: {{endpoint: "{collector.url}", protocol: grpc, compression: gzip, interval: 20ms}}
"""
        async with gateway(config) as running:
            await call(running, SAMPLED)
            await until(lambda: running.metric('sluice_trace_spans_total{result="failed"}') == 1)
            await until(lambda: running.metric('sluice_trace_spans_total{result="exported"}') == 1)
        (request,) = collector.requests
        spans = request.resource_spans[0].scope_spans[0].spans
        assert [span.trace_id.hex() for span in spans] == [TRACE] * 2


async def test_what_waits_when_the_gateway_stops_is_sent() -> None:
    async with traced(healthy, interval="1h") as (running, receiver, _):
        await call(running)
        assert not receiver.spans
    assert len(receiver.spans) == 2


async def test_more_spans_than_may_wait_are_dropped_and_counted() -> None:
    async with traced(healthy, tracing=", queue: 1", interval="1h") as (running, receiver, _):
        await call(running)
        await until(lambda: running.metric('sluice_trace_spans_total{result="dropped"}') == 2)
        assert not receiver.spans


async def test_without_tracing_a_callers_context_goes_on_as_it_came() -> None:
    async with Provider(healthy) as provider:
        config = f"""{HEAD}
upstreams: {{one: {{backend: openai, base_url: "{provider.url}"}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
"""
        async with gateway(config) as running:
            await call(running, SAMPLED)
            assert provider.requests[0].headers["traceparent"] == SAMPLED["traceparent"]
            assert "trace_id" not in running.requests[0]
