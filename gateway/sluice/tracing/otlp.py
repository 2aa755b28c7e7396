"""Encodes spans and log records in OTLP: protobuf messages
(https://protobuf.dev/programming-guides/encoding/) of
https://github.com/open-telemetry/opentelemetry-proto, traces and logs of version 1. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from sluice.wire.protobuf import data, double, fixed, number, text

Value = str | bool | int | float | Sequence[Any] | Mapping[str, Any]
INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans."""
ERROR = 2
"""The status of a span that ended in an error; other spans have none."""
MAX_KEPT_CHARACTERS = 100
"""Maximum characters of a text whose encoded bytes are cached."""


class SpanEvent(msgspec.Struct, frozen=True):
    """`at` in nanoseconds since the epoch."""

    name: str
    at: int
    attributes: Mapping[str, Value] = {}


class OtlpLog(msgspec.Struct, frozen=True):
    """A log record. `at`: nanoseconds since the epoch. `trace`: hexadecimal digits, "" if it belongs to none."""

    name: str
    at: int
    severity: int
    severity_text: str
    body: Value
    attributes: Mapping[str, Value]
    trace: str = ""


class Span(msgspec.Struct, frozen=True):
    """A span. Ids are hexadecimal digits, `parent` is "" at a trace's root; times are in nanoseconds since
    the epoch. `error`: whether it failed."""

    trace: str
    span: str
    parent: str
    name: str
    kind: int
    start: int
    end: int
    attributes: Mapping[str, Value]
    events: Sequence[SpanEvent] = ()
    error: str = ""
    state: str = ""


def traces(
    spans: Iterable[Span], resource: Mapping[str, Value], *, scope: str, version: str, schema: str
) -> bytes:
    """Encodes an ExportTraceServiceRequest. `schema`: the URL of the conventions that the attributes follow."""
    of_scope = data(1, text(1, scope) + text(2, version))
    scoped = of_scope + b"".join([data(2, _span(span)) for span in spans]) + text(3, schema)
    return data(1, data(1, _attributes(1, resource)) + data(2, scoped) + text(3, schema))


def logs(records: Iterable[OtlpLog], resource: Mapping[str, Value], *, scope: str, version: str) -> bytes:
    """Encodes an ExportLogsServiceRequest."""
    of_scope = data(1, text(1, scope) + text(2, version))
    scoped = of_scope + b"".join([data(2, _log(record)) for record in records])
    return data(1, data(1, _attributes(1, resource)) + data(2, scoped))


def _log(record: OtlpLog) -> bytes:
    return b"".join(
        (
            fixed(1, record.at),
            number(2, record.severity),
            text(3, record.severity_text),
            data(5, _any(record.body)),
            _attributes(6, record.attributes),
            data(9, bytes.fromhex(record.trace)) if record.trace else b"",
            fixed(11, record.at),
            text(12, record.name),
        )
    )


def _span(span: Span) -> bytes:
    status = data(15, text(2, span.error) + number(3, ERROR)) if span.error else b""
    return b"".join(
        (
            data(1, bytes.fromhex(span.trace)),
            data(2, bytes.fromhex(span.span)),
            text(3, span.state),
            data(4, bytes.fromhex(span.parent)) if span.parent else b"",
            text(5, span.name),
            number(6, span.kind),
            fixed(7, span.start),
            fixed(8, span.end),
            _span_attributes(9, span.attributes),
            *[data(11, _event(event)) for event in span.events],
            status,
        )
    )


def _event(event: SpanEvent) -> bytes:
    return fixed(1, event.at) + text(2, event.name) + _attributes(3, event.attributes)


def _span_attributes(field: int, attributes: Mapping[str, Value]) -> bytes:
    """Encodes KeyValues of a span. They have no content of calls, and most recur with each call (names of the
    configuration, flags, small numbers), so their bytes are cached."""
    return b"".join(
        [
            _kept(field, key, value)
            if type(value) in _KEPT or (type(value) is str and len(value) <= MAX_KEPT_CHARACTERS)
            else data(field, _key(key) + data(2, _any(value)))
            for key, value in attributes.items()
        ]
    )


_KEPT = frozenset({bool, int})


@lru_cache(2048, typed=True)  # for True is 1
def _kept(field: int, key: str, value: Value) -> bytes:
    return _attribute(field, key, value)


@lru_cache(512)
def _key(key: str) -> bytes:
    return text(1, key)


def _attributes(field: int, attributes: Mapping[str, Value]) -> bytes:
    """Encodes KeyValues."""
    return b"".join([_attribute(field, key, value) for key, value in attributes.items()])


def _attribute(field: int, key: str, value: Value) -> bytes:
    return data(field, text(1, key) + data(2, _any(value)))


def _any(value: Value) -> bytes:
    """Encodes an AnyValue; an empty text is also a value, so its field is written."""
    if isinstance(value, str):
        return data(1, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return number(2, value)
    if isinstance(value, int):
        return number(3, value)
    if isinstance(value, float):
        return double(4, value)
    if not isinstance(value, tuple | list) and isinstance(
        value, Mapping
    ):  # the second check takes a microsecond
        return data(6, _attributes(1, {name: inner for name, inner in value.items() if inner is not None}))
    return data(5, b"".join([data(1, _any(each)) for each in value]))
