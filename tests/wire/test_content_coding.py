"""Compressed bodies, in every coding and however they are cut."""

import contextlib
import gzip
import random
import zlib
from collections.abc import Callable, Iterator

import brotli
import pytest
from backports import zstd

from sluice.wire import content_coding
from sluice.wire.content_coding import (
    PIECE,
    STEP,
    BrokenCoding,
    ContentDecoder,
    UnknownCoding,
    decoded,
)
from tests.wire import cuts

TEXT = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n' * 3
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def unpacked(names: str, reads: list[bytes]) -> bytes:
    decoder = ContentDecoder(names)
    out = b"".join(piece for read in reads for piece in decoder.feed(read))
    assert decoder.complete
    return out


@pytest.mark.parametrize("name", PACKERS)
def test_a_body_is_the_same_under_every_cut(name: str) -> None:
    for reads in cuts.exhaustive(PACKERS[name](TEXT)):
        assert unpacked(name, reads) == TEXT


def test_raw_deflate_is_read_under_that_name_too() -> None:
    for reads in cuts.exhaustive(raw_deflate(TEXT)):
        assert unpacked("Deflate", reads) == TEXT


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_in_a_row_are_one_body(name: str) -> None:
    for reads in cuts.exhaustive(PACKERS[name](b"one ") + PACKERS[name](b"two")):
        assert unpacked(name, reads) == b"one two"


def test_codings_within_one_another_are_undone_from_the_last() -> None:
    body = gzip.compress(brotli.compress(TEXT))
    assert unpacked("br, gzip", [body]) == TEXT
    assert unpacked(" identity , br,, gzip", cuts.bytewise(body)) == TEXT


@pytest.mark.parametrize("names", ["", "identity", " Identity ,"])
def test_identity_is_handed_on(names: str) -> None:
    assert unpacked(names, [b"a", b"b"]) == b"ab"


@pytest.mark.parametrize("names", ["compress", "gzip, x", "gzip, gzip, gzip, gzip", "br;q=1"])
def test_what_nobody_can_undo_is_refused(names: str) -> None:
    with pytest.raises(UnknownCoding):
        ContentDecoder(names)


@pytest.mark.parametrize("name", PACKERS)
def test_what_is_cut_or_something_else_is_said_to_be_broken(name: str) -> None:
    packed = PACKERS[name](TEXT)
    for body in (packed[:-3], b"", b'{"plain": "text"}' * 9):
        with pytest.raises(BrokenCoding):
            decoded(body, name, 1 << 20)
    assert decoded(packed, name, 1 << 20) == TEXT


@pytest.mark.parametrize("name", PACKERS)
def test_the_limit_counts_what_comes_out(name: str) -> None:
    packed = PACKERS[name](TEXT)
    assert decoded(packed, name, len(TEXT)) == TEXT
    assert decoded(packed, name, len(TEXT) - 1) is None


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_is_made_piece_by_piece(name: str) -> None:
    made = 0
    for piece in ContentDecoder(name).feed(PACKERS[name](bytes(32 << 20))):
        assert len(piece) <= 2 * PIECE
        made += len(piece)
        if made > 1 << 20:
            break
    assert made <= (1 << 20) + 2 * PIECE


@pytest.mark.parametrize("name", PACKERS)
def test_flipped_bits_are_never_another_error(name: str) -> None:
    chance = random.Random(name)
    packed = PACKERS[name](TEXT * 20)
    for _ in range(300):
        wrong = bytearray(packed)
        wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(BrokenCoding):
            decoded(bytes(wrong), name, 1 << 20)


def test_a_window_of_more_than_8_mebibytes_is_refused() -> None:
    packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 25})
    wide = (
        packer.compress(TEXT) + packer.flush()
    )  # a stream of unknown length: its window is what was asked for
    with pytest.raises(BrokenCoding):
        decoded(wide, "zstd", 1 << 23)


EMPTY = {
    "gzip": gzip.compress(b""),
    "zstd": zstd.compress(b""),
    "zstd, to be skipped": b"\x50\x2a\x4d\x18" + b"\0" * 4,
}


@pytest.mark.parametrize("name", EMPTY)
def test_members_without_content_are_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coding = name.partition(",")[0]
    assert decoded(EMPTY[name] * 1000, coding, 1 << 20) == b""
    monkeypatch.setattr(content_coding, "MAX_MEMBERS", 1001)
    with pytest.raises(BrokenCoding, match="parts"):
        decoded(EMPTY[name] * 1002, coding, 1 << 20)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_no_library_is_given_more_than_a_step_at_a_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind a member's end is copied by it: of many members that would be the square of their size."""
    given: list[int] = []
    make = content_coding._CODINGS[name]

    class Measured:
        def __init__(self) -> None:
            self._stream = make()

        def feed(self, data: bytes) -> Iterator[bytes]:
            given.append(len(data))
            return self._stream.feed(data)

        @property
        def complete(self) -> bool:
            return self._stream.complete

    monkeypatch.setitem(content_coding._CODINGS, name, Measured)
    body = PACKERS[name](b"x") * 5000
    assert decoded(body, name, 1 << 20) == b"x" * 5000
    assert max(given) <= STEP
    assert sum(given) == len(body)


def test_members_may_be_padded_wherever_they_are_cut() -> None:
    body = gzip.compress(b"one ") + b"\0" * 5 + gzip.compress(b"two") + b"\0" * (2 * STEP)
    assert unpacked("gzip", [body]) == b"one two"
    assert unpacked("gzip", cuts.bytewise(body)) == b"one two"


def packed(name: str, content: bytes) -> bytes:
    return brotli.compress(content, quality=1) if name == "br" else PACKERS[name](content)


def blocks(size: int) -> bytes:
    """Deflate's stored blocks without content, so many that they are `size` bytes, and the last one."""
    return b"\x00\x00\x00\xff\xff" * (size // 5) + b"\x01\x00\x00\xff\xff"


@pytest.mark.parametrize(
    ("names", "body"),
    [
        ("deflate, gzip", gzip.compress(blocks(20 << 20), 1)),
        ("deflate, gzip, gzip", gzip.compress(gzip.compress(blocks(20 << 20), 1), 1)),
        ("gzip, br", brotli.compress(EMPTY["gzip"] * 100_000, quality=1)),
        ("zstd, zstd", zstd.compress(EMPTY["zstd"] * 120_000)),
    ],
)
def test_what_has_no_content_between_codings_is_bounded(names: str, body: bytes) -> None:
    with pytest.raises(BrokenCoding):
        decoded(body, names, 1 << 20)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("size", [0, 1, PIECE, 3 << 20])
def test_content_of_one_letter_comes_whole_however_little_of_it_is_sent(name: str, size: int) -> None:
    assert decoded(PACKERS[name](b"x" * size), name, 4 << 20) == b"x" * size


@pytest.mark.parametrize(
    "content", [b"x" * (3 << 20), random.Random(1).randbytes(3 << 20)], ids=["small", "large"]
)
@pytest.mark.parametrize("outer", PACKERS)
@pytest.mark.parametrize("inner", PACKERS)
def test_content_of_any_kind_comes_through_two_codings(inner: str, outer: str, content: bytes) -> None:
    body = packed(outer, packed(inner, content))
    assert decoded(body, f"{inner}, {outer}", 4 << 20) == content
