"""Call records in a topic of Kafka: what is acknowledged and what is not, before brokers with faults."""

import asyncio
import base64
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")

from confluent_kafka import KafkaError

from sluice.config.types import RecordKafka, RecordKafkaSasl, RecordKafkaTls, Secret
from sluice.sinks.delivery import Delivered, RecordBatch
from sluice.sinks.kafka import KafkaTopic, options_of, token_of
from tests.fakes.kafka import INIT_PRODUCER_ID, METADATA, PRODUCE, Brokers, values
from tests.fakes.kafka_front import KafkaFront, Mechanism, oauthbearer, plain, scram

TOO_LARGE, DENIED = KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED
DELIVERED = Delivered("delivered")
SHORT = 2.0
"""Seconds after which a batch that will not be acknowledged comes back."""


@pytest.fixture
def brokers() -> Iterator[Brokers]:
    with Brokers() as running:
        yield running


@asynccontextmanager
async def topic(cluster: Brokers, deadline: float = 30.0, **options: Any) -> AsyncIterator[KafkaTopic]:
    config = RecordKafka(**{"brokers": cluster.addresses, "topic": cluster.topic, **options})
    async with KafkaTopic(config, deadline) as sink:
        yield sink


def batch(count: int = 4, name: str = "1700000000123-host-1-7", **more: Any) -> RecordBatch:
    stamp = "2026-11-30T12:00:00.250Z"
    records = [{"n": n, "tenant": "acme", "timestamp": stamp, **more} for n in range(count)]
    return RecordBatch(name, 1_700_000_000.0, [json.dumps(record).encode() for record in records])


async def test_a_batch_is_delivered_when_each_record_is_acknowledged(brokers: Brokers) -> None:
    async with topic(brokers, headers={"source": "eu-1"}) as sink:
        assert await sink.deliver(batch(500)) == DELIVERED
        assert await sink.deliver(batch(3, "b", alias=None)) == DELIVERED
    found = brokers.messages(503)
    assert values(found) == sorted([*batch(500).lines, *batch(3, "b", alias=None).lines])
    first = next(message for message in found if message.value() == batch().lines[0])
    assert first.key() == b"acme"
    assert first.timestamp()[1] == 1796040000250
    assert first.headers() == [("source", b"eu-1"), ("idempotency-key", b"1700000000123-host-1-7/0")]
    assert len({str(message.headers()) for message in found}) == 503, "each has a name of its own"


@pytest.mark.parametrize(
    ("key", "expected"), [("tenant", b"acme"), ("alias", None), ("request_id", b"r-1"), ("none", None)]
)
async def test_the_key_is_what_is_configured_and_none_where_a_record_has_none(
    brokers: Brokers, key: str, expected: bytes | None
) -> None:
    async with topic(brokers, key=key) as sink:
        assert await sink.deliver(batch(2, request_id="r-1", alias=None)) == DELIVERED
    assert {message.key() for message in brokers.messages(2)} == {expected}


async def test_a_record_that_cannot_be_read_is_sent_as_it_is(brokers: Brokers) -> None:
    lines = [b'{"tenant": 5}', b"{", b'{"timestamp": "yesterday"}', b"\xff"]
    async with topic(brokers) as sink:
        assert await sink.deliver(RecordBatch("b", 1.0, lines)) == DELIVERED
    assert values(brokers.messages(4)) == sorted(lines)


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
async def test_batches_are_compressed(brokers: Brokers, compression: str) -> None:
    async with topic(brokers, compression=compression) as sink:
        assert await sink.deliver(batch(50)) == DELIVERED
    assert values(brokers.messages(50)) == sorted(batch(50).lines)


