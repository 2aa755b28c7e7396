"""Plain heads that do not go through llhttp: what comes of them is what would have come of them."""

import base64
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.upstream.http1 import ResponseParser
from sluice.upstream.plainhead import KEPT, LONG, Lines, PlainHead
from tests.upstream.test_http1 import COMPLETE, CUT, REFUSED
from tests.wire.counted import Counted
from tests.wire.cuts import exhaustive

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "security" / "llhttp_h1" / "responses.jsonl"
PROVIDER = (
    b"HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2026 04:00:00 GMT\r\nContent-Type: application/json\r\n%b\r\n"
    b"Connection: keep-alive\r\nx-request-id: req_%d\r\nopenai-processing-ms: %d\r\n"
    b"Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n"
    b"Set-Cookie: a=%d; path=/\r\nSet-Cookie: b=2; path=/\r\nCF-RAY: %x-FRA\r\nServer: cloudflare\r\n\r\n"
)


def outcome(reads: list[bytes], lines: Lines | None, method: str = "POST") -> list[object]:
    """What a connection would see after each read, until the response is over."""
    parser = ResponseParser("upstream:80", max_head=1000, max_headers=20, lines=lines)
    parser.expect(method)
    said: list[object] = []
    for data in reads:
        body = parser.feed(data)
        headers = list(parser.headers.items())
        said.append((body, parser.status, headers, parser.over, parser.reusable, str(parser.error)))
        if parser.over or parser.error:
            break
    else:
        parser.eof()
        said.append((parser.over, parser.reusable, str(parser.error)))
    return said


def same(reads: list[bytes], lines: Lines | None = None, method: str = "POST") -> None:
    lines = lines or Lines()
    expected = outcome(reads, None, method)
    for _ in range(2):  # the second time its lines are known
        assert outcome(reads, lines, method) == expected, reads


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
    PROVIDER % (b"Content-Length: 17", 1, 20, 3, 4) + b'{"object": "x"}\r\n',
    PROVIDER % (b"Transfer-Encoding: chunked", 1, 20, 3, 4) + b"3\r\nabc\r\n0\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("raw", ODD)
def test_a_head_is_the_same_with_llhttp_and_without(raw: bytes) -> None:
    lines = Lines()
    for reads in exhaustive(raw):
        same(reads, lines)
    same([raw], method="HEAD")


@pytest.mark.parametrize("raw", [row[1] for rows in (COMPLETE, REFUSED, CUT) for row in rows if row[1]])
def test_what_is_tried_on_the_parser_is_the_same_with_llhttp_and_without(raw: bytes) -> None:
    for reads in ([raw], [raw[: len(raw) // 2], raw[len(raw) // 2 :]]):
        same(reads)


@pytest.mark.skipif(not VECTORS.exists(), reason=f"{VECTORS} is not there")
def test_llhttps_own_vectors_are_the_same_with_llhttp_and_without() -> None:
    for line in VECTORS.read_text().splitlines():
        same([base64.b64decode(json.loads(line)["raw_b64"])])


@given(st.sampled_from(ODD), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3), st.data())
def test_what_is_spoilt_is_the_same_either_way(raw: bytes, spoilt: list[tuple[int, int]], data: st.DataObject) -> None:
    bad = bytearray(raw)
    for at, byte in spoilt:
        bad[at % len(bad)] = byte
    at = data.draw(st.integers(0, len(bad)))
    same([bytes(bad)])
    same([part for part in (bytes(bad[:at]), bytes(bad[at:])) if part])


def test_any_bytes_in_a_line_are_the_same_with_llhttp_and_without() -> None:
    chance = random.Random(7)
    lines = Lines()
    for byte in range(256):
        for form in (b"X%b: a", b"X: %b", b"X: a%b", b"X: a%bc", b"%bX: a", b"X%bY: a", b"X:%b", b"X: a%b%b"):
            count = form.count(b"%b")
            same([b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + form % ((bytes([byte]),) * count) + b"\r\n\r\na"], lines)
    for _ in range(3000):
        line = bytes(chance.choice(b"aX:- \t\r\n\0\x7f\xe90") for _ in range(chance.randint(1, 8)))
        same([b"HTTP/1.1 200 OK\r\n" + line + b"\r\nContent-Length: 1\r\n\r\na"], lines)


def test_a_providers_heads_do_not_go_through_llhttp_and_one_connection_reads_one_after_the_other() -> None:
    parser = ResponseParser("upstream:80", lines=Lines())
    counted = parser._llhttp = Counted(parser._llhttp)
    for number in range(3):
        parser.expect("POST")
        raw = PROVIDER % (b"Content-Length: 3", number, 20, number, number) + b"abc"
        assert parser.feed(raw) == b"abc"
        assert (parser.over, parser.reusable, counted.bytes) == (True, True, 0)
        assert parser.headers["x-request-id"] == f"req_{number}"
        assert parser.headers["set-cookie"] == f"a={number}; path=/, b=2; path=/"
    parser.expect("POST")
    body = b"3\r\nabc\r\n0\r\n\r\n"
    assert parser.feed(PROVIDER % (b"Transfer-Encoding: chunked", 9, 20, 9, 9) + body) == b"abc"
    assert (parser.over, parser.reusable) == (True, True)
    assert counted.bytes == len(body) + len(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_the_lines_that_are_remembered_are_bounded() -> None:
    lines = Lines()
    for number in range(3 * KEPT):
        assert lines.head(b"Content-Length: 1\r\nX: %d" % number) == PlainHead({"content-length": "1", "x": str(number)}, 2, 1)
    assert len(lines._known) <= KEPT
    lines = Lines()
    assert lines.head(b"Content-Length: 1\r\nX: " + b"a" * LONG) is not None
    assert len(lines._known) == 1
    for number in range(3 * KEPT):
        assert lines.head(b"Content-Length: 1\r\nX%d: 1" % number) is not None
    assert len(lines._names) <= KEPT
