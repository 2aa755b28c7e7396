"""Heads that are not parsed a second time: the requests are what they would have been."""

import random
from collections.abc import Callable

import pytest

from sluice.server import http1
from sluice.server.http1 import HEADS, RequestParser
from sluice.server.known import DIGITS, FIELDS, LONGEST
from tests.wire.counted import Counted
from tests.wire.cuts import bytewise, exhaustive, single

LIMIT = 1000
LINES = ("POST /v1/chat HTTP/1.1", "Host: a.example", "X-Api-Key: sk-1", "Content-Type: application/json", "Accept: */*")


def request(body: bytes, *lines: str, name: str = "Content-Length", length: str | None = None) -> bytes:
    """With the length in the middle of the head, where clients put it."""
    all_lines = [*LINES[:3], f"{name}: {len(body) if length is None else length}", *LINES[3:], *lines]
    return "\r\n".join([*all_lines, "", ""]).encode("latin-1") + body


def outcome(reads: list[bytes], heads: int = HEADS + 1, take: bool = True) -> list[object]:
    """What a connection would see after each read. `take`: requests are answered as they come, else they wait."""
    parser = RequestParser(LIMIT)
    parser._heads_left = heads
    said: list[object] = []
    taken = []
    for data in reads:
        parser.feed(data)
        if take:
            taken += parser.waiting
            parser.waiting.clear()
        said.append((parser.error, parser.begun))
        said += [
            (
                r.method,
                r.target,
                r.version,
                list(r.pairs),
                dict(r.fields),
                r.keep_alive,
                r.length,
                r.size,
                r.body(),
                r.over,
                r.broken,
            )
            for r in (*taken, *parser.waiting)
        ]
    return said


def same(reads: list[bytes]) -> None:
    for take in (True, False):
        assert outcome(reads, take=take) == outcome(reads, heads=0, take=take), reads


def whole(raw: bytes) -> list[bytes]:
    return [raw]


def head_and_body(raw: bytes) -> list[bytes]:
    at = raw.index(b"\r\n\r\n") + 4
    return [part for part in (raw[:at], raw[at:]) if part]


def in_pieces(raw: bytes) -> list[bytes]:
    at = raw.index(b"\r\n\r\n") + 4
    return [raw[: at + 2], *bytewise(raw[at + 2 :])]


@pytest.mark.parametrize("reads_of", [whole, head_and_body, in_pieces])
def test_a_head_is_parsed_twice_and_then_known(reads_of: Callable[[bytes], list[bytes]]) -> None:
    parser = RequestParser(LIMIT)
    llhttp = parser._llhttp = Counted(parser._llhttp)
    sent = [request(b"x" * size) for size in (3, 4, 5, 100, 999, 0, 1000, 1)]
    for raw in sent:
        for data in reads_of(raw):
            parser.feed(data)
        found = parser.waiting.pop()
        assert (found.over, found.body()) == (True, raw.partition(b"\r\n\r\n")[2])
        assert found.fields["content-length"] == str(len(found.body()))
    assert llhttp.bytes == len(sent[0]) + len(sent[1])


def test_a_connection_of_one_request_remembers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "known", None)
    RequestParser(LIMIT).feed(request(b"abc"))


def test_a_client_that_never_repeats_itself_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(http1, "known", lambda data, request: asked.append(data))
    parser = RequestParser(LIMIT)
    for number in range(100):
        parser.feed(request(b"abc", f"X-Request-Id: {number}"))
    assert len(asked) == HEADS


def test_who_does_not_repeat_himself_is_not_compared_for_ever() -> None:
    parser = RequestParser(LIMIT)
    for number in range(HEADS + 3):
        parser.feed(request(b"abc", f"X-Request-Id: {number}"))
        parser.waiting.clear()
    assert parser._known is None


def test_a_closed_parser_has_forgotten() -> None:
    parser = RequestParser(LIMIT)
    for _ in range(3):
        parser.feed(request(b"abc"))
    assert parser._known is not None
    parser.close()
    assert parser._known is None
    parser.feed(request(b"abc"))
    assert len(parser.waiting) == 3


def test_a_body_that_is_cut_short_is_broken() -> None:
    parser = RequestParser(LIMIT)
    for _ in range(3):
        parser.feed(request(b"abc"))
    parser.feed(request(b"abc")[:-1])
    parser.close()
    assert [r.broken for r in parser.waiting] == [False, False, False, True]


NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
FOLLOWING = [
    ("the same", request(b"abcd")),
    ("the same twice", request(b"abcd") + request(b"")),
    ("another behind it", request(b"abcd") + NEXT),
    ("rubbish behind it", request(b"ab") + b"\x00\x01rubbish"),
    ("an empty line before it", b"\r\n" + request(b"ab")),
    ("an empty line behind it", request(b"ab") + b"\r\n"),
    ("half an empty line behind it", request(b"ab") + b"\r"),
    ("another header", request(b"ab", "X-Other: 1")),
    ("a second length", request(b"ab", "Content-Length: 3")),
    ("chunks, too", request(b"ab", "Transfer-Encoding: chunked")),
    ("no length", request(b"", length="")),
    ("a length of zeros", request(b"abc", length="0003")),
    ("a length that is none", request(b"abc", length="3a")),
    ("a length with a sign", request(b"abc", length="+3")),
    ("a length and a space", request(b"abc", length="3 ")),
    ("a length that is negative", request(b"abc", length="-3")),
    ("a long length", request(b"abc", length="0" * DIGITS + "3")),
    ("a length beyond all bounds", request(b"abc", length="9" * 30)),
    ("a length beyond the limit", request(b"x" * (LIMIT + 1))),
    ("another name for it", request(b"ab", name="content-length")),
    ("another version", request(b"ab").replace(b"HTTP/1.1", b"HTTP/1.0")),
    ("another method", b"PUT " + request(b"ab")[5:]),
    ("another target", request(b"ab").replace(b"/v1/chat", b"/v1/chap")),
    ("the end of the connection", request(b"ab", "Connection: close") + NEXT),
    ("an upgrade", request(b"ab", "Connection: Upgrade", "Upgrade: h2c") + NEXT),
    ("chunks", CHUNKED + request(b"ab")),
]


@pytest.mark.parametrize("following", [raw for _, raw in FOLLOWING], ids=[name for name, _ in FOLLOWING])
def test_what_follows_is_what_the_parser_would_make_of_it_in_any_cut(following: bytes) -> None:
    before = [request(b"abc"), request(b"abcd")]
    for cut in exhaustive(following) if len(following) < 2 * LIMIT else single(following, 97):
        same([*before, *cut])
        same([*before, *cut, request(b"abc"), request(b"abc")])


@pytest.mark.parametrize("following", [raw for _, raw in FOLLOWING], ids=[name for name, _ in FOLLOWING])
def test_whatever_head_is_the_first_the_same_holds_for_it(following: bytes) -> None:
    same([following] * 4)
    same([*head_and_body(following)] * 4)
    same([*in_pieces(following)] * 3)
    same([request(b"abc"), *[following] * 3, request(b"abc")])


def test_long_heads_are_not_kept() -> None:
    for lines in ([f"X-{n}: 1" for n in range(FIELDS)], ["X-Long: " + "x" * LONGEST]):
        parser = RequestParser(LIMIT)
        for _ in range(3):
            parser.feed(request(b"abc", *lines))
        assert len(parser.waiting) == 3
        assert parser._known is None


def test_any_requests_in_any_reads() -> None:
    for seed in range(3000):
        dice = random.Random(seed)
        kinds = [request(b"{}" * dice.randrange(9)) for _ in range(3)] + [raw for _, raw in FOLLOWING if len(raw) < LIMIT]
        weights = [12, 12, 12] + [1] * (len(kinds) - 3)
        sent = dice.choices(kinds, weights, k=dice.randrange(2, 9))
        if dice.random() < 0.2:
            at = dice.randrange(len(sent))
            where = dice.randrange(len(sent[at]))
            sent[at] = sent[at][:where] + bytes([dice.choice(b"\r\n\0 :0a")]) + sent[at][where + dice.randrange(2) :]
        reads: list[bytes] = []
        for raw in sent:
            if reads and dice.random() < 0.1:
                reads[-1] += raw
            elif dice.random() < 0.3:
                cut = dice.randrange(1, len(raw))
                reads += [raw[:cut], raw[cut:]]
            else:
                reads.append(raw)
        same(reads)
