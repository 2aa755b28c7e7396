"""The buffer under every text framing."""

import pytest

from sluice.errors import UpstreamGarbled
from sluice.wire.lines import DelimitedBlocks, Newlines
from tests.wire import cuts


@pytest.mark.parametrize("delimiter", [b"\n", b"\n\n", b"\r\n\r\n"])
def test_blocks_are_the_same_in_any_cut(delimiter: bytes) -> None:
    body = delimiter.join([b"a", b"", b"bc", b" ", b"d"])
    complete = body[: body.rfind(delimiter) + len(delimiter)]
    for reads in cuts.exhaustive(body):
        blocks = DelimitedBlocks(delimiter)
        assert b"".join(blocks.feed(read) for read in reads) == complete
        assert blocks.close() == body.removeprefix(complete)


def test_the_limit_holds_for_what_is_pending() -> None:
    blocks = DelimitedBlocks(b"\n", limit=10)
    blocks.feed(b"0123456789")
    with pytest.raises(UpstreamGarbled):
        blocks.feed(b"01")


def test_a_block_over_the_limit_is_owed_until_the_close() -> None:
    blocks = DelimitedBlocks(b"\n", limit=3)
    assert blocks.feed(b"1\n2222\n3\n") == b"1\n"
    with pytest.raises(UpstreamGarbled):
        blocks.close()


def test_all_line_ends_become_one_in_any_cut() -> None:
    body = b"a\r\nb\rc\n\r\n\r\r\nd\r"
    for reads in cuts.exhaustive(body):
        newlines = Newlines()
        assert b"".join(newlines.feed(read) for read in [b"", *reads]) == b"a\nb\nc\n\n\n\nd\n"


def test_an_empty_read_does_not_part_a_line_end() -> None:
    newlines = Newlines()
    assert [newlines.feed(read) for read in (b"a\r", b"", b"\n", b"\n")] == [b"a\n", b"", b"", b"\n"]
