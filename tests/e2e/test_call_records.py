"""Records of calls at the other end: files, webhooks, an object store that checks signatures, an OTLP
receiver."""

import asyncio
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.answers import ask
from tests.e2e.gateways import DIGEST, HEAD, Running, gateway
from tests.fakes.dialects import ANSWER
from tests.fakes.faulty import Behaviour, Provider, healthy, refusing
from tests.fakes.rawserver import Peer, RawServer, Request, refused_url, sized
from tests.upstream.calls import until


class Receiver(RawServer):
    """Takes whatever is sent; `statuses` are what it answers first, then 200."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(self._answer)
        self.statuses = list(statuses)
        self.taken: list[Request] = []

    async def _answer(self, request: Request, peer: Peer) -> None:
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            self.taken.append(request)
        peer.send(sized(b"", status))

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for request in self.taken for line in request.body.splitlines()]


@asynccontextmanager
async def recorded(
    sink: str, *, more: str = "", alias: str = "", first: Behaviour = healthy, head: str = HEAD
) -> AsyncIterator[Running]:
    async with Provider(first) as one, Provider(healthy) as two:
        config = f"""{head}
upstreams:
  one: {{backend: openai, base_url: "{one.url}"}}
  two: {{backend: openai, base_url: "{two.url}"}}
aliases:
  chat: {{tiers: [[{{upstream: one, model: m1}}], [{{upstream: two, model: m2}}]]{alias}}}
