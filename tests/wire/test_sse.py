"""Server-sent events: the standard's grammar as a table, and the vectors of ../shared/security/sse, in all
cuts."""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.errors import UpstreamGarbled
from sluice.wire import sse
from tests.wire import cuts

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "security" / "sse" / "vectors.jsonl"

GRAMMAR: list[tuple[str, bytes, list[tuple[str, bytes]]]] = [
    ("one line", b"data: x\n\n", [("message", b"x")]),
    ("no space", b"data:x\n\n", [("message", b"x")]),
    ("only one space is dropped", b"data:  x\n\n", [("message", b" x")]),
    ("carriage returns", b"data: x\r\rdata: y\r\r", [("message", b"x"), ("message", b"y")]),
    ("both", b"event: e\r\ndata: x\r\n\r\ndata: y\r\n\r\n", [("e", b"x"), ("message", b"y")]),
    (
        "mixed",
        b"data: x\r\n\rdata: y\n\r\ndata: z\r\n\n",
        [("message", b"x"), ("message", b"y"), ("message", b"z")],
    ),
    ("several lines", b"data: {\ndata:  1\ndata\ndata: }\n\n", [("message", b"{\n 1\n\n}")]),
    ("byte order mark", b"\xef\xbb\xbfdata: x\n\n", [("message", b"x")]),
    ("byte order mark within", b"data: x\n\n\xef\xbb\xbfdata: y\n\n", [("message", b"x")]),
    ("half a byte order mark", b"\xef\xbbdata: x\n\ndata: y\n\n", [("message", b"y")]),
    ("comments", b": hello\n\n:\ndata: x\n: more\n\n", [("message", b"x")]),
    ("event without data is forgotten", b"event: e\n\ndata: x\n\n", [("message", b"x")]),
    ("empty data is an event", b"data: \n\ndata\n\n", [("message", b""), ("message", b"")]),
    ("unknown fields", b"datum: x\nData: y\n data: z\n\n", []),
    ("many empty lines", b"\n\n\n\r\n\rdata: x\n\n\n\ndata: y\n\n\n", [("message", b"x"), ("message", b"y")]),
    ("the end is no empty line", b"data: x\n\ndata: y\n", [("message", b"x")]),
    (
        "a line end of another alphabet",
        b"data: a\xe2\x80\xa8b\x0bc\xc2\x85d\n\n",
        [("message", b"a\xe2\x80\xa8b\x0bc\xc2\x85d")],
    ),
    (
        "one line end between events of JSON",
        b'data: {"a": 1}\ndata: {"b": 2}\r\ndata:{}\ndata: [DONE]\n\n',
        [("message", b'{"a": 1}'), ("message", b'{"b": 2}'), ("message", b"{}"), ("message", b"[DONE]")],
    ),
    (
        "one line end between named events of JSON",
        b"event: a\ndata: {}\nevent: b\nid: 1\ndata: {}\n\n",
        [("a", b"{}"), ("b", b"{}")],
    ),
    (
        "an object over several lines of data",
        b'data: {"a": {\ndata: },\ndata: "b": [{}\ndata: ,{}\ndata: ]}\n\n',
        [("message", b'{"a": {\n},\n"b": [{}\n,{}\n]}')],
    ),
    ("text that looks like events", b"data: a}\ndata: b\n\n", [("message", b"a}\nb")]),
    ("data within data", b"data: a data: b\n\n", [("message", b"a data: b")]),
]


def events(reads: Iterable[bytes]) -> list[sse.Event]:
    stream = sse.EventStream()
    found = [event for read in reads for event in stream.feed(read)]
    stream.close()
    return found


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in GRAMMAR], ids=[row[0] for row in GRAMMAR])
def test_reads_the_grammar_in_any_cut(body: bytes, expected: list[tuple[str, bytes]]) -> None:
    for reads in cuts.exhaustive(body):
        assert [(event.event, event.data) for event in events(reads)] == expected, reads


