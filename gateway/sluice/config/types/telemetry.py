"""The log, metrics and traces."""

from typing import Annotated, Literal

from msgspec import Meta

from sluice.config.types.values import Content, Count, Section
from sluice.config.units import HeaderValue, Seconds, Secret


class Log(Section, frozen=True):
    """The log: one line per request at level info, reasons of failures at debug. `format` auto: short text on
    a terminal, JSON otherwise.

    `content`: what call records (`records`), and the pages for the newest calls (`admin.ui`), contain of
    prompts and answers; log lines never contain any. An alias and a key may have a `log_content` each: the
    stricter one applies. `hash`: a digest made with `hash_key`, for comparisons.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"  # debug, info, warning or error
    format: Literal["auto", "json", "text"] = "auto"  # json, text, or auto: text on a terminal
    content: Content = (
        "none"  # what call records contain of texts, for aliases without log_content: none, hash or full
    )
    content_chars: Count = 16_384  # most characters of a prompt, and of an answer, in a record
    hash_key: Secret | None = None  # the secret key for digests of texts


class MetricsPush(Section, frozen=True, kw_only=True):
    """Metrics sent by OTLP, in addition to /metrics: the same cumulative figures, of all workers together."""

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `otel`)
    compression: Literal["none", "gzip"] = "none"  # compression of requests
    headers: dict[str, HeaderValue] = {}  # headers of each request, such as authorization
    every: Seconds = Seconds(60)  # time between two requests
    service: str = "sluice"  # the resource attribute service.name
    attributes: dict[str, str] = {}  # further resource attributes, such as deployment.environment.name


class Metrics(Section, frozen=True):
    """`key_label`: also count requests by the configured key's id."""

    key_label: bool = False  # whether requests are also counted by key
    push: MetricsPush | None = None  # where metrics are sent by OTLP; null: nowhere


class Tracing(Section, frozen=True, kw_only=True):
    """OpenTelemetry traces, sent by OTLP: a span for each call and each attempt, without content.

    A caller's `traceparent` decides whether its calls are traced. Of all other calls the share `sample` is
    traced, and in addition those that end in an error or take at least `slow`.
    """

    endpoint: str  # the receiver's base URL: http://collector:4318
    protocol: Literal["http", "grpc"] = "http"  # OTLP over HTTP, or over gRPC (extra `otel`)
    compression: Literal["none", "gzip"] = "none"  # compression of requests
    headers: dict[str, HeaderValue] = {}  # headers of each request, such as authorization
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0  # the share of calls that are traced
    errors: bool = True  # whether all calls that end in an error are traced
    slow: Seconds | None = None  # all calls that take at least so long are traced; null: no such rule
    semconv: Literal["1.36", "1.37", "1.41"] = (
        "1.37"  # the version of the semantic conventions for attribute names
    )
    service: str = "sluice"  # the resource attribute service.name
    attributes: dict[str, str] = {}  # further resource attributes, such as deployment.environment.name
    interval: Seconds = Seconds(2.0)  # the longest time that a span waits for a batch
    queue: Count = 8192  # most spans that wait; further ones are dropped, and counted
