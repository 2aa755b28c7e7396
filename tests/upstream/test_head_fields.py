import contextlib
from collections.abc import Mapping

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.upstream.head_fields import MAX_FORMS, HeadFields
from tests.upstream.test_http1 import COMPLETE, ODD, REFUSED


class Judged:
    """What llhttp's callbacks say of a head; `fields` stays None where it is refused."""

    def __init__(self, raw: bytes) -> None:
        self.fields: dict[str, str] | None = None
        self._found: dict[str, str] = {}
        self._llhttp = httptools.HttpResponseParser(self)
        with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._llhttp.feed_data(raw)

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.strip().decode("latin-1")
        self._found[key] = f"{self._found[key]}, {text}" if key in self._found else text

    def on_headers_complete(self) -> None:
        if self._llhttp.get_status_code() >= 200 and self.fields is None:
            self.fields = dict(self._found)
        self._found = {}


def read(fields: HeadFields, raw: bytes) -> Mapping[str, str] | None:
    while raw.startswith(b"HTTP/1.1 1"):
        raw = raw.partition(b"\r\n\r\n")[2]
    return fields.read(raw, 1000)


RAWS = [row[1] for row in (*COMPLETE, *REFUSED)] + ODD
HEADS = [raw for raw in RAWS if Judged(raw).fields is not None]


@pytest.mark.parametrize("before", HEADS)
def test_a_head_says_the_same_whichever_heads_came_before_it(before: bytes) -> None:
    fields = HeadFields()
    for _ in range(3):
        for raw in HEADS[::7]:
            read(fields, before)
            assert read(fields, raw) == Judged(raw).fields
            assert read(fields, before) == Judged(before).fields


NAMES = st.sampled_from([b"Date", b"date", b"X-Request-Id", b"Set-Cookie", b"Server", b"Content-Length"])
VALUES = st.sampled_from(
    [b"", b" ", b" a", b"a", b"  a\t", b" \xe9", b" \xa0a\x85", b" 0", b" : b", b" a, b"]
)
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=5)
STATUS_LINES = st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.1 429 No", b"HTTP/1.1 200", b"HTTP/1.0 200 OK"])


@given(st.lists(st.tuples(STATUS_LINES, LINES), max_size=12), st.binary(max_size=20))
def test_any_heads_are_read_as_by_callbacks(
    heads: list[tuple[bytes, list[tuple[bytes, bytes]]]], body: bytes
) -> None:
    fields = HeadFields()
    for status_line, lines in heads:
        raw = b"\r\n".join([status_line, *(b"%b:%b" % line for line in lines), b"", b""])
        expected = Judged(raw).fields
        if expected is not None:
            assert fields.read(raw + body, 1000) == expected


@given(st.lists(st.lists(VALUES, min_size=4, max_size=4), max_size=12))
def test_values_that_change_are_read_anew(replies: list[list[bytes]]) -> None:
    fields = HeadFields()
    for values in replies:
        lines = zip([b"Date", b"Set-Cookie", b"Server", b"Set-Cookie"], values, strict=True)
        raw = b"HTTP/1.1 200 OK\r\n" + b"".join(b"%b:%b\r\n" % line for line in lines) + b"\r\n"
        assert fields.read(raw, 1000) == Judged(raw).fields


def test_a_head_is_known_once_its_changing_values_are() -> None:
    fields = HeadFields()
    for number in range(100):
        fields.read(b"HTTP/1.1 200 OK\r\nDate: %d\r\nServer: x\r\n\r\n" % number, 10)
        fields.read(b"HTTP/1.1 429 No\r\nServer: x\r\nDate: %d\r\n\r\n" % number, 10)
    assert fields.unknown == 4  # each twice: as it was first, and as it differed


def test_few_forms_are_remembered_and_none_is_shown() -> None:
    fields = HeadFields()
    for number in range(100):
        fields.read(b"HTTP/1.1 200 OK\r\nSet-Cookie-%d: secret\r\n\r\n" % number, 10)
    assert len(fields.forms) == MAX_FORMS
    assert "secret" not in repr(fields.forms)


def test_more_fields_than_allowed_are_none() -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 11 + b"\r\n"
    assert HeadFields().read(head, 10) is None
    assert HeadFields().read(head, 11) == {"a": ", ".join(["b"] * 11)}