async def test_a_leader_that_moves_and_requests_that_fail_lose_and_double_nothing(brokers: Brokers) -> None:
    brokers.answer(
        PRODUCE,
        KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT, KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError._TRANSPORT,
    )  # fmt: skip
    brokers.answer(INIT_PRODUCER_ID, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    async with topic(brokers) as sink:
        for number in range(6):
            brokers.lead(0, 1 + number % 3)
            assert await sink.deliver(batch(20, str(number), b=number)) == DELIVERED
    assert values(brokers.messages(120)) == sorted(
        line for number in range(6) for line in batch(20, str(number), b=number).lines
    )


async def test_a_broker_that_is_down_is_passed_over(brokers: Brokers) -> None:
    brokers.lead(0, 2)
    async with topic(brokers) as sink:
        assert await sink.deliver(batch(5, "a")) == DELIVERED
        brokers.stop(2)
        brokers.lead(0, 3)
        assert await sink.deliver(batch(5, "b", b=1)) == DELIVERED
    assert len(brokers.messages(10)) == 10


async def test_brokers_that_are_down_leave_the_batch_to_its_spool_until_they_are_back(
    brokers: Brokers,
) -> None:
    async with topic(brokers, SHORT) as sink:
        brokers.stop()
        before = time.monotonic()
        assert await sink.deliver(batch()) == Delivered("again", "TRANSPORT")
        assert time.monotonic() - before < SHORT + 10
        brokers.start()
        for _ in range(10):
            outcome = await sink.deliver(batch())
            if outcome.outcome == "delivered":
                break
    assert values(brokers.messages(4)) == sorted(batch().lines)


async def test_a_topic_that_is_not_there_is_named_and_not_made(brokers: Brokers) -> None:
    async with topic(brokers, SHORT, topic="misspelt") as sink:
        assert await sink.deliver(batch()) == Delivered("again", "UNKNOWN_TOPIC_OR_PART")
        assert await sink.deliver(batch()) == Delivered("again", "UNKNOWN_TOPIC_OR_PART")


async def test_a_topic_that_is_not_ours_to_write_is_named_and_tried_again(brokers: Brokers) -> None:
    brokers.answer(PRODUCE, DENIED)
    async with topic(brokers) as sink:
        assert await sink.deliver(batch()) == Delivered("again", "TOPIC_AUTHORIZATION_FAILED")
        assert await sink.deliver(batch()) == DELIVERED
    assert values(brokers.messages(4)) == sorted(batch().lines)


async def test_a_record_that_is_too_large_is_put_aside_and_the_others_go_on(brokers: Brokers) -> None:
    # 0123 refused, 01 taken, 23 refused, 2 refused, 3 taken
    brokers.answer(PRODUCE, TOO_LARGE, 0, TOO_LARGE, TOO_LARGE, 0)
    async with topic(brokers) as sink:
        assert await sink.deliver(batch()) == Delivered("delivered", "MSG_SIZE_TOO_LARGE", 1)
        assert await sink.deliver(batch(1, "next", b=1)) == DELIVERED
    kept = [line for number, line in enumerate(batch().lines) if number != 2]
    assert values(brokers.messages(4)) == sorted([*kept, *batch(1, "next", b=1).lines])


async def test_records_that_are_too_large_together_are_sent_apart(brokers: Brokers) -> None:
    brokers.answer(PRODUCE, TOO_LARGE, KafkaError.INVALID_RECORD)
    async with topic(brokers) as sink:
        assert await sink.deliver(batch(9)) == DELIVERED
    assert values(brokers.messages(9)) == sorted(batch(9).lines)


async def test_what_librdkafka_itself_refuses_is_put_aside(brokers: Brokers) -> None:
    lines = [b'{"a": 1}', b"x" * 10_000_001, b'{"a": 2}']
    async with topic(brokers) as sink:
        assert await sink.deliver(RecordBatch("b", 1.0, lines)) == Delivered(
            "delivered", "MSG_SIZE_TOO_LARGE", 1
        )
        assert await sink.deliver(RecordBatch("c", 1.0, lines[1:2])) == Delivered(
            "refused", "MSG_SIZE_TOO_LARGE"
        )
    assert values(brokers.messages(2)) == [lines[0], lines[2]]


async def test_a_batch_beyond_librdkafkas_buffers_goes_through_them(brokers: Brokers) -> None:
    lines = [
        b"%d" % number + b"x" * 3_000_000 for number in range(10)
    ]  # 30 MB, of 20 that there are room for
    async with topic(brokers) as sink:
        assert await sink.deliver(RecordBatch("b", 1.0, lines)) == DELIVERED


async def test_of_a_batch_that_was_taken_in_part_the_rest_is_sent() -> None:
    with Brokers(partitions=2) as brokers:
        records = [{"n": n, "tenant": f"t{n}"} for n in range(20)]
        mixed = RecordBatch("b", 1.0, [json.dumps(record).encode() for record in records])
        brokers.answer(PRODUCE, DENIED)  # one of the two partitions
        async with topic(brokers) as sink:
            assert (await sink.deliver(mixed)).outcome == "again"
            assert await sink.deliver(mixed) == DELIVERED
        assert values(brokers.messages(20)) == sorted(mixed.lines), "none of them twice"


async def test_a_producer_that_has_come_to_its_end_is_replaced(brokers: Brokers) -> None:
    brokers.answer(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    async with topic(brokers, 5.0) as sink:
        for _ in range(10):
            if (await sink.deliver(batch())).outcome == "delivered":
                break
        assert await sink.deliver(batch(2, "b", b=1)) == DELIVERED
    assert set(values(brokers.messages(6))) == {*batch().lines, *batch(2, "b", b=1).lines}


async def test_who_stops_waiting_has_the_records_and_the_thread_at_once(brokers: Brokers) -> None:
    brokers.slow(60_000)
    before = time.monotonic()
    async with topic(brokers, 60.0) as sink:
        delivery = asyncio.create_task(sink.deliver(batch()))
        await asyncio.sleep(0.1)
        delivery.cancel()
        await asyncio.wait([delivery])
        sink._thread.submit(lambda: None).result(20)
        assert sink._producer is None, "nothing of it is left in librdkafka"
    assert time.monotonic() - before < 20


async def test_brokers_that_accept_and_say_nothing_do_not_hold_the_end_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = RecordKafka(brokers=(f"127.0.0.1:{silent.getsockname()[1]}",), topic="calls")
        before = time.monotonic()
        async with KafkaTopic(config, SHORT) as sink:
            assert (await sink.deliver(batch())).outcome == "again"
        sink._thread.shutdown(wait=True)
        assert time.monotonic() - before < SHORT + 15


async def test_a_file_that_cannot_be_used_is_a_failure_that_may_be_mended(brokers: Brokers) -> None:
    async with topic(brokers, SHORT, tls=RecordKafkaTls(ca="/nowhere/ca.pem")) as sink:
        assert await sink.deliver(batch()) == Delivered("again", "INVALID_ARG")


async def test_brokers_that_speak_no_tls_and_those_whose_name_is_not_known_are_named(
    brokers: Brokers,
) -> None:
    async with topic(brokers, SHORT, tls=RecordKafkaTls()) as sink:
        assert (await sink.deliver(batch())).reason in ("SSL", "TRANSPORT")
    async with topic(brokers, SHORT, brokers=("nowhere.invalid:9092",)) as sink:
        assert await sink.deliver(batch()) == Delivered("again", "RESOLVE")


async def test_metadata_that_fails_for_a_while_is_asked_for_again(brokers: Brokers) -> None:
    brokers.answer(METADATA, KafkaError._TRANSPORT, KafkaError.LEADER_NOT_AVAILABLE)
    async with topic(brokers) as sink:
        assert await sink.deliver(batch()) == DELIVERED


@dataclass
class Certificates:
    server: ssl.SSLContext
    ca: str
    client: str


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    authority.issue_cert("client.example").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "client.pem")
    )
    return Certificates(server, str(tmp_path / "ca.pem"), str(tmp_path / "client.pem"))


