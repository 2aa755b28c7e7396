import asyncio
import base64
import json
from pathlib import Path

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser as AiohttpParser
from hypothesis import given
from hypothesis import strategies as st

from sluice.upstream.head_fields import HeadFields
from sluice.upstream.http1 import ResponseParser
from tests.wire.cuts import bytewise, exhaustive

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "security" / "llhttp_h1" / "responses.jsonl"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Outcome:
    def __init__(
        self, reads: list[bytes], *, eof: bool = True, method: str = "POST", max_head: int = 1000
    ) -> None:
        parser = ResponseParser("upstream:80", HeadFields(), max_head=max_head, max_headers=20)
        parser.expect(method)
        self.body = b""
        for read in reads:
            self.body += parser.feed(read)
            if parser.over or parser.error:
                break
        if eof:
            parser.eof()
        self.status = parser.status
        self.headers = parser.headers
        self.kind = parser.error.kind if parser.error else "complete" if parser.over else "unfinished"
        self.reusable = parser.reusable and parser.error is None
        self.message = str(parser.error)


def seen(outcome: Outcome) -> tuple[object, ...]:
    return outcome.kind, outcome.status, outcome.headers, outcome.body


COMPLETE = [
    ("a length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
    ("no body", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    ("not modified, with a length", b"HTTP/1.1 304 X\r\nContent-Length: 3\r\n\r\n", 304, b"", True),
    ("length zero", b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 500, b"", True),
    ("no reason phrase", b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\na", 200, b"a", True),
    ("chunks", CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde", True),
    ("chunk extension", CHUNKED + b'3;a=b;c="d"\r\nabc\r\n0\r\n\r\n', 200, b"abc", True),
    ("trailers", CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nStatus: 9\r\n\r\n", 200, b"abc", True),
    ("many trailers", CHUNKED + b"3\r\nabc\r\n0\r\n" + b"a:b\r\n" * 21 + b"\r\n", 200, b"abc", True),
    ("an empty line behind an interim head", b"HTTP/1.1 100 C\r\n\r\n\r\n" + CHUNKED + b"0\r\n\r\n", 200, b"", True),
    ("upper case sizes", CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", 200, b"0123456789", True),
    ("interim heads", b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + CHUNKED + b"0\r\n\r\n", 200, b"", True),
    ("connection: close", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", 200, b"a", False),
    ("no length", b"HTTP/1.1 200 OK\r\n\r\nabc", 200, b"abc", False),
    ("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc", False),
    ("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", False),
    ("HTTP/1.0 kept alive", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
    ("identity", b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\na", 200, b"a", True),
    ("a packed error", b"HTTP/1.1 503 X\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\na", 503, b"a", True),
    ("offered upgrade", b"HTTP/1.1 200 X\r\nConnection: upgrade\r\nUpgrade: h2\r\nContent-Length: 1\r\n\r\na", 200, b"a", True),
    ("redirect", b"HTTP/1.1 302 X\r\nLocation: http://else.where/\r\nContent-Length: 0\r\n\r\n", 302, b"", True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "status", "body", "reusable"), [c[1:] for c in COMPLETE], ids=[c[0] for c in COMPLETE]
)
def test_a_complete_response_is_the_same_under_every_cut(
    raw: bytes, status: int, body: bytes, reusable: bool
) -> None:
    for reads in exhaustive(raw):
        outcome = Outcome(reads)
        assert (outcome.kind, outcome.status, outcome.body, outcome.reusable) == (
            "complete",
            status,
            body,
            reusable,
        ), reads


REFUSED = [
    ("chunked, length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("length, chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("differing lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    ("a list of lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabcd"),
    ("negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
    ("signed length", b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
    ("hex length", b"HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\nabc"),
    ("huge length", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc"),
    ("bad chunk size", CHUNKED + b"z\r\nabc\r\n0\r\n\r\n"),
    ("negative chunk size", CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    ("prefixed chunk size", CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    ("huge chunk size", CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("chunk longer than it says", CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size ended by LF", CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    ("chunk ended by LF", CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    ("space behind a chunk size", CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    ("folded header", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    ("bare LF in the head", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("bare LF behind a header", b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n"),
    ("bare CR in a value", b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n"),
    ("NUL in a value", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
    ("space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
    ("no header name", b"HTTP/1.1 200 OK\r\n: 0\r\n\r\n"),
    ("no colon", b"HTTP/1.1 200 OK\r\nabc\r\n\r\n"),
    ("other coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc"),
    ("two codings", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("coding twice", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a coding like chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("switched protocol", b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nPRI"),
    ("impossible status", b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"),
    ("two-digit status", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    ("HTTP/0.9", b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("RTSP", b"RTSP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("no HTTP at all", b"<!DOCTYPE html>\r\n\r\n"),
    ("TLS alert", b"\x15\x03\x01\x00\x02\x02\x46"),
    ("long line", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2000),
    ("many headers", b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 21 + b"\r\n"),
    ("long trailer", CHUNKED + b"0\r\nx:" + b"a" * 2000),
    ("long chunk extension", CHUNKED + b"3;" + b"a" * 2000),
    ("endless interim heads", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
]  # fmt: skip


@pytest.mark.parametrize("raw", [c[1] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_a_malformed_response_is_garbled_under_every_cut(raw: bytes) -> None:
    for reads in ([raw], bytewise(raw), [raw[:50], raw[50:]]):
        outcome = Outcome(reads, eof=False)
        if raw == REFUSED[-2][1] and reads[0] is raw:
            continue  # one read is bounded by the socket's buffer already
        assert outcome.kind == "garbled", reads[:3]
        assert not outcome.reusable
        assert outcome.message.startswith("The upstream sent what is not HTTP/1.1")


CUT = [
    ("nothing", b"", "reset"),
    ("in the head", b"HTTP/1.1 200 OK\r\nContent-", "reset"),
    ("after an interim head", b"HTTP/1.1 100 Continue\r\n\r\n", "reset"),
    ("before the body", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "truncated"),
    ("in a body", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "truncated"),
    ("in a chunk", CHUNKED + b"3\r\nab", "truncated"),
    ("between chunks", CHUNKED + b"3\r\nabc\r\n", "truncated"),
    ("before the last empty line", CHUNKED + b"3\r\nabc\r\n0\r\n", "truncated"),
]


@pytest.mark.parametrize(("raw", "kind"), [c[1:] for c in CUT], ids=[c[0] for c in CUT])
def test_a_cut_response_is_never_complete(raw: bytes, kind: str) -> None:
    for reads in exhaustive(raw) if raw else ([],):
        assert Outcome(reads).kind == kind


@pytest.mark.parametrize(
    "extra", [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nX", b"garbage", b"0\r\n\r\n"]
)
@pytest.mark.parametrize("raw", [c[1] for c in COMPLETE if c[4]], ids=[c[0] for c in COMPLETE if c[4]])
def test_bytes_behind_a_response_leave_it_good_and_its_connection_unusable(raw: bytes, extra: bytes) -> None:
    outcome = Outcome([raw + extra])
    assert (outcome.kind, outcome.reusable) == ("complete", False)
    assert outcome.body == Outcome([raw]).body


def test_a_bad_chunk_loses_nothing_that_came_before_it() -> None:
    outcome = Outcome([CHUNKED + b"3\r\nabc\r\nzz\r\n"])
    assert (outcome.kind, outcome.body) == ("garbled", b"abc")


def test_one_parser_reads_one_response_after_the_other() -> None:
    parser = ResponseParser("upstream:80", HeadFields())
    for _, raw, status, body, reusable in COMPLETE:
        if reusable:
            parser.expect("POST")
            assert parser.feed(raw) == body
            assert (parser.over, parser.status, parser.reusable) == (True, status, True)


@pytest.mark.parametrize("trailer", [b"Connection: close", b"connection: Close"])
def test_a_trailer_may_close_the_connection(trailer: bytes) -> None:
    outcome = Outcome([CHUNKED + b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n\r\n"])
    assert (outcome.kind, outcome.body, outcome.reusable) == ("complete", b"abc", False)


def test_the_answer_to_head_has_no_body() -> None:
    outcome = Outcome([b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"], method="HEAD", eof=False)
    assert (outcome.kind, outcome.reusable) == ("complete", False)


def test_header_names_are_lower_case_and_repeated_ones_joined() -> None:
    outcome = Outcome(
        [b"HTTP/1.1 200 OK\r\nX-A:  1 \r\nx-a: 2\r\nEmpty:\r\nLatin: \xe9\r\nContent-Length: 0\r\n\r\n"]
    )
    assert outcome.headers == {"x-a": "1, 2", "empty": "", "latin": "é", "content-length": "0"}


ODD = [
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nKeep-Alive: timeout=5\r\nConnection: Keep-Alive\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive, close\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\nConnection: close\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nProxy-Connection: close\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nUpgrade: h2c\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\nUpgrade: h2c\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Encoding: br\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Encoding: identity\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 000003\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3 \t\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length:3\r\nX:\ta\tb\t\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: \xe9\r\nY:\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\x7fb\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: a\x01b\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n X: a\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX : a\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX(: a\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + b"a: b\r\n" * 19 + b"\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + b"a: b\r\n" * 20 + b"\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + b"a: b\r\n" * 15 + b"\r\n0\r\n" + b"a: b\r\n" * 9 + b"\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: " + b"a" * 956 + b"\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: " + b"a" * 957 + b"\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb",
    b"HTTP/1.1 200 OK\nContent-Length: 1\n\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: a\nb\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX: a\rb\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\n\r\n\r\na",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n" + b"0\r\n\r\n" + b"garbage",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
    b"HTTP/1.1 200 Fine\r\nContent-Length: 1\r\n\r\na",
]  # fmt: skip
"""Heads that are nearly as most are."""


@pytest.mark.parametrize("raw", ODD)
def test_odd_heads_are_the_same_in_any_cut(raw: bytes) -> None:
    expected = seen(Outcome([raw]))
    for reads in exhaustive(raw):
        assert seen(Outcome(reads)) == expected, reads


@given(
    st.sampled_from([c[1] for c in COMPLETE] + [c[1] for c in REFUSED[:-4]] + [c[1] for c in CUT]), st.data()
)
def test_any_cuts_yield_the_same_events(raw: bytes, data: st.DataObject) -> None:
    at = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    reads = [raw[a:b] for a, b in zip([0, *at], [*at, len(raw)], strict=True) if a < b]
    assert seen(Outcome(reads)) == seen(Outcome(bytewise(raw)))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.integers(1, 400))
def test_any_chunks_come_out_as_they_went_in(pieces: list[bytes], size: int) -> None:
    raw = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    outcome = Outcome([raw[at : at + size] for at in range(0, len(raw), size)])
    assert (outcome.kind, outcome.body, outcome.reusable) == ("complete", b"".join(pieces), True)


@given(st.binary(max_size=2000))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    for start in (b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", CHUNKED):
        Outcome([start + raw])
        Outcome(bytewise(start + raw))


# --- the vectors of llhttp: as strict as aiohttp at least

BEHIND_CLOSE = "Data after `Connection: close`"
"""The response before it stays good here, and the connection is closed: there is nothing to confuse it
with."""


def vectors() -> list[pytest.param]:  # type: ignore[valid-type]
    if not VECTORS.exists():
        return [
            pytest.param(None, marks=pytest.mark.skip(reason=f"llhttp's vectors are not here ({VECTORS})"))
        ]
    rows = (json.loads(line) for line in VECTORS.read_text().splitlines())
    return [pytest.param(row, id=row["name"]) for row in rows if row["type"] == "response"]


@pytest.mark.parametrize("vector", vectors())
def test_a_vector_that_is_an_error_or_that_aiohttp_refuses_is_refused(vector: dict[str, object]) -> None:
    raw = base64.b64decode(str(vector["raw_b64"]))
    ours = Outcome([raw], eof=False, max_head=64 << 10)
    if vector["reason"] == BEHIND_CLOSE:
        assert (ours.kind, ours.reusable) == ("complete", False)
    elif vector["error"] or not taken_by_aiohttp(raw):
        assert ours.kind == "garbled" or (ours.kind == "complete" and not ours.reusable)
        if vector["error"]:
            assert ours.kind == "garbled"
    assert seen(Outcome(bytewise(raw), eof=False, max_head=64 << 10))[0] == ours.kind


def taken_by_aiohttp(raw: bytes) -> bool:
    loop = asyncio.new_event_loop()
    try:
        parser = AiohttpParser(BaseProtocol(loop), loop, 2**16, read_until_eof=True, auto_decompress=False)
        parser.feed_data(raw)
    except HttpProcessingError:
        return False
    finally:
        loop.close()
    return True
