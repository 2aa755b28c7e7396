"""Compressed bodies, in every coding and however they are cut."""

import contextlib
import gzip
import random
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd

from sluice.wire.content_coding import PIECE, BrokenCoding, ContentDecoder, UnknownCoding, decoded
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
