"""Sends records as messages of a Kafka topic, by librdkafka (confluent-kafka, the extra `kafka`).

librdkafka has buffers, retries and threads of its own, and none of them is relied on for keeping a record: a
batch leaves the spool only when each of its records has been acknowledged by all in-sync replicas, or is one
that the topic will never accept. Records that are not acknowledged in time are removed from librdkafka again.
Everything that may block runs in one thread of this sink.
"""

import asyncio
import base64
import binascii
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from sluice.config.types import RecordKafka, RecordKafkaSasl, RecordKafkaTls
from sluice.sinks.delivery import Delivered, RecordBatch
from sluice.version import VERSION

DEADLINE = 15.0
"""Seconds for a batch. librdkafka gives up a message a little earlier, and then names the reason."""
LOOK = 0.1
"""Seconds after which the thread notices that nobody waits for its batch any more."""
TICK = 1.0
"""Seconds between two calls of librdkafka's callbacks while nothing is sent: its queue of events is
unbounded, and tokens have to be renewed."""
CLOSING = 2.0
"""Seconds for librdkafka to end, at the end of the process."""
REMEMBERED = 16
"""Maximum partly sent batches for which it is remembered which records are still to be sent."""
MAX_MESSAGE_BYTES = 10_000_000
"""Bytes of a message beyond which it is not sent at all; the topic's own limit may be lower."""
TOKEN_LIFE = 300.0
"""Seconds for which a token without an expiry time is used."""

OF_THE_RECORD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD, KafkaError.INVALID_TIMESTAMP, KafkaError._INVALID_DIFFERENT_RECORD,
    }
)  # fmt: skip
"""Errors by which a broker says that it will never accept this record, or one that was sent with it."""
GENERAL = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE,
        KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT,
    }
)  # fmt: skip
"""Errors that say less than those of the connections before them."""


class _Named(msgspec.Struct):
    """The fields of a record that its message needs."""

    timestamp: str = ""
    tenant: str | None = None
    key: str | None = None
    alias: str | None = None
    request_id: str | None = None

    @property
    def milliseconds(self) -> int:
        """Returns the record's time in milliseconds since the epoch; 0 (which means now) if it has none."""
        try:
            return round(datetime.fromisoformat(self.timestamp).timestamp() * 1000)
        except ValueError:
            return 0


class _Sending(msgspec.Struct):
    """A batch that is being sent: the numbers of its records that need not be sent any more, how many of them
    were refused, and why some were not accepted."""

    batch: RecordBatch
    settled: set[int] = msgspec.field(default_factory=set)
    refused: int = 0
    reason: str = ""

    @property
    def left(self) -> list[int]:
        return [number for number in range(len(self.batch.lines)) if number not in self.settled]


class _Patience:
    """How long a batch is waited for: until its deadline, and as long as a caller waits for it."""

    def __init__(self, until: float, clock: Callable[[], float]) -> None:
        self._until = until
        self._clock = clock
        self._gone = threading.Event()

    def end(self) -> None:
        self._gone.set()

    @property
    def over(self) -> bool:
        return self._gone.is_set() or self._clock() >= self._until