records: [{{name: out, interval: 10ms, {sink}}}]
{more}
"""
        async with gateway(config) as running:
            yield running


async def call(running: Running, mode: str = "openai stream") -> None:
    async with aiohttp.ClientSession(running.url) as client:
        assert (await ask(client, mode, "chat")).complete


def counted(running: Running, result: str) -> float:
    return running.metric(f'sluice_call_records_total{{result="{result}",sink="out"}}')


@pytest.mark.parametrize("mode", ["openai stream", "openai whole", "widget stream"])
async def test_a_record_has_what_is_known_of_the_call_and_no_text(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    async with recorded(f'file: {{path: "{path}"}}', first=refusing("server")) as running:
        await call(running, mode)
        await until(lambda: counted(running, "delivered") == 1)
        (line,) = running.requests
    (record,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert record["record"] == "call"
    assert (record["request_id"], record["alias"], record["key"], record["tenant"]) == (
        line["request_id"],
        "chat",
        "test",
        "test",
    )
    assert (record["end"], record["target"], record["status"]) == ("done", "two/m2", 200)
    failed, answered = record["attempts"][-2:]
    assert (failed["target"], failed["outcome"]) == ("one/m1", "server_error")
    assert (answered["target"], answered["outcome"]) == ("two/m2", "ok")
    assert answered["usage"]["output"] > 0
    assert answered["estimated"] is False
    assert not {"prompt", "answer"} & record.keys()
    assert ANSWER[:10] not in path.read_text()


@pytest.mark.parametrize("mode", ["openai stream", "openai whole", "widget stream", "widget whole"])
async def test_full_texts_are_in_records_and_never_in_the_log(mode: str) -> None:
    async with (
        Receiver() as receiver,
        recorded(f'webhook: {{url: "{receiver.url}/x"}}', alias=", log_content: full") as running,
    ):
        await call(running, mode)
        await until(lambda: len(receiver.taken) == 1)
        (record,) = receiver.lines
        assert record["prompt"]["messages"][-1] == {"role": "user", "content": "Count"}
        assert record["answer"]["text"] == ANSWER
        assert ANSWER[:10] not in running.log_bytes.getvalue().decode()


@pytest.mark.parametrize(
    ("alias", "key", "default", "expected"),
    [
        (", log_content: full", "none", "none", None), (", log_content: none", "full", "full", None),
        (", log_content: full", "hash", "none", "digest"), (", log_content: hash", "full", "none", "digest"),
        ("", "full", "full", "messages"), ("", "full", "none", None), (", log_content: full", "full", "none", "messages"),
    ],
)  # fmt: skip
async def test_the_stricter_of_alias_and_key_holds(
    alias: str, key: str, default: str, expected: str | None
) -> None:
    head = HEAD.replace(f'digest: "{DIGEST}", aliases', f'digest: "{DIGEST}", log_content: {key}, aliases')
    assert head != HEAD
    log = f"log: {{content: {default}, hash_key: secret}}"
    async with (
        Receiver() as receiver,
        recorded(f'webhook: {{url: "{receiver.url}/x"}}', alias=alias, head=head, more=log) as running,
    ):
        await call(running)
        await until(lambda: len(receiver.taken) == 1)
        (record,) = receiver.lines
        assert ("prompt" in record) is (expected is not None)
        if expected is not None:
            assert expected in record["prompt"]


async def test_a_webhook_gets_batches_with_its_headers() -> None:
    async with Receiver() as receiver:
        sink = f'webhook: {{url: "{receiver.url}/in", headers: {{authorization: "Bearer hook"}}, format: json, gzip: true}}'
        async with recorded(sink) as running:
            for _ in range(3):
                await call(running)
            await until(lambda: counted(running, "delivered") == 3)
    request = receiver.taken[0]
    assert (request.method, request.path, request.headers["authorization"]) == ("POST", "/in", "Bearer hook")
    assert (request.headers["content-type"], request.headers["content-encoding"]) == (
        "application/json",
        "gzip",
    )
    records = [record for taken in receiver.taken for record in json.loads(gzip.decompress(taken.body))]
    assert len({record["request_id"] for record in records}) == 3
    assert len({taken.headers["idempotency-key"] for taken in receiver.taken}) == len(receiver.taken)


async def test_a_receiver_that_is_away_fails_no_call_and_loses_no_record(tmp_path: Path) -> None:
    sink = f'webhook: {{url: "{refused_url()}/x"}}, spill: "{tmp_path}"'
    async with recorded(sink) as running:
        for _ in range(3):
            await call(running)
        await until(lambda: counted(running, "spilled") >= 1)
        assert any(line["event"] == "records_failing" for line in running.log_lines)
    async with (
        Receiver() as receiver,
        recorded(f'webhook: {{url: "{receiver.url}/x"}}, spill: "{tmp_path}"') as running,
    ):
        await until(lambda: len(receiver.lines) == 3)
        await until(lambda: not list(tmp_path.iterdir()))


async def test_a_disk_that_is_full_fails_no_call() -> None:
    async with recorded("file: {path: /dev/full, age: null}, buffer: 4KiB") as running:
        for _ in range(4):
            await call(running)
        await until(lambda: counted(running, "dropped") >= 1)
        await until(lambda: any(line["event"] == "records_failing" for line in running.log_lines))


async def test_what_waits_when_the_gateway_stops_is_sent() -> None:
    async with Receiver() as receiver:
        async with recorded(f'webhook: {{url: "{receiver.url}/x"}}') as running:
            await call(running)
        assert len(receiver.lines) == 1


class Store(Receiver):
    """An object store that computes signatures by itself, as Amazon describes them for PUT with a payload in
    one piece."""

    async def _answer(self, request: Request, peer: Peer) -> None:
        if self._signature(request) != request.headers["authorization"].rpartition("Signature=")[2]:
            peer.send(sized(b"<Error><Code>SignatureDoesNotMatch</Code></Error>", 403))
            return
        await super()._answer(request, peer)

    def _signature(self, request: Request) -> str:
        headers = request.headers
        _, _, given = headers["authorization"].partition(" ")
        fields = dict(part.strip().split("=", 1) for part in given.split(","))
        day, region, service, kind = fields["Credential"].split("/")[1:]
        names = fields["SignedHeaders"].split(";")
        assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names)
        assert headers["x-amz-content-sha256"] == hashlib.sha256(request.body).hexdigest()
        signed = "".join(f"{name}:{headers[name]}\n" for name in names)
        canonical = f"PUT\n{request.path}\n\n{signed}\n{';'.join(names)}\n{headers['x-amz-content-sha256']}"
        scope = f"{day}/{region}/{service}/{kind}"
        text = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = b"AWS4the secret"
        for part in (day, region, service, kind):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


async def test_an_object_store_gets_objects_by_date_with_a_signature_that_holds() -> None:
    async with Store() as store:
        bucket = f'bucket: records, endpoint: "{store.url}", prefix: "team=a/b/"'
        sink = f's3: {{{bucket}, region: eu-west-1, access_key: AK, secret_key: "the secret", session_token: st}}'
        async with recorded(sink) as running:
            await call(running)
            await until(lambda: len(store.taken) == 1)
    (request,) = store.taken
    (record,) = [json.loads(line) for line in gzip.decompress(request.body).splitlines()]
    moment = record["timestamp"]
    folder = moment[:13].replace("-", "/").replace("T", "/")
    assert request.path.startswith(f"/records/team%3Da/b/{folder}/")
    assert request.path.endswith(".ndjson.gz")
    assert request.headers["x-amz-security-token"] == "st"
    assert "eu-west-1/s3/aws4_request" in request.headers["authorization"]


async def test_an_otlp_receiver_gets_log_records() -> None:
    messages = pytest.importorskip(
        "opentelemetry.proto.collector.logs.v1.logs_service_pb2",
        reason="opentelemetry-proto is not installed",
    )
    async with (
        Receiver() as receiver,
        recorded(f'otlp: {{endpoint: "{receiver.url}"}}', alias=", log_content: full") as running,
    ):
        await call(running)
        await until(lambda: len(receiver.taken) == 1)
    (request,) = receiver.taken
    assert (request.path, request.headers["content-type"]) == ("/v1/logs", "application/x-protobuf")
    (resource,) = messages.ExportLogsServiceRequest.FromString(request.body).resource_logs
    (log,) = resource.scope_logs[0].log_records
    attributes = {pair.key: pair.value for pair in log.attributes}
    assert attributes["sluice.alias"].string_value == "chat"
    assert attributes["sluice.tokens_out"].int_value == 60
    assert log.time_unix_nano > 1_700_000_000 * 10**9
    body = {pair.key: pair.value for pair in log.body.kvlist_value.values}
    assert body.keys() >= {"prompt", "answer", "attempts"}
    (attempt,) = body["attempts"].array_value.values
    assert {pair.key: pair.value for pair in attempt.kvlist_value.values}["outcome"].string_value == "ok"
    assert (log.severity_text, log.event_name) == ("INFO", "sluice.call")


async def test_a_receiver_over_grpc_gets_log_records_and_those_that_it_rejects_are_refused() -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2

    from tests.fakes.otlp_grpc import answering, collecting

    partial = logs_service_pb2.ExportLogsServiceResponse()
    partial.partial_success.rejected_log_records = 1
    async with collecting(answering(partial)) as collector:
        sink = f'otlp: {{endpoint: "{collector.url}", protocol: grpc, compression: gzip}}'
        async with recorded(sink) as running:
            for _ in range(3):
                await call(running)
            await until(lambda: (counted(running, "delivered"), counted(running, "refused")) == (2, 1))
        logs = [
            log
            for request in collector.requests
            for log in request.resource_logs[0].scope_logs[0].log_records
        ]
        ids = [
            pair.value.string_value
            for log in logs
            for pair in log.attributes
            if pair.key == "sluice.request_id"
        ]
        assert len({*ids}) == 3


def topic_of(*brokers: str) -> str:
    return f"kafka: {{brokers: {json.dumps(brokers)}, topic: calls, compression: zstd, headers: {{source: eu-1}}}}"


async def test_a_topic_gets_a_message_for_each_record_through_a_broker_that_goes_and_comes(
    tmp_path: Path,
) -> None:
    kafka = pytest.importorskip("tests.fakes.kafka", reason="confluent-kafka is not installed")
    with kafka.Brokers() as brokers:
        async with recorded(topic_of(*brokers.addresses) + f', spill: "{tmp_path}"') as running:
            await call(running)
            await until(lambda: counted(running, "delivered") == 1)
            brokers.stop()
            await call(running)
            await call(running)
            await until(lambda: counted(running, "spilled") >= 1)
            assert {line["sink"] for line in running.log_lines if line["event"] == "records_failing"} == {
                "out"
            }
            brokers.start()
            ids = {line["request_id"] for line in running.requests}
        async with recorded(topic_of(*brokers.addresses) + f', spill: "{tmp_path}"') as running:
            await until(lambda: not list(tmp_path.iterdir()))
        found = await asyncio.to_thread(brokers.messages, 3)
    records = [json.loads(message.value()) for message in found]
    assert {record["request_id"] for record in records} == ids
    assert {message.key() for message in found} == {b"test"}
    assert {dict(message.headers())["source"] for message in found} == {b"eu-1"}


async def test_a_broker_of_another_make_gets_records(tmp_path: Path) -> None:
    kafka = pytest.importorskip("tests.fakes.kafka", reason="confluent-kafka is not installed")
    with kafka.tansu(tmp_path, "calls") as address:
        async with recorded(topic_of(address)) as running:
            for _ in range(3):
                await call(running)
            await until(lambda: counted(running, "delivered") == 3)
            ids = {line["request_id"] for line in running.requests}
        found = await asyncio.to_thread(kafka.consumed, {"bootstrap.servers": address}, "calls", 3, 3)
    assert {json.loads(message.value())["request_id"] for message in found} == ids


async def test_records_for_brokers_that_are_away_are_on_disk_when_the_gateway_has_ended(
    tmp_path: Path,
) -> None:
    kafka = pytest.importorskip("tests.fakes.kafka", reason="confluent-kafka is not installed")
    with kafka.Brokers() as brokers:
        brokers.stop()
        async with recorded(topic_of(*brokers.addresses) + f', spill: "{tmp_path}"') as running:
            for _ in range(3):
                await call(running)
        brokers.start()
        async with recorded(topic_of(*brokers.addresses) + f', spill: "{tmp_path}"') as running:
            await until(lambda: counted(running, "delivered") == 3)
        assert len(await asyncio.to_thread(brokers.messages, 3)) == 3


async def test_nothing_is_imported_or_kept_where_there_are_no_records() -> None:
    async with Provider(healthy) as provider:
        config = f"""{HEAD}
upstreams: {{one: {{backend: openai, base_url: "{provider.url}"}}}}
aliases: {{chat: {{tiers: [[{{upstream: one, model: m}}]]}}}}
log: {{content: full}}
"""
        async with gateway(config) as running:
            await call(running)
            assert running.state.recorder is None
            assert running.state.records.recorded is None