def vectors() -> list[Any]:
    if not VECTORS.exists():
        return [
            pytest.param(
                None, marks=pytest.mark.skip(reason=f"the SSE vectors are not here ({VECTORS})"), id="absent"
            )
        ]
    rows = [msgspec.json.decode(line) for line in VECTORS.read_bytes().splitlines()]
    return [pytest.param(row, id=row["name"]) for row in rows]


@pytest.mark.parametrize("vector", vectors())
def test_passes_the_vectors_in_any_cut(vector: dict[str, Any]) -> None:
    body = base64.b64decode(vector["raw_b64"])
    step = 1 if len(body) < 10_000 else 997
    for reads in ([body], *cuts.single(body, step), cuts.bytewise(body)):
        found = [{"event": event.event, "data": event.text, "id": event.id} for event in events(reads)]
        assert found == vector["events"], [len(read) for read in reads]


def test_events_with_one_line_end_come_while_the_stream_runs() -> None:
    stream = sse.EventStream()
    assert stream.feed(b'data: {"a": 1}\n') == []
    assert [event.data for event in stream.feed(b'data: {"b":')] == [b'{"a": 1}']
    assert stream.feed(b" 2}\n") == []
    assert stream.close() == b'data: {"b": 2}\n'


def test_keeps_the_last_event_id_and_the_retry_time() -> None:
    stream = sse.EventStream()
    first, second = stream.feed(b"id: 7\nretry: 1500\ndata: x\n\nretry: 1e3\nid: 8\0\ndata: y\n\nid\n\n")
    assert (first.id, second.id, stream.last_id, stream.retry) == ("7", "7", "", 1500)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_refuses_an_event_over_the_limit_but_gives_what_stood_before_it(size: int) -> None:
    body = b"data: ok\n\ndata: " + b"x" * 100 + b"\n\ndata: lost\n\n"
    stream = sse.EventStream(limit=64)
    found = []

    def read_all() -> None:
        for at in range(0, len(body), size):
            found.extend(stream.feed(body[at : at + size]))
        stream.close()

    with pytest.raises(UpstreamGarbled, match="64 bytes"):
        read_all()
    # a caller that goes on hears it again
    with pytest.raises(UpstreamGarbled):
        stream.feed(b"data: x\n\n")
    assert [event.data for event in found] == [b"ok"]


def test_takes_an_event_of_exactly_the_limit_in_any_cut() -> None:
    body = b"data: " + b"x" * 58 + b"\n\n"
    for reads in cuts.exhaustive(body):
        stream = sse.EventStream(limit=64)
        assert len([event for read in reads for event in stream.feed(read)]) == 1
    for reads in cuts.exhaustive(b"x" + body):
        stream = sse.EventStream(limit=64)
        with pytest.raises(UpstreamGarbled):
            assert [event for read in reads for event in stream.feed(read)] == []


def test_does_not_search_what_was_searched_before() -> None:
    stream = sse.EventStream(limit=1 << 20)
    for _ in range(200_000):  # quadratic searching would take minutes
        assert stream.complete(b"x") == b""


def test_a_read_of_whole_frames_is_handed_on_without_a_copy() -> None:
    body = b"data: 1\n\ndata: 2\n\n"
    assert sse.EventStream().complete(body) is body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data: \n\n", [b""]),
        (b"data: 1\n\n: comment\n\n", None),
        (b"data: 1\n\n\ndata: 2\n\n", None),
        (b"data: 1\ndata: 2\n\n", None),
        (b"event: x\ndata: 1\n\n", None),
        (b"data:1\n\n", None),
        (b"\ndata: 1\n\n", None),
    ],
)
def test_payloads_are_given_only_where_every_frame_is_one_line(
    body: bytes, expected: list[bytes] | None
) -> None:
    assert sse.payloads(body) == expected
    if expected is not None:
        assert [event.data for event in events([body])] == expected