class KafkaTopic:
    """Sends batches to a topic. See `Delivery`; `deliver` takes `deadline` seconds at most."""

    def __init__(
        self, config: RecordKafka, deadline: float = DEADLINE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._topic = config.topic
        self._key = config.key
        self._headers = [(name, value.encode()) for name, value in config.headers.items()]
        self._options = {**options_of(config, deadline * 0.8), "error_cb": self._failed}
        self._deadline = deadline
        self._clock = clock
        self._producer: Producer | None = None
        self._failure = ""  # of the connections, while a batch was being sent
        self._telling = 0
        self._unfinished: OrderedDict[str, _Sending] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "kafka")
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        await asyncio.wait([closing], timeout=CLOSING)
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def deliver(self, batch: RecordBatch) -> Delivered:
        """Sends the records of the batch that have not been acknowledged before, as far as this process
        remembers."""
        patience = _Patience(self._clock() + self._deadline, self._clock)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._send, batch, patience)
        finally:
            patience.end()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            await asyncio.get_running_loop().run_in_executor(self._thread, self._serve)

    # --- in the thread

    def _serve(self) -> None:
        if self._producer is not None:
            self._producer.poll(0)

    def _close(self) -> None:
        """Ends the producer, and takes back what it has not sent."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaException):
                producer.purge()
                producer.poll(0)
                producer.close()

    def _failed(self, error: KafkaError) -> None:
        """Notes that a connection failed. A broker's refusal says more than the closing of the connection
        that follows it."""
        telling = 0 if error.code() in GENERAL else 1 if error.code() == KafkaError._TRANSPORT else 2
        if telling >= self._telling:
            self._failure, self._telling = name_of(error), telling

    def _send(self, batch: RecordBatch, patience: _Patience) -> Delivered:
        sending = self._unfinished.pop(batch.name, None) or _Sending(batch)
        sending.reason = self._failure = ""
        self._telling = 0
        try:
            if self._producer is None:
                self._producer = Producer(self._options)
            self._settle(sending, sending.left, patience)
        except KafkaException as error:  # an option that cannot be used, such as a missing file
            sending.reason = name_of(error.args[0])
        if sending.left:
            self._unfinished[batch.name] = sending
            while len(self._unfinished) > REMEMBERED:
                self._unfinished.popitem(last=False)
            return Delivered("again", sending.reason or self._failure or "MSG_TIMED_OUT")
        if sending.refused == len(batch.lines):
            return Delivered("refused", sending.reason)
        return Delivered("delivered", sending.reason, sending.refused)

    def _settle(self, sending: _Sending, numbers: Sequence[int], patience: _Patience) -> None:
        """Sends these records. Because of a single record a broker refuses all that came in the same request:
        they are sent again in halves, until that record is alone."""
        suspects: list[int] = []
        for number, error in self._produced(sending.batch, numbers, patience).items():
            if error is None:
                sending.settled.add(number)
            elif error.code() not in OF_THE_RECORD:
                sending.reason = (error.code() in GENERAL and self._failure) or name_of(error)
            elif len(numbers) > 1:
                suspects.append(number)
            else:
                sending.settled.add(number)
                sending.refused += 1
                sending.reason = sending.reason or name_of(error)
        half = len(suspects) // 2
        for part in (suspects[:half], suspects[half:]):
            if part and not patience.over:
                self._settle(sending, part, patience)

    def _produced(
        self, batch: RecordBatch, numbers: Sequence[int], patience: _Patience
    ) -> dict[int, KafkaError | None]:
        """Returns the error, or None, of each record whose result is known. None of them is in librdkafka any
        more then."""
        producer = self._producer = self._producer or Producer(self._options)
        results: dict[int, KafkaError | None] = {}
        handed = 0
        for number in numbers:
            try:
                if not self._handed(producer, batch, number, results, patience):
                    break
                handed += 1
            except KafkaException as error:  # too large, or the producer has come to its end
                results[number] = error.args[0]
                handed += 1
        while len(results) < handed and not patience.over:
            producer.poll(LOOK)
        # a producer remembers that it has no access to a topic, and some errors end it: a new one has no such state
        failed = any(error is not None and error.code() not in OF_THE_RECORD for error in results.values())
        if failed or len(results) < len(numbers):
            self._close()
        return results

    def _handed(
        self,
        producer: Producer,
        batch: RecordBatch,
        number: int,
        results: dict[int, KafkaError | None],
        patience: _Patience,
    ) -> bool:
        """Returns whether librdkafka accepted the record in time."""

        def reported(error: KafkaError | None, message: Any) -> None:
            results[number] = error

        line = batch.lines[number]
        named = _named(line)
        key = None if self._key == "none" else getattr(named, self._key)
        while not patience.over:
            try:
                producer.produce(
                    self._topic,
                    line,
                    key=key,
                    timestamp=named.milliseconds,
                    headers=[*self._headers, ("idempotency-key", f"{batch.name}/{number}".encode())],
                    on_delivery=reported,
                )
                return True
            except BufferError:
                producer.poll(LOOK)
        return False


def name_of(error: KafkaError) -> str:
    """Returns Kafka's name of an error, such as UNKNOWN_TOPIC_OR_PART; librdkafka's own errors have names
    such as AUTHENTICATION, SSL, TRANSPORT, RESOLVE.

    https://kafka.apache.org/protocol#protocol_error_codes
    """
    return error.name().lstrip("_")


def _named(line: bytes) -> _Named:
    try:
        return msgspec.json.decode(line, type=_Named)
    except msgspec.MsgspecError:
        return _Named()


# --- options


def options_of(config: RecordKafka, timeout: float) -> dict[str, Any]:
    """Options of the producer; `timeout`: seconds for a message.

    https://docs.confluent.io/platform/current/clients/librdkafka/html/md_CONFIGURATION.html
    """
    milliseconds = max(1000, int(timeout * 1000))
    secured = ("SASL_" if config.sasl else "") + ("SSL" if config.tls else "PLAINTEXT")
    return {
        "bootstrap.servers": ",".join(config.brokers),
        "client.id": "sluice",
        "client.software.name": "sluice",
        "client.software.version": VERSION,
        "security.protocol": secured,
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": config.compression,
        "partitioner": "murmur2_random",  # the same partition for a key as with Java's producers
        "message.timeout.ms": milliseconds,
        "request.timeout.ms": milliseconds,
        "socket.timeout.ms": milliseconds,
        "socket.connection.setup.timeout.ms": min(milliseconds, 10_000),
        "topic.metadata.propagation.max.ms": min(milliseconds // 2, 5_000),
        "reconnect.backoff.max.ms": 5_000,
        "allow.auto.create.topics": False,  # a misspelt topic is an error instead of a new topic
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.kbytes": 2 * MAX_MESSAGE_BYTES // 1000,
        "log_level": 0,  # errors have names in our own log
        "logger": logging.getLogger("confluent_kafka"),
        **(_tls(config.tls) if config.tls else {}),
        **(_sasl(config.sasl) if config.sasl else {}),
    }


def _tls(config: RecordKafkaTls) -> dict[str, Any]:
    given = {
        "ssl.ca.location": config.ca,
        "ssl.certificate.location": config.cert,
        "ssl.key.location": config.key or config.cert,
        "ssl.key.password": config.key_password.reveal() if config.key_password is not None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _sasl(config: RecordKafkaSasl) -> dict[str, Any]:
    mechanism = {"sasl.mechanisms": config.mechanism.upper()}
    if config.token_file is not None:
        return {**mechanism, "oauth_cb": partial(token_of, Path(config.token_file), time.time)}
    password = config.password.reveal() if config.password is not None else ""
    return {**mechanism, "sasl.username": config.user or "", "sasl.password": password}


def token_of(path: Path, wall: Callable[[], float], _: object = None) -> tuple[str, float]:
    """Returns the token in a file, and until when it may be used, in seconds since the epoch (from its `exp`
    if it is a JWT). Raises OSError and ValueError."""
    token = path.read_text("utf-8").strip()
    expires = wall() + TOKEN_LIFE
    with suppress(IndexError, binascii.Error, msgspec.MsgspecError):
        claims = token.split(".")[1]
        padded = claims + "=" * (-len(claims) % 4)
        expires = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Claims).exp
    return token, expires


class _Claims(msgspec.Struct):
    exp: float
