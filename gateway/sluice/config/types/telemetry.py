"""The log, metrics and traces."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import Content, Count, Section
from sluice.config.units import HeaderValue, Seconds, Secret


class Log(Section, frozen=True):
    """One line per request at info; why things go wrong at debug. `format` auto: short text on a terminal,
    JSON otherwise.

    `content` is what call records (`records`), and with `admin.ui` the pages for the newest calls, have of
    prompts and answers; log lines never have any. An alias and a key may have a `log_content` each: the stricter
    one holds. `hash`: a digest under `hash_key`, for comparing.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"  # debug, info, warning or error
    format: Literal["auto", "json", "text"] = "auto"  # json, text, or auto: text on a terminal
    content: Content = "none"  # of texts in call records, for aliases that do not say: none, hash or full
    content_chars: Count = 16_384  # characters of a prompt, and of an answer, that a record has at most
    hash_key: Secret | None = None  # the secret that digests of texts are made with


class MetricsPush(Section, frozen=True, kw_only=True):
    """Metrics by OTLP, beside /metrics: the same figures, cumulative, of all workers together."""

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `otel`)
    compression: Literal["none", "gzip"] = "none"  # of requests
    headers: dict[str, HeaderValue] = {}  # of every request to it: authorization
    every: Seconds = Seconds(60)  # time between two requests
    service: str = "sluice"  # service.name
    attributes: dict[str, str] = {}  # more attributes of the resource: deployment.environment.name


class Metrics(Section, frozen=True):
    """`key_label`: also count requests by the configured key's id."""

    key_label: bool = False  # whether requests are also counted by key
    push: MetricsPush | None = None  # where metrics are sent by OTLP; null: nowhere


class Tracing(Section, frozen=True, kw_only=True):
    """OpenTelemetry's traces, by OTLP: a span for each call and each attempt, without content.

    A caller's `traceparent` says whether its calls are traced; of all others `sample` are, and beside them
    those that end in an error or take as long as `slow`.
    """

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `otel`)
    compression: Literal["none", "gzip"] = "none"  # of requests
    headers: dict[str, HeaderValue] = {}  # of every request to it: authorization
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0  # the share of calls that are traced
    errors: bool = True  # whether every call that ends in an error is traced
    slow: Seconds | None = None  # calls that take as long are all traced; null: no such rule
    semconv: Literal["1.36", "1.37", "1.41"] = (
        "1.37"  # the version of the conventions for names of attributes
    )
    service: str = "sluice"  # service.name
    attributes: dict[str, str] = {}  # more attributes of the resource: deployment.environment.name
    interval: Seconds = Seconds(2.0)  # how long a span waits for others
    queue: Count = 8192  # spans that wait at most; more are dropped, and counted
