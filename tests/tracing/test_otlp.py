"""Our bytes, read by the official messages."""

import pytest
from msgspec.structs import replace

from sluice.tracing.otlp import CLIENT, MAX_KEPT_CHARACTERS, Span, SpanEvent, Value, _kept, traces

pb = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="opentelemetry-proto is not installed"
)

ATTRIBUTES: dict[str, Value] = {
    "text": "ü🌍", "empty": "", "true": True, "false": False, "zero": 0, "small": 127, "large": 2**63 - 1, "below": -3,
    "double": 0.25, "list": ("a", ""), "numbers": (1, 2), "none of them": (), "long": "x" * 300,
}  # fmt: skip
SPAN = Span(
    "0a" * 16,
    "0b" * 8,
    "0c" * 8,
    "chat m",
    CLIENT,
    1_700_000_000_000_000_001,
    1_700_000_000_000_000_999,
    ATTRIBUTES,
)


def value(any_value: object) -> Value:
    kind = any_value.WhichOneof("value")  # type: ignore[attr-defined]
    found = getattr(any_value, kind)
    return tuple(value(each) for each in found.values) if kind == "array_value" else found


def test_the_official_messages_read_what_was_written() -> None:
    root = Span(
        "0a" * 16,
        "0d" * 8,
        "",
        "chat alias",
        2,
        5,
        6,
        {},
        [SpanEvent("first_token", 5, {"n": 1})],
        "truncated",
        "a=1",
    )
    request = pb.ExportTraceServiceRequest.FromString(
        traces([SPAN, root], {"service.name": "sluice"}, scope="sluice", version="1", schema="https://x/1")
    )
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes} == {
        "service.name": "sluice"
    }
    assert (scope.scope.name, scope.scope.version, scope.schema_url) == ("sluice", "1", "https://x/1")
    first, second = scope.spans
    assert (first.trace_id, first.span_id, first.parent_span_id) == (b"\n" * 16, b"\x0b" * 8, b"\x0c" * 8)
    assert (first.name, first.kind, first.start_time_unix_nano, first.end_time_unix_nano) == (
        "chat m", pb.DESCRIPTOR and 3, SPAN.start, SPAN.end,
    )  # fmt: skip
    assert {pair.key: value(pair.value) for pair in first.attributes} == ATTRIBUTES
    assert first.status.code == 0
    assert (second.parent_span_id, second.trace_state, second.status.code, second.status.message) == (
        b"",
        "a=1",
        2,
        "truncated",
    )
    (event,) = second.events
    assert (event.name, event.time_unix_nano, event.attributes[0].value.int_value) == ("first_token", 5, 1)


def test_nothing_is_written_that_the_messages_do_not_know() -> None:
    data = traces([SPAN], {"a": "b"}, scope="s", version="1", schema="u")
    request = pb.ExportTraceServiceRequest.FromString(data)
    assert len(request.SerializeToString()) == len(data)


def test_values_that_are_equal_stay_of_their_own_type() -> None:
    for given in ({"a": True}, {"a": 1}, {"a": 1.0}, {"a": "1"}) * 2:
        data = traces([replace(SPAN, attributes=given)], {}, scope="s", version="1", schema="u")
        [pair] = (
            pb.ExportTraceServiceRequest.FromString(data).resource_spans[0].scope_spans[0].spans[0].attributes
        )
        assert (found := value(pair.value), type(found)) == (given["a"], type(given["a"]))


def test_the_bytes_of_long_texts_are_not_kept() -> None:
    traces([SPAN], {}, scope="s", version="1", schema="u")
    before = _kept.cache_info().currsize
    long = replace(SPAN, attributes={"a": "b" * (MAX_KEPT_CHARACTERS + 1), "c": ("d",), "e": 0.5})
    traces([long], {"f": "g"}, scope="s", version="1", schema="u")
    assert _kept.cache_info().currsize == before


def test_half_a_surrogate_pair_does_not_stop_a_batch() -> None:
    data = traces([SPAN], {"a": "\ud800"}, scope="s", version="1", schema="u")
    pb.ExportTraceServiceRequest.FromString(data)
