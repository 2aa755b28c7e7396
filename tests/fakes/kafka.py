"""Kafka brokers: the mock cluster that librdkafka brings along for its own tests, which speaks the protocol on
TCP ports and has faults to order.

https://github.com/confluentinc/librdkafka/blob/master/src/rdkafka_mock.h
"""

import ctypes
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import confluent_kafka
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from tests.servers import free_port

PRODUCE, METADATA, INIT_PRODUCER_ID = 0, 3, 22
"""Kinds of requests (https://kafka.apache.org/protocol#protocol_api_keys)."""
_PRODUCER = 0

Pointer = ctypes.c_void_p
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (Pointer, []),
    "rd_kafka_conf_set": (ctypes.c_int, [Pointer, *[ctypes.c_char_p] * 3, ctypes.c_size_t]),
    "rd_kafka_new": (Pointer, [ctypes.c_int, Pointer, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [Pointer]),
    "rd_kafka_mock_cluster_new": (Pointer, [Pointer, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [Pointer]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [Pointer]),
    "rd_kafka_mock_topic_create": (ctypes.c_int, [Pointer, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]),
    "rd_kafka_mock_topic_set_error": (None, [Pointer, ctypes.c_char_p, ctypes.c_int]),
    "rd_kafka_mock_push_request_errors_array": (
        None,
        [Pointer, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
    ),
    "rd_kafka_mock_partition_set_leader": (
        ctypes.c_int,
        [Pointer, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32],
    ),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [Pointer, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [Pointer, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_host_port": (
        ctypes.c_int,
        [Pointer, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int],
    ),
    "rd_kafka_mock_broker_set_rtt": (ctypes.c_int, [Pointer, ctypes.c_int32, ctypes.c_int]),
}


def _library() -> ctypes.CDLL:
    """The librdkafka of the installed wheel: the one that is loaded already."""
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(beside.glob("librdkafka*.so*"))))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Brokers:
    """A cluster of `count` brokers, numbered from 1, with one topic, all of whose replicas each broker has."""

    def __init__(self, topic: str = "calls", *, partitions: int = 1, count: int = 3) -> None:
        self.topic = topic
        self.count = count
        self._partitions = partitions

    def __enter__(self) -> Self:
        self._library = _library()
        why = ctypes.create_string_buffer(512)
        options = self._library.rd_kafka_conf_new()
        for name, value in ((b"log_level", b"0"), (b"client.id", b"mock")):
            self._library.rd_kafka_conf_set(options, name, value, why, 512)
        self._handle = self._library.rd_kafka_new(_PRODUCER, options, why, 512)
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, self.count)
        self._library.rd_kafka_mock_topic_create(
            self._cluster, self.topic.encode(), self._partitions, self.count
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)

    @property
    def addresses(self) -> tuple[str, ...]:
        found: bytes = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return tuple(found.decode().split(","))

    def answer(self, kind: int, *errors: int) -> None:
        """The next requests of this kind are answered by these errors; 0: by none."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, kind, len(errors), array)

    def topic_error(self, error: int) -> None:
        """What is said of the topic to whoever asks where it is."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, self.topic.encode(), error)

    def lead(self, partition: int, broker: int) -> None:
        self._library.rd_kafka_mock_partition_set_leader(
            self._cluster, self.topic.encode(), partition, broker
        )

    def stop(self, *brokers: int) -> None:
        for broker in brokers or range(1, self.count + 1):
            self._library.rd_kafka_mock_broker_set_down(self._cluster, broker)

    def start(self, *brokers: int) -> None:
        for broker in brokers or range(1, self.count + 1):
            self._library.rd_kafka_mock_broker_set_up(self._cluster, broker)

    def slow(self, milliseconds: int) -> None:
        for broker in range(1, self.count + 1):
            self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds)

    def advertise(self, host: str, port: int) -> None:
        """Where the first broker is said to be."""
        self._library.rd_kafka_mock_broker_set_host_port(self._cluster, 1, host.encode(), port)

    def messages(self, least: int, **options: Any) -> list[Message]:
        found = {"bootstrap.servers": ",".join(self.addresses), **options}
        return consumed(found, self.topic, self._partitions, least)


@contextmanager
def tansu(directory: Path, topic: str) -> Iterator[str]:
    """The address of Tansu, a broker in Rust, with a topic of three partitions. Skips the test where there is no
    such program."""
    fetched = Path(__file__).parents[2] / ".cache" / "bin" / "tansu"
    program = shutil.which("tansu") or (str(fetched) if fetched.is_file() else None)
    if program is None:
        pytest.skip("no tansu (make test fetches it into .cache/bin)")
    address = f"127.0.0.1:{free_port()}"
    at = ["--listener-url", f"tcp://{address}", "--advertised-listener-url", f"tcp://{address}"]
    log = directory / "tansu.log"
    with log.open("wb") as output:
        broker = subprocess.Popen(
            [program, "broker", *at, "--storage-engine", "memory://tansu/"], stdout=output, stderr=output
        )
    try:
        create = [program, "topic", "create", "--broker", f"tcp://{address}", "--partitions", "3", topic]
        until = time.monotonic() + 60
        while subprocess.run(create, capture_output=True, timeout=60, check=False).returncode:
            assert time.monotonic() < until, log.read_text("utf-8", "replace")
            time.sleep(0.1)
        yield address
    finally:
        broker.kill()
        broker.wait()


def consumed(options: dict[str, Any], topic: str, partitions: int, least: int) -> list[Message]:
    """What the topic has, from each partition's beginning to its end; at least so many messages, or what there
    are after half a minute."""
    consumer = Consumer(
        {
            **options,
            "group.id": "test",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[Message] = []
    ended: set[int | None] = set()
    until = time.monotonic() + 30
    while (len(ended) < partitions or len(found) < least) and time.monotonic() < until:
        for message in consumer.consume(1000, 0.2):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    return found


def values(messages: Sequence[Message]) -> list[bytes]:
    return sorted(message.value() or b"" for message in messages)
