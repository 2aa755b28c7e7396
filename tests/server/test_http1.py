import base64
import gc
import json
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.server.http1 import FIELD, MAX_FRUITLESS, MAX_HEAD, MAX_KEPT, MAX_LINE, MAX_WAITING, RequestParser
from sluice.server.incoming import Incoming
from sluice.server.repeated import MAX_REPEATED
from tests.wire.cuts import bytewise, exhaustive

SECURITY = Path(__file__).resolve().parents[3] / "shared" / "security"
LIMIT = 1000

MAX_HEADERS = MAX_HEAD // (FIELD + 2)
"""Of one letter and one letter."""
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
POST_H2C = b"POST / HTTP/1.1\r\nHost: x\r\n" + H2C


class Outcome:
    """What a parser makes of these reads. `requests`: method, target and body of those that are complete."""

    def __init__(self, reads: list[bytes]) -> None:
        parser = RequestParser(LIMIT)
        for read in reads:
            parser.feed(read)
        self.parser = parser
        self.error, self.begun = parser.error, parser.begun
        self.requests = [
            f"{r.method} {r.target} {r.body().decode('latin-1')}".strip() for r in parser.waiting if r.over
        ]
        self.heads = [
            (r.version, r.fields, r.keep_alive, r.length, r.size, r.over, r.broken) for r in parser.waiting
        ]


def seen(outcome: Outcome) -> tuple[object, ...]:
    return outcome.error, outcome.begun, outcome.requests, outcome.heads


