"""Checks the sinks of call records, and the texts that records have, beyond their types."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from sluice.config.problems import Path, Report
from sluice.config.types import (
    Alias,
    Config,
    Key,
    Log,
    RecordBucket,
    RecordFile,
    RecordKafka,
    RecordKafkaSasl,
    Records,
    RecordWebhook,
)

_KINDS = ("file", "webhook", "s3", "otlp", "kafka")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})")
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()=/-]{0,200}")

Say = Callable[[Path, str], object]


def check_sink(sink: Records, say: Say) -> None:
    """Checks one sink. `say` gets the path within it, and the problem."""
    given = [kind for kind in _KINDS if getattr(sink, kind) is not None]
    if len(given) != 1:
        say((), f"needs exactly one of {', '.join(_KINDS)}")
    if isinstance(sink.interval, float) and sink.interval <= 0:
        say(("interval",), "must be more than 0")
    match sink.webhook:
        case RecordWebhook(url=url):
            check_url(url, ("webhook", "url"), say)
    if isinstance(sink.s3, RecordBucket):
        _check_bucket(sink.s3, say)
    if isinstance(sink.kafka, RecordKafka):
        _check_kafka(sink.kafka, lambda within, text: say(("kafka", *within), text))
    if isinstance(sink.file, RecordFile) and isinstance(sink.file.age, float) and sink.file.age <= 0:
        say(("file", "age"), "must be more than 0")


def _check_bucket(bucket: RecordBucket, say: Say) -> None:
    if bucket.endpoint is not None:
        check_url(bucket.endpoint, ("s3", "endpoint"), say)
    if isinstance(bucket.bucket, str) and not _BUCKET.fullmatch(bucket.bucket):
        say(
            ("s3", "bucket"),
            "expected the name of a bucket: 3 to 63 lower-case letters, digits, dots and hyphens",
        )
    if isinstance(bucket.prefix, str) and not _PREFIX.fullmatch(bucket.prefix):
        say(("s3", "prefix"), "expected letters, digits and any of ! _ . * ' ( ) = / -, such as sluice/")


def _check_kafka(kafka: RecordKafka, say: Say) -> None:
    """Checks a Kafka topic. https://kafka.apache.org/documentation/#topicconfigs defines the valid names."""
    if find_spec("confluent_kafka") is None:
        text = "needs confluent-kafka, which is not installed: pip install 'sluice-gateway[kafka]'"
        say((), text)
    if isinstance(kafka.brokers, tuple) and not kafka.brokers:
        say(("brokers",), "expected at least one, such as kafka-1.example.com:9092")
    for number, broker in enumerate(kafka.brokers if isinstance(kafka.brokers, tuple) else ()):
        found = _BROKER.fullmatch(broker) if isinstance(broker, str) else None
        if isinstance(broker, str) and (found is None or not 0 < int(found[2]) < 65536):
            say(("brokers", number), "expected host:port, such as kafka-1.example.com:9092")
    if isinstance(kafka.topic, str) and not _TOPIC.fullmatch(kafka.topic):
        say(("topic",), "expected 1 to 249 letters, digits, dots, underscores and hyphens")
    if isinstance(kafka.sasl, RecordKafkaSasl):
        _check_sasl(kafka.sasl, say)


def _check_sasl(sasl: RecordKafkaSasl, say: Say) -> None:
    oauth = sasl.mechanism == "oauthbearer"
    needed, foreign = (
        (("token_file",), ("user", "password")) if oauth else (("user", "password"), ("token_file",))
    )
    for option in needed:
        if getattr(sasl, option) is None:
            say(("sasl", option), f"{sasl.mechanism} needs it")
    for option in foreign:
        if getattr(sasl, option) is not None:
            say(("sasl", option), f"{sasl.mechanism} has none")


def check_url(url: object, path: Path, say: Say) -> None:
    """Checks the address of a server. `say` gets the problem."""
    if not isinstance(url, str):
        return
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        say(path, "expected an address such as https://host:8443/path")
    elif parts.username or parts.password:
        say(path, "credentials belong in headers: an address is shown in logs")


def check_records(config: Config, report: Report) -> None:
    """Checks all sinks together, and the options for texts: names must be unique, and digests need a key."""
    sinks: Any = config.records if isinstance(config.records, tuple) else ()
    seen: set[str] = set()
    for number, sink in enumerate(sinks):
        name = getattr(sink, "name", None)
        if isinstance(name, str) and name in seen:
            report.problem(("records", number, "name"), f'another sink has the name "{name}"')
        seen.add(str(name))
    log = config.log
    if isinstance(log, Log) and log.hash_key is None:
        for path in _hashes(config):
            report.problem(path, "hash needs log.hash_key, a secret that digests are made with")


def _hashes(config: Config) -> list[Path]:
    """Returns the position of `hash` in the file."""
    found: list[Path] = [("log", "content")] if config.log.content == "hash" else []
    if isinstance(config.aliases, dict):
        aliases = config.aliases.items()
        found += [
            ("aliases", n, "log_content")
            for n, a in aliases
            if isinstance(a, Alias) and a.log_content == "hash"
        ]
    if isinstance(config.keys, tuple):
        keys = enumerate(config.keys)
        found += [
            ("keys", n, "log_content") for n, k in keys if isinstance(k, Key) and k.log_content == "hash"
        ]
    return found