@asynccontextmanager
async def guarded(certificates: Certificates, mechanism: Mechanism | None = None) -> AsyncIterator[Any]:
    """A cluster of one broker, and what is in front of it."""
    with Brokers(count=1) as cluster:
        port = int(cluster.addresses[0].rpartition(":")[2])
        async with KafkaFront(port, tls=certificates.server, mechanism=mechanism) as front:
            cluster.advertise("localhost", front.port)
            yield cluster, front


async def test_tls_with_a_certificate_of_ours(certificates: Certificates) -> None:
    tls = RecordKafkaTls(ca=certificates.ca, cert=certificates.client)
    async with guarded(certificates) as (cluster, front):
        at = (f"localhost:{front.port}",)
        async with topic(cluster, SHORT, brokers=at, tls=RecordKafkaTls()) as sink:
            assert await sink.deliver(batch()) == Delivered("again", "SSL")  # an authority that is not known
        async with topic(cluster, brokers=at, tls=tls) as sink:
            assert await sink.deliver(batch()) == DELIVERED


@pytest.mark.parametrize(
    ("name", "mechanism", "shown"),
    [("plain", plain, "alice"), ("scram-sha-512", scram, "alice"), ("oauthbearer", oauthbearer, "token-1")],
)
async def test_sasl(
    name: str, mechanism: Mechanism, shown: str, certificates: Certificates, tmp_path: Path
) -> None:
    def sasl(password: str) -> RecordKafkaSasl:
        if name == "oauthbearer":
            (tmp_path / "token").write_text("token-1" if password == "secret" else "token-0")
            return RecordKafkaSasl(mechanism="oauthbearer", token_file=str(tmp_path / "token"))
        return RecordKafkaSasl(mechanism=name, user="alice", password=Secret(password))  # type: ignore[arg-type]

    tls = RecordKafkaTls(ca=certificates.ca, cert=certificates.client)
    async with guarded(certificates, mechanism) as (cluster, front):
        at = (f"localhost:{front.port}",)
        async with topic(cluster, SHORT, brokers=at, tls=tls, sasl=sasl("wrong")) as sink:
            assert await sink.deliver(batch()) == Delivered("again", "AUTHENTICATION")
        assert front.shown == []
        async with topic(cluster, brokers=at, tls=tls, sasl=sasl("secret")) as sink:
            assert await sink.deliver(batch()) == DELIVERED
        assert set(front.shown) == {shown}


