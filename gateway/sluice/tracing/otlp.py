"""Spans and log records as OTLP has them: protobuf messages (https://protobuf.dev/programming-guides/encoding/) of
https://github.com/open-telemetry/opentelemetry-proto, traces and logs of version 1. Pure.

A few messages are all that is needed, so no protobuf library is: the numbers of their fields stand beside their names.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

Value = str | bool | int | float | Sequence[Any] | Mapping[str, Any]
INTERNAL, SERVER, CLIENT = 1, 2, 3
"""Kinds of spans."""
ERROR = 2
"""The status of a span that ended in an error; others have none."""

_FIXED64 = struct.Struct("<Q")
_DOUBLE = struct.Struct("<d")


class SpanEvent(msgspec.Struct, frozen=True):
    """`at` in nanoseconds since the epoch."""

    name: str
    at: int
    attributes: Mapping[str, Value] = {}


class OtlpLog(msgspec.Struct, frozen=True):
    """A log record; `at` in nanoseconds since the epoch, `trace` in hexadecimal digits, "" where it is of none."""

    name: str
    at: int
    severity: int
    severity_text: str
    body: Value
    attributes: Mapping[str, Value]
    trace: str = ""


class Span(msgspec.Struct, frozen=True):
    """Ids in hexadecimal digits, `parent` "" at a trace's root; times in nanoseconds since the epoch. `error`: if it failed."""

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


def traces(spans: Iterable[Span], resource: Mapping[str, Value], *, scope: str, version: str, schema: str) -> bytes:
    """An ExportTraceServiceRequest. `schema`: the URL of the conventions that the attributes follow."""
    of_scope = _bytes(1, _text(1, scope) + _text(2, version))
    scoped = of_scope + b"".join([_bytes(2, _span(span)) for span in spans]) + _text(3, schema)
    return _bytes(1, _bytes(1, _attributes(1, resource)) + _bytes(2, scoped) + _text(3, schema))


def logs(records: Iterable[OtlpLog], resource: Mapping[str, Value], *, scope: str, version: str) -> bytes:
    """An ExportLogsServiceRequest."""
    of_scope = _bytes(1, _text(1, scope) + _text(2, version))
    scoped = of_scope + b"".join([_bytes(2, _log(record)) for record in records])
    return _bytes(1, _bytes(1, _attributes(1, resource)) + _bytes(2, scoped))


def _log(record: OtlpLog) -> bytes:
    return b"".join(
        (
            _fixed(1, record.at),
            _number(2, record.severity),
            _text(3, record.severity_text),
            _bytes(5, _any(record.body)),
            _attributes(6, record.attributes),
            _bytes(9, bytes.fromhex(record.trace)) if record.trace else b"",
            _fixed(11, record.at),
            _text(12, record.name),
        )
    )


def _span(span: Span) -> bytes:
    status = _bytes(15, _text(2, span.error) + _number(3, ERROR)) if span.error else b""
    return b"".join(
        (
            _bytes(1, bytes.fromhex(span.trace)),
            _bytes(2, bytes.fromhex(span.span)),
            _text(3, span.state),
            _bytes(4, bytes.fromhex(span.parent)) if span.parent else b"",
            _text(5, span.name),
            _number(6, span.kind),
            _fixed(7, span.start),
            _fixed(8, span.end),
            _attributes(9, span.attributes),
            *[_bytes(11, _event(event)) for event in span.events],
            status,
        )
    )


def _event(event: SpanEvent) -> bytes:
    return _fixed(1, event.at) + _text(2, event.name) + _attributes(3, event.attributes)


def _attributes(field: int, attributes: Mapping[str, Value]) -> bytes:
    """KeyValues."""
    return b"".join([_bytes(field, _text(1, key) + _bytes(2, _any(value))) for key, value in attributes.items()])


def _any(value: Value) -> bytes:
    """An AnyValue; an empty text is one, too, so its field is written."""
    match value:
        case str():
            return _bytes(1, value.encode("utf-8", "replace"))
        case bool():
            return _number(2, value)
        case int():
            return _number(3, value)
        case float():
            return _tag(4, 1) + _DOUBLE.pack(value)
        case Mapping():
            return _bytes(6, _attributes(1, {name: inner for name, inner in value.items() if inner is not None}))
        case _:
            return _bytes(5, b"".join([_bytes(1, _any(each)) for each in value]))


# --- the wire


def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
    """A number of up to 64 bits; negative ones as their two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _fixed(field: int, value: int) -> bytes:
    return _tag(field, 1) + _FIXED64.pack(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    """A text; "" is what is there without it."""
    return _bytes(field, value.encode("utf-8", "replace")) if value else b""