def request(line: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([line, *headers, "", body]).encode("latin-1")


def get(*headers: str, body: str = "") -> bytes:
    return request("GET / HTTP/1.1", "Host: x", *headers, body=body)


def post(*headers: str, body: str = "") -> bytes:
    return request("POST / HTTP/1.1", "Host: x", *headers, body=body)


GOOD = [
    ("a plain one", request("GET /a?b=c HTTP/1.1", "Host: x"), ["GET /a?b=c"]),
    ("empty lines before it", b"\r\n\r\n" + NEXT, ["GET /next"]),
    ("a length", post("Content-Length: 3", body="abc"), ["POST / abc"]),
    ("length zero", post("Content-Length: 0"), ["POST /"]),
    ("a length of zeros and a digit", post("Content-Length: 003", body="abc"), ["POST / abc"]),
    ("a length and a space", post("Content-Length: 3 \t", body="abc"), ["POST / abc"]),
    ("a body in a GET", get("Content-Length: 3", body="abc"), ["GET / abc"]),
    ("no body in a POST", post(), ["POST /"]),
    ("chunks", CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", ["POST / abcde"]),
    ("no chunks", CHUNKED + b"0\r\n\r\n", ["POST /"]),
    ("chunk extensions", CHUNKED + b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n', ["POST / abc"]),
    ("trailers", CHUNKED + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: y\r\nAuthorization: z\r\n\r\n", ["POST / abc"]),
    ("trailers that would upgrade", CHUNKED + b"0\r\n" + H2C + b"\r\n" + NEXT, ["POST /", "GET /next"]),
    ("sizes in upper case, with zeros", CHUNKED + b"00A\r\n0123456789\r\n000\r\n\r\n", ["POST / 0123456789"]),
    ("chunked in capitals, and a space", CHUNKED.replace(b"chunked", b"Chunked ") + b"0\r\n\r\n", ["POST /"]),
    ("pipelined", NEXT + CHUNKED + b"1\r\na\r\n0\r\n\r\n" + NEXT, ["GET /next", "POST / a", "GET /next"]),
    ("pipelined, an empty line between", NEXT + b"\r\n" + NEXT, ["GET /next"] * 2),
    ("HEAD", request("HEAD / HTTP/1.1", "Host: x") + NEXT, ["HEAD /", "GET /next"]),
    ("OPTIONS of all", request("OPTIONS * HTTP/1.1", "Host: x"), ["OPTIONS *"]),
    ("absolute-form", request("GET http://y:1/a?b HTTP/1.1", "Host: x"), ["GET http://y:1/a?b"]),
    ("a seldom method", request("QUERY / HTTP/1.1", "Host: x"), ["QUERY /"]),
    ("Expect", post("Expect: 100-continue", "Content-Length: 1", body="a"), ["POST / a"]),
    ("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", ["GET /"]),
    ("HTTP/1.0 with a host and a body", request("POST / HTTP/1.0", "Host: x", "Content-Length: 1", body="a"), ["POST / a"]),
    ("h2c", get()[:-2] + H2C + b"\r\n" + NEXT, ["GET /", "GET /next"]),
    ("h2c with a length", POST_H2C + b"Content-Length: 3\r\n\r\nabc" + NEXT, ["POST / abc", "GET /next"]),
    ("h2c with length zero", POST_H2C + b"Content-Length: 0\r\n\r\n" + NEXT, ["POST /", "GET /next"]),
    ("h2c with chunks", CHUNKED[:-2] + H2C + b"\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n" + NEXT, ["POST / abc", "GET /next"]),
    ("h2c whose body is like a request", POST_H2C + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT,
     ["POST / " + NEXT.decode().strip()]),
    ("upgrades, one after the other", (CHUNKED[:-2] + H2C + b"\r\n1\r\na\r\n0\r\n\r\n") * 3, ["POST / a"] * 3),
    ("WebSocket", get("Connection: Upgrade", "Upgrade: websocket") + NEXT, ["GET /", "GET /next"]),
    ("names with underscores are others", post("Content_Length: 9", "Transfer_Encoding: chunked")
     + NEXT, ["POST /", "GET /next"]),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "requests"), [case[1:] for case in GOOD], ids=[case[0] for case in GOOD])
def test_good_requests_are_the_same_under_every_cut(raw: bytes, requests: list[str]) -> None:
    whole = Outcome([raw])
    for reads in exhaustive(raw):
        outcome = Outcome(reads)
        assert (outcome.requests, outcome.error, outcome.begun) == (requests, False, False), reads
        assert seen(outcome) == seen(whole)


@pytest.mark.parametrize(
    "host",
    ["x", "x:80", "x:", "", "127.0.0.1:8080", "[::1]", "[fe80::1%25eth0]:80", "a_b.c~d", "%41", " x \t"],
)
def test_these_are_hosts(host: str) -> None:
    for version in ("1.0", "1.1"):
        raw = request(f"GET / HTTP/{version}", f"Host: {host}")
        for reads in exhaustive(raw):
            outcome = Outcome(reads)
            assert not outcome.error
            assert outcome.heads[0][1]["host"] == host.strip()


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "a,b",
        "u@x",
        "x/y",
        "x?y",
        "x#y",
        "http://x",
        "a:b:c",
        "x:8o",
        "::1",
        "[::1",
        "[]",
        "[::1]x",
        "é",
        "<x>",
        '"x"',
    ],
)
def test_these_are_not(host: str) -> None:
    for version in ("1.0", "1.1"):
        for reads in exhaustive(request(f"GET / HTTP/{version}", f"Host: {host}")):
            assert seen(Outcome(reads))[:3] == (True, False, [])


REFUSED = [
    ("length and chunks", CHUNKED[:-2] + b"Content-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ("chunks and length", post("Content-Length: 3", "Transfer-Encoding: chunked", body="abc")),
    ("a length twice", post("Content-Length: 3", "Content-Length: 3", body="abc")),
    ("differing lengths", post("Content-Length: 3", "Content-Length: 4", body="abcd")),
    ("a list of lengths", post("Content-Length: 3, 3", body="abc")),
    ("no length in it", post("Content-Length:", body="abc")),
    ("negative length", post("Content-Length: -3", body="abc")),
    ("signed length", post("Content-Length: +3", body="abc")),
    ("hex length", post("Content-Length: 0x3", body="abc")),
    ("length in two", post("Content-Length: 3 3", body="abc")),
    ("huge length", post("Content-Length: 99999999999999999999", body="abc")),
    ("length of 5000 zeros", post(f"Content-Length: {'0' * 5000}3", body="abc")),
    ("another coding", post("Transfer-Encoding: gzip", body="abc")),
    ("identity", post("Transfer-Encoding: identity", body="abc")),
    ("two codings", post("Transfer-Encoding: gzip, chunked", body="0\r\n\r\n")),
    ("an empty coding", post("Transfer-Encoding: , chunked", body="0\r\n\r\n")),
    ("a coding twice", post(*["Transfer-Encoding: chunked"] * 2, body="0\r\n\r\n")),
    ("a coding like chunked", post("Transfer-Encoding: xchunked", body="0\r\n\r\n")),
    ("a coding with a parameter", post("Transfer-Encoding: chunked;a=b", body="0\r\n\r\n")),
    ("a coding behind a vertical tab", post("Transfer-Encoding: \x0bchunked", body="0\r\n\r\n")),
    ("a coding before a no-break space", post("Transfer-Encoding: chunked\xa0", body="0\r\n\r\n")),
    ("no coding in it", post("Transfer-Encoding:", body="0\r\n\r\n")),
    ("chunks in HTTP/1.0", request("POST / HTTP/1.0", "Host: x", "Transfer-Encoding: chunked", body="0\r\n\r\n")),
    ("no Host", request("GET / HTTP/1.1")),
    ("two Hosts", get("Host: y")),
    ("the same Host twice", get("host: x")),
    ("two empty Hosts", request("GET / HTTP/1.1", "Host:", "Host:")),
    ("two Hosts in HTTP/1.0", request("GET / HTTP/1.0", "Host: x", "Host: x")),
    ("folded header", get("A: b", " c")),
    ("folded coding", post("Transfer-Encoding:", " chunked", body="0\r\n\r\n")),
    ("a space before the first header", request("GET / HTTP/1.1", " Host: x")),
    ("space before the colon", post("Content-Length : 3", body="abc")),
    ("tab before the colon", post("Transfer-Encoding\t: chunked", body="0\r\n\r\n")),
    ("no colon", get("abc")),
    ("no name", get(": 1")),
    ("a name that is no token", get("a[b]: 1")),
    ("a name of 8 bits", get("é: 1")),
    ("NUL in a name", get("a\0b: 1")),
    ("NUL in a value", get("a: b\0c")),
    ("bell in a value", get("a: b\x07c")),
    ("bare CR in a value", get("a: b\rc")),
    ("bare LF behind a header", b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n"),
    ("bare LF everywhere", b"GET / HTTP/1.1\nHost: x\n\n"),
    ("bare LF at the end of a head", b"GET / HTTP/1.1\r\nHost: x\r\n\n"),
    ("bare CR everywhere", b"GET / HTTP/1.1\rHost: x\r\r"),
    ("bad chunk size", CHUNKED + b"z\r\nabc\r\n0\r\n\r\n"),
    ("no chunk size", CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    ("negative chunk size", CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n"),
    ("prefixed chunk size", CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    ("huge chunk size", CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("chunk longer than it says", CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    ("chunk size ended by LF", CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    ("chunk size ended by CR", CHUNKED + b"3\rabc\r\n0\r\n\r\n"),
    ("chunk ended by LF", CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    ("chunk extension ended by LF", CHUNKED + b"3;a\nabc\r\n0\r\n\r\n"),
    ("CR in a chunk extension", CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("NUL in a chunk extension", CHUNKED + b"3;\0\r\nabc\r\n0\r\n\r\n"),
    ("space behind a chunk size", CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    ("last chunk ended by LF", CHUNKED + b"0\n\r\n"),
    ("LF at the end of the body", CHUNKED + b"0\r\n\n"),
    ("a trailer without a colon", CHUNKED + b"0\r\nabc\r\n\r\n"),
    ("a length as a trailer", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n"),
    ("bad chunks behind an upgrade", CHUNKED[:-2] + H2C + b"\r\n3\r\nabcd\r\n0\r\n\r\n"),
    ("length and chunks in an upgrade", CHUNKED[:-2] + H2C + b"Content-Length: 3\r\n\r\nabc"),
    ("HTTP/0.9", b"GET /\r\n\r\n"),
    ("HTTP/0.9 that says so", request("GET / HTTP/0.9", "Host: x")),
    ("HTTP/1.2", request("GET / HTTP/1.2", "Host: x")),
    ("HTTP/2.0", request("GET / HTTP/2.0", "Host: x")),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("a small version", request("GET / http/1.1", "Host: x")),
    ("words behind the version", request("GET / HTTP/1.1 x", "Host: x")),
    ("a small method", request("get / HTTP/1.1", "Host: x")),
    ("an unknown method", request("FROB / HTTP/1.1", "Host: x")),
    ("CONNECT", request("CONNECT x:1 HTTP/1.1", "Host: x")),
    ("CONNECT with a body", request("CONNECT x:1 HTTP/1.1", "Host: x", "Content-Length: 3", body="abc")),
    ("a target of 8 bits", request("GET /é HTTP/1.1", "Host: x")),
    ("a space in the target", request("GET /a b HTTP/1.1", "Host: x")),
    ("a fragment", request("GET /a#b HTTP/1.1", "Host: x")),
    ("a relative target", request("GET a HTTP/1.1", "Host: x")),
    ("an authority", request("GET x:80 HTTP/1.1", "Host: x")),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 40),
    ("no HTTP at all", b"hello\r\n\r\n"),
]  # fmt: skip


@pytest.mark.parametrize("raw", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_not_http_is_refused_under_every_cut(raw: bytes) -> None:
    for reads in exhaustive(raw) if len(raw) < 500 else ([raw], bytewise(raw)):
        outcome = Outcome(reads)
        assert outcome.error, reads
        assert not outcome.begun
        assert outcome.requests == []
        assert all(broken for *_, broken in outcome.heads), "whoever waits for its body is told"


@pytest.mark.parametrize(
    "line", ["GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET /a  HTTP/1.0", "GET / RTSP/1.0", "GET / ICE/1.0"]
)
def test_a_request_line_is_held_to_its_grammar_where_llhttp_is_lenient(line: str) -> None:
    raw = request(line, "Host: x")
    for reads in (*exhaustive(raw), bytewise(b"\r\n" + raw), [NEXT, raw]):
        outcome = Outcome(reads)
        assert outcome.error, reads
        assert not [found for found in outcome.requests if found != "GET /next"]


@pytest.mark.parametrize("raw", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_an_error_leaves_the_requests_before_it_good(raw: bytes) -> None:
    for reads in ([NEXT + raw + NEXT], bytewise(NEXT + raw + NEXT)):
        outcome = Outcome(reads)
        assert outcome.error
        assert outcome.requests == ["GET /next"], "nothing behind an error is a request"


CLOSING = [
    get("Connection: close"),
    post("Connection: close", "Content-Length: 1", body="a"),
    request("GET / HTTP/1.0", "Host: x"),
    request("POST / HTTP/1.0", "Content-Length: 1", body="a"),
]


@pytest.mark.parametrize("raw", CLOSING)
def test_nothing_is_a_request_behind_the_last_one(raw: bytes) -> None:
    for reads in exhaustive(raw + NEXT):
        outcome = Outcome(reads)
        assert outcome.error
        assert len(outcome.requests) == len(outcome.heads) == 1
        assert not outcome.heads[0][2]


CUT = [
    ("nothing", b"", False),
    ("empty lines", b"\r\n" * 30, False),
    ("in the line", b"GET /", True),
    ("in a header", b"GET / HTTP/1.1\r\nHost: ", True),
    ("before the last LF", get()[:-1], True),
    ("before the body", post("Content-Length: 3"), False),
    ("in the body", post("Content-Length: 3", body="ab"), False),
    ("before the last LF of chunks", CHUNKED + b"1\r\na\r\n0\r\n\r", False),
    ("in the trailers", CHUNKED + b"1\r\na\r\n0\r\nA: b\r\n", False),
    ("in the body of an upgrade", POST_H2C + b"Content-Length: 3\r\n\r\nab", False),
]


@pytest.mark.parametrize(("raw", "begun"), [case[1:] for case in CUT], ids=[case[0] for case in CUT])
def test_what_has_not_come_whole_is_waited_for(raw: bytes, begun: bool) -> None:
    for reads in exhaustive(raw) if raw else ([],):
        outcome = Outcome(reads)
        assert (outcome.error, outcome.begun, outcome.requests) == (False, begun, []), reads
        outcome.parser.close()
        assert all(waiting.broken for waiting in outcome.parser.waiting), "whoever waits for its body is told"


def test_header_names_are_lower_case_and_repeated_ones_joined() -> None:
    headers = (
        "HOST: x",
        "X-A:  1 \t",
        "x-a: 2",
        "Empty:",
        "Latin: \xe9",
        "Authorization: a",
        "authorization: b",
        "x-api_key: c",
    )
    for reads in exhaustive(request("GET / HTTP/1.1", *headers)):
        (head,) = Outcome(reads).parser.waiting
        assert head.fields == {
            "host": "x", "x-a": "1, 2", "empty": "", "latin": "é", "authorization": "a, b", "x-api_key": "c",
        }  # fmt: skip
        assert head.pairs[1] == (b"X-A", b"1")
        assert [value for name, value in head.pairs if name.lower() == b"authorization"] == [b"a", b"b"]


def test_trailers_change_nothing_of_the_head() -> None:
    trailers = b"Host: y\r\nAuthorization: z\r\nConnection: close\r\n\r\n"
    for reads in exhaustive(CHUNKED + b"1\r\na\r\n0\r\n" + trailers):
        (head,) = Outcome(reads).parser.waiting
        assert (head.fields, len(head.pairs)) == ({"host": "x", "transfer-encoding": "chunked"}, 2)


# --- bounds


BOUNDS = [
    ("line", *(request(f"GET /{'a' * size} HTTP/1.1", "Host: x") for size in (MAX_LINE - 1, MAX_LINE))),
    ("value", *(get(f"A: {'a' * size}") for size in (MAX_LINE - 1, MAX_LINE))),
    ("name", get(f"{'a' * MAX_LINE}:"), get(f"{'a' * MAX_LINE}: b")),
    ("headers", get(*["a: b"] * (MAX_HEADERS - 1)), get(*["a: b"] * (MAX_HEADERS + 1))),
    ("head", get(*[f"a: {'b' * 3838}"] * (MAX_HEAD // 4096 - 1)), get(*[f"a: {'b' * 3839}"] * (MAX_HEAD // 4096))),
    ("trailers", CHUNKED + b"0\r\n" + b"a: b\r\n" * (MAX_HEADERS - 3) + b"\r\n",
     CHUNKED + b"0\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n"),
    ("waiting requests", NEXT * MAX_WAITING, NEXT * (MAX_WAITING + 1)),
    ("waiting heads", get(*["a: b"] * 200) * 20, get(*["a: b"] * 200) * 21),
    ("waiting heads of long fields", get(*["a: " + "b" * 7700] * 5) * 24, get(*["a: " + "b" * 8000] * 6) * 24),
]  # fmt: skip


@pytest.mark.parametrize(
    ("within", "beyond"), [case[1:] for case in BOUNDS], ids=[case[0] for case in BOUNDS]
)
def test_bounds_are_the_same_whole_and_byte_by_byte(within: bytes, beyond: bytes) -> None:
    for raw, error in ((within, False), (beyond, True)):
        for reads in ([raw], bytewise(raw), [raw[:100], raw[100:]], [raw[:-1], raw[-1:]]):
            assert Outcome(reads).error is error
    assert Outcome([within]).requests


ENDLESS = [
    ("a line", b"GET /", b"a", MAX_LINE),
    ("a name", b"GET / HTTP/1.1\r\n", b"a", MAX_FRUITLESS),
    ("a value", b"GET / HTTP/1.1\r\nA: ", b"a", MAX_FRUITLESS),
    ("spaces before a value", b"GET / HTTP/1.1\r\nA:", b" ", MAX_FRUITLESS),
    ("headers", b"GET / HTTP/1.1\r\n", b"a:\r\n", MAX_HEADERS * 5),
    ("a chunk extension", CHUNKED + b"3;", b"a", MAX_FRUITLESS),
    ("zeros of a chunk size", CHUNKED, b"0", MAX_FRUITLESS),
    ("a trailer", CHUNKED + b"0\r\nA: ", b"a", MAX_FRUITLESS),
    ("trailers", CHUNKED + b"0\r\n", b"a:\r\n", MAX_HEADERS * 5),
    ("requests", b"", NEXT, (MAX_WAITING + 1) * len(NEXT)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "piece", "bound"), [case[1:] for case in ENDLESS], ids=[case[0] for case in ENDLESS]
)
def test_what_does_not_end_is_refused(start: bytes, piece: bytes, bound: int) -> None:
    for each in (piece, piece * 50):
        parser = RequestParser(LIMIT)
        parser.feed(start)
        sent = 0
        while not parser.error:
            parser.feed(each)
            sent += len(each)
            assert sent <= bound + 2 * len(each)


def test_bodies_that_wait_are_bounded_together() -> None:
    body = "a" * (MAX_KEPT // 4 - 4 * FIELD)
    parser = RequestParser(MAX_KEPT)
    for _ in range(4):
        parser.feed(post(f"Content-Length: {len(body)}", body=body))
    assert not parser.error
    parser.feed(post("Content-Length: 4096", body="a" * 4096))
    assert parser.error
    assert all(waiting.over for waiting in parser.waiting)
    parser = RequestParser(MAX_KEPT)
    for _ in range(20):
        parser.feed(post(f"Content-Length: {len(body)}", body=body))
        del parser.waiting[:-1]  # answered
    assert not parser.error


def test_a_head_that_begins_behind_a_large_body_is_not_blamed_for_it() -> None:
    body = b"a" * 200_000
    raw = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body + NEXT
    outcome = Outcome([raw[:-10], raw[-10:]])
    assert not outcome.error
    assert [target for _, _, target in (r.partition(" ") for r in outcome.requests)] == ["/", "/next"]


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 5 * LIMIT])
def test_no_more_than_the_limit_of_a_body_is_kept(size: int) -> None:
    parser = RequestParser(LIMIT)
    parser.feed(CHUNKED)
    for _ in range(size):
        parser.feed(b"1\r\na\r\n")
    (head,) = parser.waiting
    assert (head.size, len(head.body())) == (size, size if size <= LIMIT else 0)
    parser.feed(b"0\r\n\r\n" + NEXT)
    assert (head.over, len(parser.waiting), parser.error) == (True, 2, False)


# --- any bytes


@given(
    st.sampled_from([case[1] for case in GOOD] + [case[1] for case in REFUSED] + [case[1] for case in CUT]),
    st.data(),
)
def test_any_cuts_yield_the_same_requests(raw: bytes, data: st.DataObject) -> None:
    raw = NEXT + raw
    at = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    reads = [raw[a:b] for a, b in zip([0, *at], [*at, len(raw)], strict=True) if a < b]
    assert seen(Outcome(reads)) == seen(Outcome([raw]))


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=20), st.integers(1, 400), st.booleans())
def test_any_chunks_come_out_as_they_went_in(pieces: list[bytes], size: int, upgrade: bool) -> None:
    head = CHUNKED[:-2] + H2C + b"\r\n" if upgrade else CHUNKED
    raw = head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" + NEXT
    outcome = Outcome([raw[at : at + size] for at in range(0, len(raw), size)])
    assert [r.body() for r in outcome.parser.waiting] == [b"".join(pieces), b""]
    assert not outcome.error


@given(st.binary(max_size=1000))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    for start in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n", CHUNKED, CHUNKED[:-2] + H2C + b"\r\n"):
        assert seen(Outcome([start + raw])) == seen(Outcome(bytewise(start + raw)))


@pytest.mark.parametrize(
    "raw", [case[1] for case in GOOD + REFUSED + CUT], ids=[case[0] for case in GOOD + REFUSED + CUT]
)  # type: ignore[operator]
def test_a_closed_parser_waits_for_no_collector(raw: bytes) -> None:
    class Traced(RequestParser):  # RequestParser itself has slots, and no room for weak references
        __slots__ = ("__weakref__",)

    gc.disable()
    try:
        parser = Traced(LIMIT)
        parser.feed(NEXT + raw)
        gone = weakref.ref(parser)
        parser.close()
        parser.feed(NEXT)
        del parser
        assert gone() is None
    finally:
        gc.enable()


def test_an_idle_parser_keeps_nothing_of_a_request() -> None:
    gc.collect()
    parser = RequestParser(LIMIT)
    parser.feed(post("Content-Length: 3", body="abc") + POST_H2C + b"Content-Length: 1\r\n\r\na")
    assert [parser.waiting.pop(0).body() for _ in range(2)] == [b"abc", b"a"]
    assert not [found for found in gc.get_objects() if isinstance(found, Incoming)]


# --- vectors of others


def vectors(folder: str) -> list[dict[str, object]]:
    """The rows of a collection; [] where it is not here."""
    path = SECURITY / folder / "requests.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def verdict(raw: bytes) -> str:
    """What we say to these bytes; byte by byte the same as in one read."""
    outcome = Outcome([raw])
    if len(raw) < MAX_FRUITLESS:  # framing without content is bounded read by read
        assert seen(Outcome(bytewise(raw)))[:3] == seen(outcome)[:3]
    complete = len(outcome.requests) == len(outcome.heads) > 0 and not outcome.begun
    return "reject" if outcome.error else "accept" if complete else "wait"


TAKEN = {
    "bad_pct": "a path is compared as it came; there is nothing at this one (404)",
    "te_underscore": "a name like any other: nothing here maps underscores to hyphens",
    "chunk_ext_16k": "bounded read by read: refused where it comes in several",
    "trailer_host": "trailers are dropped, as 9110 6.5.1 allows",
    "trailer_authorization": "dropped, too",
    "expect_bogus": "9110 10.1.1 leaves it to the server; nothing waits for it",
    "content_encoding_bogus": "the routes' to refuse: 415",
    "dup_authorization": "the routes': 401",
    "dup_api_key": "the routes': 401",
    "two_credentials": "the routes': 401",
    "dup_content_type": "the routes': 415",
    "connection_strips_auth": "Connection's list strips nothing here",
}
"""Requests that own_h1 wants refused and the parser takes, and why."""


@pytest.mark.skipif(not vectors("own_h1"), reason=f"there are no vectors in {SECURITY / 'own_h1'}")
def test_what_the_rfcs_refuse_is_refused_and_what_they_allow_is_taken() -> None:
    rows = vectors("own_h1")
    said = {str(row["name"]): verdict(base64.b64decode(str(row["raw_b64"]))) for row in rows}
    print(f"\nown_h1: {len(rows)} requests, {len(TAKEN)} deviations:")
    for name, reason in TAKEN.items():
        print(f"    {name}: {reason}")
    others = {
        name for name, found in said.items() if found != next(r["expect"] for r in rows if r["name"] == name)
    }
    assert others == TAKEN.keys()
    assert {said[name] for name in TAKEN} == {"accept"}


DIFFERENT = {
    # gunicorn refuses, the parser takes
    "invalid 006": "its line limit is 4094 bytes",
    "invalid 008": "its header limits are smaller",
    "invalid 009": "it takes 100 headers",
    "invalid 041": "two content types: the routes' to refuse (415)",
    "invalid rfc9110_trailer_forbidden_host_01": "trailers are dropped",
    "invalid rfc9112_target_asterisk_non_options_01": "there is nothing at * (404)",
    # gunicorn takes, the parser refuses
    "valid 013": "spaces in chunk extensions, which RFC 9112 calls bad",
    "valid 019": "nothing is read behind the last request of a connection",
    "valid 021": "nothing is read behind the last request of a connection",
    "valid 099": "its body is shorter than its length says",
    "valid 005": "a fragment is no part of a target (RFC 9112 3.2)",
    "valid 027": "a target is ASCII (RFC 3986)",
    "valid 031": "a method that llhttp does not know",
    "valid 009": "identity is no transfer coding (RFC 9112 7)",
    "valid 029": "so it is",
    "valid 030": "so it is",
    "valid rfc9112_smuggle_te_identity_chunked_01": "so it is",
    "valid 025": "gzip is not read",
    "valid 025_line": "gzip is not read",
    "valid rfc9112_smuggle_gzip_chunked_01": "gzip is not read",
    "valid rfc9112_target_authority_connect_01": "we are no proxy",
    "valid rfc9112_target_authority_ipv6_01": "we are no proxy",
}


@pytest.mark.skipif(not vectors("gunicorn_h1"), reason=f"there are no vectors in {SECURITY / 'gunicorn_h1'}")
def test_gunicorn_and_the_parser_differ_only_where_it_is_said_why() -> None:
    """Rows that need gunicorn's settings apart. HTTP/1.1 without a Host, of which it has many, is given
    one."""
    rows = [row for row in vectors("gunicorn_h1") if not row["needs_settings"]]
    different = set()
    for row in rows:
        raw = base64.b64decode(str(row["raw_b64"]))
        if row["expect"] == "valid":
            raw = hosted(raw)
        if (verdict(raw) == "accept") != (row["expect"] == "valid"):
            different.add(f"{row['expect']} {row['name']}")
    print(f"\ngunicorn_h1: {len(rows)} requests of {len(vectors('gunicorn_h1'))} (the others need its settings), "
          f"{len(DIFFERENT)} deviations:")  # fmt: skip
    for name, reason in DIFFERENT.items():
        print(f"    {name}: {reason}")
    assert different == DIFFERENT.keys()


def hosted(raw: bytes) -> bytes:
    """With a Host in each HTTP/1.1 head that has none (in the first only, where what follows may be a body of
    some length)."""
    heads = raw.split(b"\r\n\r\n")
    count = 1 if b"content-length:" in raw.lower() else len(heads)
    return b"\r\n\r\n".join([*map(_hosted, heads[:count]), *heads[count:]])


def _hosted(head: bytes) -> bytes:
    line, _, fields = head.partition(b"\r\n")
    return (
        b"\r\n".join([line, b"Host: x", *([fields] if fields else [])])
        if line.endswith(b"1.1") and b"host:" not in fields.lower()
        else head
    )


KEPT: list[tuple[str, bytes, int]] = [
    ("nothing", b"", 0),
    ("a head that is not complete", b"GET / HTTP/1.1\r\nHost: x\r\n", 0),
    ("a request without a body", NEXT, 1),
    ("a part of a body", post("Content-Length: 1000", body="a" * 700), 700),
    ("a body of chunks", CHUNKED + b"2bc\r\n" + b"a" * 700 + b"\r\n", 700),
    ("a body that is thrown away", post("Content-Length: 5000", body="a" * 4000), 0),
    ("a request and a part of the next", NEXT + post("Content-Length: 1000", body="a" * 700), 700),
]


@pytest.mark.parametrize(("raw", "least"), [row[1:] for row in KEPT], ids=[row[0] for row in KEPT])
def test_what_is_kept_is_known_and_can_be_given_up(raw: bytes, least: int) -> None:
    for reads in ([raw], bytewise(raw)):
        parser = RequestParser(LIMIT)
        for read in reads:
            parser.feed(read)
        assert parser.unfinished == bool(parser.waiting)
        assert least <= parser.kept <= least + len(parser.waiting) * 5 * FIELD
        taken = [parser.waiting.pop(0)] if parser.waiting and not parser.waiting[0].over else []
        assert parser.kept == least if taken else parser.kept >= least
        parser.give_up()
        assert (parser.kept, parser.unfinished, parser.waiting, parser.error) == (0, False, [], True)
        assert [(request.given_up, request.over, request.body()) for request in taken] == [
            (True, False, b"")
        ] * len(taken)
        parser.feed(NEXT)
        assert parser.waiting == []


def test_a_body_that_is_complete_is_nothing_that_is_kept() -> None:
    parser = RequestParser(LIMIT)
    parser.feed(post("Content-Length: 700", body="a" * 600))
    request = parser.waiting.pop()
    assert parser.kept == 600
    parser.feed(b"a" * 100)
    assert (request.over, parser.kept, parser.unfinished) == (True, 0, False)
    parser.give_up()
    assert request.body() == b"a" * 700


# --- what is read without llhttp: nothing may be read in another way than by it


class ByLlhttp(RequestParser):
    """Reads all requests by llhttp."""

    def _simple_request(self, data: bytes) -> Incoming | None:
        return None


def both(data: bytes, *, before: Sequence[bytes] = ()) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """What is made of one read, and of another behind it; and by llhttp alone. `before`: requests that came
    earlier."""
    found = []
    for kind in (RequestParser, ByLlhttp):
        parser = kind(LIMIT)
        for earlier in before:
            parser.feed(earlier)
            parser.waiting.clear()
        seen_: list[object] = []
        for read in (data, NEXT):
            parser.feed(read)
            seen_ += [(parser.error, parser.begun, parser.unfinished)]
            for head in parser.waiting:
                body = head.body() if head.over else b""
                seen_.append(
                    (
                        head.method,
                        head.target,
                        head.version,
                        head.fields,
                        head.keep_alive,
                        head.length,
                        head.size,
                        body,
                    )
                )
            parser.waiting.clear()
        found.append(tuple(seen_))
    return found[0], found[1]


SIMPLE = b"POST /v1/chat?a=b HTTP/1.1\r\nHost: a:1\r\ncontent-length: 2\r\nX-A:  b, c \r\nConnection: keep-alive\r\n\r\n{}"


def test_a_simple_request_is_read_without_llhttp() -> None:
    head = RequestParser(LIMIT)._simple_request(SIMPLE)
    assert head is not None
    assert (head.method, head.target, head.body()) == ("POST", "/v1/chat?a=b", b"{}")
    assert head.fields == {"host": "a:1", "content-length": "2", "x-a": "b, c", "connection": "keep-alive"}


@pytest.mark.parametrize("at", range(len(SIMPLE)))
def test_every_byte_at_every_place_is_read_as_llhttp_reads_it(at: int) -> None:
    for byte in range(256):
        for data in (
            SIMPLE[:at] + bytes((byte,)) + SIMPLE[at + 1 :],
            SIMPLE[:at] + bytes((byte,)) + SIMPLE[at:],
        ):
            simple, llhttp = both(data)
            assert simple == llhttp, data
    simple, llhttp = both(SIMPLE[:at] + SIMPLE[at + 1 :])
    assert simple == llhttp


# --- a head that the connection sends again

AGAIN = (SIMPLE, SIMPLE)


def repeats(head: bytes, count: int = 2) -> RequestParser:
    parser = RequestParser(LIMIT)
    for _ in range(count):
        parser.feed(head)
        parser.waiting.clear()
    return parser


def body_of(size: int) -> bytes:
    return SIMPLE.replace(b"length: 2", b"length: %d" % size)[:-2] + b"a" * size


@pytest.mark.parametrize("at", range(len(SIMPLE)))
def test_every_byte_at_every_place_of_a_repeated_head_is_read_as_llhttp_reads_it(at: int) -> None:
    for byte in range(256):
        for data in (
            SIMPLE[:at] + bytes((byte,)) + SIMPLE[at + 1 :],
            SIMPLE[:at] + bytes((byte,)) + SIMPLE[at:],
        ):
            repeated, llhttp = both(data, before=AGAIN)
            assert repeated == llhttp, data
    for data in (SIMPLE[:at] + SIMPLE[at + 1 :], SIMPLE[:at]):
        repeated, llhttp = both(data, before=AGAIN)
        assert repeated == llhttp, data


def test_a_head_is_known_again_with_a_body_of_any_length_that_is_allowed() -> None:
    for size in (0, 1, 9, 10, 99, 100, LIMIT, LIMIT + 1):
        repeated, llhttp = both(body_of(size), before=AGAIN)
        assert repeated == llhttp, size
        known = repeats(SIMPLE)._repeated
        assert known is not None
        assert (known.request(body_of(size), LIMIT) is not None) == (size <= LIMIT)
    repeated, llhttp = both(body_of(9) + NEXT, before=AGAIN)
    assert repeated == llhttp
    repeated, llhttp = both(body_of(9)[:-1], before=AGAIN)
    assert repeated == llhttp


def test_the_fields_of_a_repeated_head_are_each_requests_own() -> None:
    parser = repeats(SIMPLE)
    requests = []
    for size in (5, 7):
        parser.feed(body_of(size))
        requests.append(parser.waiting.pop())
    first, second = requests
    assert (first.fields["content-length"], second.fields["content-length"]) == ("5", "7")
    assert first.fields is not second.fields
    assert first.weight == second.weight


def test_the_length_of_a_repeated_head_is_that_of_its_own_line() -> None:
    head = (
        b"POST /content-length:%%205 HTTP/1.1\r\nHost: a\r\nX-Content-Length: 5\r\n"
        b"Content-Length: %d\r\nX: 5\r\n\r\n"
    )
    before = [head % 5 + b"aaaaa"] * 2
    assert repeats(before[0])._repeated is not None
    for data in (head % 7 + b"a" * 7, (head % 5).replace(b"X: 5", b"X: 7") + b"a" * 5, head % 5 + b"a" * 7):
        repeated, llhttp = both(data, before=before)
        assert repeated == llhttp, data


@pytest.mark.parametrize(
    "head",
    [
        NEXT,
        SIMPLE.replace(b"length: 2", b"length:2"),
        SIMPLE.replace(b"length: 2", b"length:  2"),
        SIMPLE.replace(b"b, c", b"b" * MAX_REPEATED),
        CHUNKED + b"0\r\n\r\n",
    ],
)
def test_a_head_that_is_long_or_has_no_plain_length_is_not_kept(head: bytes) -> None:
    assert repeats(head)._repeated is None
    repeated, llhttp = both(SIMPLE, before=[head, head])
    assert repeated == llhttp


def test_a_connections_only_head_is_not_kept_nor_those_that_never_repeat() -> None:
    assert repeats(SIMPLE, 1)._repeated is None
    parser = RequestParser(LIMIT)
    kept = []
    for number in range(7):
        parser.feed(SIMPLE.replace(b"b, c", b"%d" % number))
        parser.waiting.clear()
        kept.append(parser._repeated is not None)
    assert kept == [False, True, True, True, False, False, False]
    parser = repeats(SIMPLE)
    for _ in range(9):  # those that repeat it count for nothing
        parser.feed(SIMPLE)
        parser.waiting.clear()
    parser.feed(SIMPLE.replace(b"b, c", b"d"))
    assert parser._repeated is not None


LINES = (
    "Host: y", "Content-Length: 0", "Content-Length: 2", "Transfer-Encoding: chunked", "Connection: close",
    "Connection: Upgrade", "Upgrade: h2c", "Proxy-Connection: close", "Expect: 100-continue", "X:", ": x", "X : y", " X: y",
    "X", "", "X: \t", "X: é", "TE: trailers", "Keep-Alive: 5", "HTTP2-Settings: A",
)  # fmt: skip
STARTS = (
    "GET / HTTP/1.1", "GET / HTTP/1.0", "GET http://x/ HTTP/1.1", "get / HTTP/1.1", "GET /#a HTTP/1.1", "CONNECT x:1 HTTP/1.1",
    "GET  / HTTP/1.1", "OPTIONS * HTTP/1.1", "PRI * HTTP/2.0", "QUERY / HTTP/1.1", "DELETE // HTTP/1.1",
    'GET /"<>\\^`{|} HTTP/1.1', "PUT / HTTP/1.1 ",
)  # fmt: skip


@pytest.mark.parametrize("line", STARTS)
def test_fields_that_change_a_request_are_read_as_llhttp_reads_them(line: str) -> None:
    for first in LINES:
        for second in LINES:
            for body in ("", "{}"):
                for fields in ([first], [first, second], ["Host: x", first, second]):
                    plain, llhttp = both(request(line, *fields, body=body))
                    assert plain == llhttp, (line, fields, body)


def test_what_comes_behind_a_closing_request_is_not_read() -> None:
    plain, llhttp = both(get("Connection: close"))
    assert plain == llhttp
    assert llhttp[-1] == (True, False, False)
