"""The sinks of call records."""

from typing import Literal

from sluice.config.types.values import Count, Name, Section
from sluice.config.units import Bytes, HeaderValue, Seconds, Secret


class RecordFile(Section, frozen=True, kw_only=True):
    """A file of JSON lines. It is put aside when it would be larger than `size`, or when a period of `age`
    begins."""

    path: str  # the file; those put aside are beside it, with their time behind the name
    size: Bytes = Bytes(64 << 20)  # bytes of a file
    age: Seconds | None = Seconds(86400)  # the period that a file is of: 1d, 1h; null: no such bound
    keep: Count = 14  # files put aside that are kept


class RecordWebhook(Section, frozen=True, kw_only=True):
    """POST of batches to an HTTP server, which answers 2xx when it has them."""

    url: str  # where batches are sent
    headers: dict[str, HeaderValue] = {}  # of each request: authorization
    format: Literal["ndjson", "json"] = "ndjson"  # a record per line, or a JSON list
    gzip: bool = False  # whether bodies are compressed


class RecordBucket(Section, frozen=True, kw_only=True):
    """Objects of an S3-compatible store, one per batch: gzipped JSON lines, named by date and hour.

    `endpoint` null: Amazon's of the region. Buckets are addressed by path: ENDPOINT/BUCKET/KEY.
    """

    bucket: str  # its name
    region: str = "us-east-1"  # that requests are signed for
    endpoint: str | None = None  # http(s)://host:port of the store; null: Amazon S3
    prefix: str = "sluice/"  # before the objects' names
    access_key: Secret  # the key's id
    secret_key: Secret  # the key's secret
    session_token: Secret | None = None  # of temporary keys


class RecordOtlp(Section, frozen=True, kw_only=True):
    """Log records of OpenTelemetry, by OTLP."""

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `otel`)
    compression: Literal["none", "gzip"] = "none"  # of requests
    headers: dict[str, HeaderValue] = {}  # of every request to it: authorization
    service: str = "sluice"  # service.name


class RecordKafkaTls(Section, frozen=True, kw_only=True):
    """TLS to the brokers. Files are read when the connection's first batch is sent."""

    ca: str | None = (
        None  # a file of certificates (PEM) that brokers' may come from; null: the system's authorities
    )
    cert: str | None = None  # a file with the certificate that we show (PEM)
    key: str | None = None  # a file with the key of cert (PEM); null: it is in cert, too
    key_password: Secret | None = None  # of an encrypted key


class RecordKafkaSasl(Section, frozen=True, kw_only=True):
    """Our credentials for the brokers: `user` and `password`, or for oauthbearer a token."""

    mechanism: Literal["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"]  # how it is shown
    user: str | None = None  # of plain and scram
    password: Secret | None = None  # its password
    token_file: str | None = None  # of oauthbearer: a file with the token, read again before it ends


class RecordKafka(Section, frozen=True, kw_only=True):
    """Messages of a Kafka topic, one per record (extra `kafka`). All replicas in sync have acknowledged what counts
    as delivered."""

    brokers: tuple[str, ...]  # host:port of some of them; the others are found
    topic: str  # there must be one; it is not made
    key: Literal["tenant", "key", "alias", "request_id", "none"] = (
        "tenant"  # what messages of a partition share
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"  # of batches
    headers: dict[str, str] = {}  # of each message; idempotency-key is always there
    tls: RecordKafkaTls | None = None  # {}: with the system's authorities; null: not encrypted
    sasl: RecordKafkaSasl | None = None  # null: not authenticated, or by tls's certificate


class Records(Section, frozen=True, kw_only=True):
    """A sink, which gets a record of each call: exactly one of `file`, `webhook`, `s3`, `otlp` and `kafka`.

    A batch that could not be delivered is kept in the directory `spill`, if there is one, and tried again
    until it is.
    """

    name: Name  # what metrics, logs and spilled files call it
    file: RecordFile | None = None  # a file with rotation
    webhook: RecordWebhook | None = None  # an HTTP server
    s3: RecordBucket | None = None  # an S3-compatible object store
    otlp: RecordOtlp | None = None  # an OTLP receiver
    kafka: RecordKafka | None = None  # a topic of Kafka
    batch: Count = 500  # records of a batch at most
    interval: Seconds = Seconds(2)  # how long a record waits for others
    buffer: Bytes = Bytes(
        16 << 20
    )  # bytes of records that wait in memory, in each process; more are dropped, and counted
    spill: str | None = None  # a directory for batches that could not be delivered; null: they wait in memory
    spill_max: Bytes = Bytes(1 << 30)  # bytes in that directory