async def test_a_token_file_that_is_not_there_is_a_failure_that_may_be_mended(
    certificates: Certificates, tmp_path: Path
) -> None:
    missing = RecordKafkaSasl(mechanism="oauthbearer", token_file=str(tmp_path / "token"))
    async with guarded(certificates, oauthbearer) as (cluster, front):
        at = (f"localhost:{front.port}",)
        tls = RecordKafkaTls(ca=certificates.ca, cert=certificates.client)
        async with topic(cluster, SHORT, brokers=at, tls=tls, sasl=missing) as sink:
            assert (await sink.deliver(batch())).outcome == "again"
            (tmp_path / "token").write_text("token-1")
            for _ in range(10):
                if (await sink.deliver(batch())).outcome == "delivered":
                    break
        assert "token-1" in front.shown


def test_a_record_counts_when_all_replicas_have_it() -> None:
    plain = options_of(RecordKafka(brokers=("a:1", "b:2"), topic="t"), 12.0)
    assert (plain["acks"], plain["enable.idempotence"], plain["security.protocol"]) == (
        "all",
        True,
        "PLAINTEXT",
    )
    assert plain["bootstrap.servers"] == "a:1,b:2"
    assert plain["message.timeout.ms"] == 12_000


def test_who_we_are_to_the_brokers(tmp_path: Path) -> None:
    tls = RecordKafkaTls(ca="/ca", cert="/cert", key_password=Secret("p"))
    scram = RecordKafkaSasl(mechanism="scram-sha-512", user="u", password=Secret("pw"))
    options = options_of(RecordKafka(brokers=("a:1",), topic="t", tls=tls, sasl=scram), 12.0)
    assert options["security.protocol"] == "SASL_SSL"
    assert [options[f"ssl.{name}"] for name in ("ca.location", "key.location", "key.password")] == [
        "/ca",
        "/cert",
        "p",
    ]
    assert [options[f"sasl.{name}"] for name in ("mechanisms", "username", "password")] == [
        "SCRAM-SHA-512",
        "u",
        "pw",
    ]
    (tmp_path / "token").write_text("abc\n")
    oauth = RecordKafkaSasl(mechanism="oauthbearer", token_file=str(tmp_path / "token"))
    token, until = options_of(RecordKafka(brokers=("a:1",), topic="t", sasl=oauth), 12.0)["oauth_cb"]("")
    assert token == "abc"
    assert until > time.time() + 200


@pytest.mark.parametrize(
    ("token", "until"),
    [
        ("e30." + base64.urlsafe_b64encode(b'{"exp": 2000000000, "sub": "x"}').decode().rstrip("=") + ".s", 2e9),
        ("e30." + base64.urlsafe_b64encode(b'{"exp": "soon"}').decode() + ".s", 1300.0),
        ("e30.%%%.s", 1300.0),
        ("opaque", 1300.0),
    ],
)  # fmt: skip
def test_a_token_is_used_until_it_ends(token: str, until: float, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f" {token}\n")
    assert token_of(tmp_path / "token", lambda: 1000.0) == (token, until)
