"""Newline-delimited JSON in any cut."""

import pytest

from sluice.errors import UpstreamGarbled
from sluice.wire.ndjson import JSONLines
from tests.wire import cuts

GRAMMAR: list[tuple[str, bytes, list[bytes]]] = [
    ("lines", b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
    ("carriage returns before the line end", b"1\r\n2\r\n", [b"1", b"2"]),
    ("empty lines", b"\n\r\n \n1\n\n2\n", [b"1", b"2"]),
    ("no last line end", b"1\n2", [b"1", b"2"]),
    ("line ends of other alphabets", b'"a\xe2\x80\xa8b\xc2\x85"\n', [b'"a\xe2\x80\xa8b\xc2\x85"']),
    ("nothing", b"", []),
]


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in GRAMMAR], ids=[row[0] for row in GRAMMAR])
def test_reads_lines_in_any_cut(body: bytes, expected: list[bytes]) -> None:
    for reads in cuts.exhaustive(body):
        lines = JSONLines()
        assert [line for read in reads for line in lines.feed(read)] + lines.close() == expected


@pytest.mark.parametrize("size", [1, 5, 100])
def test_refuses_a_line_over_the_limit_but_gives_what_stood_before_it(size: int) -> None:
    body = b"1\n" + b"2" * 11 + b"\n3\n"
    lines = JSONLines(limit=10)
    found = []

    def read_all() -> None:
        for at in range(0, len(body), size):
            found.extend(lines.feed(body[at : at + size]))
        lines.close()

    with pytest.raises(UpstreamGarbled):
        read_all()
    assert found == [b"1"]
