"""The sinks of call records."""

from typing import Literal

from sluice.config.types.values import Count, Name, Section
from sluice.config.units import Bytes, HeaderValue, Seconds, Secret


class RecordFile(Section, frozen=True, kw_only=True):
    """A file of JSON lines. It is rotated when it would become larger than `size`, and when a new period of
    `age` begins."""

    path: str  # the file; rotated files are beside it, with their time after the name
    size: Bytes = Bytes(64 << 20)  # most bytes of a file
    age: Seconds | None = Seconds(
        86400
    )  # the period that a file covers, such as 1d or 1h; null: no such bound
    keep: Count = 14  # rotated files that are kept


class RecordWebhook(Section, frozen=True, kw_only=True):
    """Batches are sent by POST to an HTTP server, which answers 2xx when it has stored them."""

    url: str  # the URL that batches are sent to
    headers: dict[str, HeaderValue] = {}  # headers of each request, such as authorization
    format: Literal["ndjson", "json"] = "ndjson"  # a record per line, or a JSON list
    gzip: bool = False  # whether bodies are compressed


class RecordBucket(Section, frozen=True, kw_only=True):
    """Objects of an S3-compatible store, one per batch: gzipped JSON lines, named by date and hour.

    `endpoint` null: Amazon's endpoint of the region. Buckets are in the path of URLs: ENDPOINT/BUCKET/KEY.
    """

    bucket: str  # name of the bucket
    region: str = "us-east-1"  # the region in signatures
    endpoint: str | None = None  # http(s)://host:port of the store; null: Amazon S3
    prefix: str = "sluice/"  # prefix of the names of objects
    access_key: Secret  # id of the access key
    secret_key: Secret  # secret of the access key
    session_token: Secret | None = None  # session token, for temporary keys


class RecordOtlp(Section, frozen=True, kw_only=True):
    """OpenTelemetry log records, sent by OTLP."""

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `otel`)
    compression: Literal["none", "gzip"] = "none"  # compression of requests
    headers: dict[str, HeaderValue] = {}  # headers of each request, such as authorization
    service: str = "sluice"  # the resource attribute service.name


class RecordKafkaTls(Section, frozen=True, kw_only=True):
    """TLS to the brokers. The files are read when a connection sends its first batch."""

    ca: str | None = None  # a file of CA certificates (PEM) for the brokers; null: the system's
    cert: str | None = None  # a file with the client certificate (PEM)
    key: str | None = None  # a file with the key of cert (PEM); null: it is in cert, too
    key_password: Secret | None = None  # password of an encrypted key


class RecordKafkaSasl(Section, frozen=True, kw_only=True):
    """The gateway's credentials for the brokers: `user` and `password`, or a token for oauthbearer."""

    mechanism: Literal["plain", "scram-sha-256", "scram-sha-512", "oauthbearer"]  # the SASL mechanism
    user: str | None = None  # the user, for plain and scram
    password: Secret | None = None  # the password, for plain and scram
    token_file: str | None = (
        None  # a file with the token, for oauthbearer; read again before the token expires
    )


class RecordKafka(Section, frozen=True, kw_only=True):
    """Messages of a Kafka topic, one per record (needs the extra `kafka`). A message counts as delivered when
    all in-sync replicas have acknowledged it."""

    brokers: tuple[str, ...]  # host:port of some brokers; the others are discovered
    topic: str  # an existing topic; the gateway does not create it
    key: Literal["tenant", "key", "alias", "request_id", "none"] = (
        "tenant"  # the key of messages: those with the same key are in the same partition
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"  # compression of batches
    headers: dict[str, str] = {}  # further headers of each message; idempotency-key is always sent
    tls: RecordKafkaTls | None = None  # {}: TLS with the CA certificates of the system; null: no encryption
    sasl: RecordKafkaSasl | None = None  # SASL; null: no authentication, or only by the certificate in tls


class Records(Section, frozen=True, kw_only=True):
    """A sink that gets a record of each call. Set exactly one of `file`, `webhook`, `s3`, `otlp` and `kafka`.

    A batch that could not be delivered is stored in the directory `spill`, if it is set, and sent again until
    it is delivered.
    """

    name: Name  # its name in metrics, logs and spilled files
    file: RecordFile | None = None  # a file with rotation
    webhook: RecordWebhook | None = None  # an HTTP server
    s3: RecordBucket | None = None  # an S3-compatible object store
    otlp: RecordOtlp | None = None  # an OTLP receiver
    kafka: RecordKafka | None = None  # a topic of Kafka
    batch: Count = 500  # most records of a batch
    interval: Seconds = Seconds(2)  # the longest time that a record waits for a full batch
    buffer: Bytes = Bytes(
        16 << 20
    )  # bytes of records that wait in memory, in each process; more are dropped, and counted
    spill: str | None = None  # a directory for batches that could not be delivered; null: they wait in memory
    spill_max: Bytes = Bytes(1 << 30)  # most bytes of spilled batches
