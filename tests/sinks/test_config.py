"""What is wrong with a sink's configuration is said where it stands."""

from typing import Any

import pytest

from sluice.config.checks.records import check_sink
from sluice.config.types import (
    RecordBucket,
    RecordFile,
    RecordKafka,
    RecordKafkaSasl,
    Records,
    RecordWebhook,
    Secret,
)
from sluice.config.units import Seconds


def problems(**options: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    check_sink(
        Records(name="a", **options),
        lambda path, text: found.append((".".join(map(str, path)), text)),
    )
    return found


def kafka(**options: Any) -> list[tuple[str, str]]:
    given = {"brokers": ("kafka-1.example.com:9092", "[::1]:9093"), "topic": "llm.calls-1_x", **options}
    return [
        (path.removeprefix("kafka."), text)
        for path, text in problems(kafka=RecordKafka(**given))
        if "not installed" not in text
    ]


def test_a_sink_is_exactly_one() -> None:
    text = "needs exactly one of file, webhook, s3, otlp, kafka"
    assert problems() == [("", text)]
    assert problems(file=RecordFile(path="x"), webhook=RecordWebhook(url="http://a/")) == [("", text)]
    assert problems(file=RecordFile(path="x")) == []


def test_periods_addresses_and_buckets() -> None:
    assert problems(file=RecordFile(path="x", age=Seconds(0)), interval=Seconds(0)) == [
        ("interval", "must be more than 0"),
        ("file.age", "must be more than 0"),
    ]
    assert [path for path, _ in problems(webhook=RecordWebhook(url="https://u:p@host/"))] == ["webhook.url"]
    bucket = RecordBucket(
        bucket="A", endpoint="host:1", prefix="a b", access_key=Secret("a"), secret_key=Secret("b")
    )
    assert [path for path, _ in problems(s3=bucket)] == ["s3.endpoint", "s3.bucket", "s3.prefix"]


@pytest.mark.parametrize(
    "broker", ["kafka-1", "kafka:0", "kafka:65536", "kafka:x", "http://kafka:9092", ":9092", "a b:1"]
)
def test_a_broker_is_a_host_and_a_port(broker: str) -> None:
    assert kafka() == []
    assert [path for path, _ in kafka(brokers=("a:1", broker))] == ["brokers.1"]
    assert [path for path, _ in kafka(brokers=())] == ["brokers"]


@pytest.mark.parametrize("topic", ["", ".", "..", "a/b", "a b", "x" * 250])
def test_a_topic_has_a_name_that_kafka_takes(topic: str) -> None:
    assert [path for path, _ in kafka(topic=topic)] == ["topic"]


def test_each_mechanism_has_what_it_needs_and_nothing_else() -> None:
    def sasl(mechanism: Any, **options: Any) -> list[tuple[str, str]]:
        return kafka(sasl=RecordKafkaSasl(mechanism=mechanism, **options))

    assert sasl("plain", user="u", password=Secret("p")) == []
    assert sasl("oauthbearer", token_file="/t") == []
    assert sasl("scram-sha-256", user="u") == [("sasl.password", "scram-sha-256 needs it")]
    assert sasl("oauthbearer", user="u") == [
        ("sasl.token_file", "oauthbearer needs it"),
        ("sasl.user", "oauthbearer has none"),
    ]
    assert sasl("plain", user="u", password=Secret("p"), token_file="/t") == [
        ("sasl.token_file", "plain has none")
    ]
