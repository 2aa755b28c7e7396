"""Decompresses bodies, within bounds: gzip, deflate, br and zstd, also one within another.

RFC 9110 8.4 (codings), RFC 1950 to 1952 (deflate, gzip), RFC 7932 (br), RFC 8878 and 9659 (zstd, and its
window in HTTP). The libraries of br and zstd are imported when a body needs them. Some servers send raw
deflate under the name deflate; as in browsers, both forms are read. A gzip body may have several members in a
row (RFC 1952 2.2).
"""

import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

PIECE = 64 << 10
"""Bytes that are produced at a time; br produces up to twice as many."""
STEP = 8 << 10
"""Bytes that are passed to a library at a time. After the end of a member (gzip) or frame (zstd) it returns a
copy of the rest, so the whole rest would be copied for each of many empty members."""
MAX_MEMBERS = 1 << 16
"""Maximum members or frames of one body: each costs some microseconds, and may have no content."""
MAX_CODINGS = 3
"""Maximum codings within one another."""
FREE_BETWEEN, MOST_BETWEEN = 1 << 20, 2
"""Maximum bytes between two codings: FREE_BETWEEN, plus MOST_BETWEEN for each byte of content. Compressed
data is normally not larger than its content; only attackers send gigabytes without content."""
ZSTD_WINDOW_LOG = 23
"""8 MiB, the window that RFC 9659 allows in HTTP."""


class UnknownCoding(ValueError):
    """A content coding that is not supported."""


class BrokenCoding(ValueError):
    """A body that does not follow its content coding, or ends too early."""


class _Stream(Protocol):
    """The decoder of one coding."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the bytes that `data` completes, in pieces of about PIECE bytes. Raises whatever its library
        raises."""
        ...

    @property
    def complete(self) -> bool:
        """Returns whether the coding's own end has been reached."""
        ...


class ContentDecoder:
    """Decodes a body by its Content-Encoding.

    `names`: the header's value; raises UnknownCoding if one is not supported. With an empty header or
    `identity` the decoder returns its input.
    """

    def __init__(self, names: str) -> None:
        listed = [name for part in names.lower().split(",") if (name := part.strip()) and name != "identity"]
        if len(listed) > MAX_CODINGS or not all(name in _CODINGS for name in listed):
            raise UnknownCoding("content codings that are known: gzip, deflate, br, zstd")
        self._streams = [_CODINGS[name]() for name in reversed(listed)]
        self._between = self._made = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the bytes of the body that `data` completes, in pieces of about PIECE bytes. Nothing is
        produced before it is requested. Raises BrokenCoding."""
        try:
            yield from self._through(0, data)
        except BrokenCoding:
            raise
        except Exception as error:  # zlib.error, brotli.error, ZstdError …: each library has its own
            raise BrokenCoding("it is something else") from error

    def _through(self, number: int, data: bytes) -> Iterator[bytes]:
        if number == len(self._streams):
            if data:
                self._made += len(data)
                yield data
            return
        last = number + 1 == len(self._streams)
        for at in range(0, len(data), STEP):
            for piece in self._streams[number].feed(data[at : at + STEP]):
                if not last:
                    self._between += len(piece)
                    if self._between > FREE_BETWEEN + MOST_BETWEEN * self._made:
                        raise BrokenCoding("what is compressed has next to no content")
                yield from self._through(number + 1, piece)

    @property
    def complete(self) -> bool:
        """Returns whether the end that each coding marks has been reached."""
        return all(stream.complete for stream in self._streams)


def decoded(body: bytes, names: str, limit: int) -> bytes | None:
    """Returns a whole body, decoded; None if that has more than `limit` bytes. Raises UnknownCoding,
    BrokenCoding."""
    decoder = ContentDecoder(names)
    pieces: list[bytes] = []
    size = 0
    for piece in decoder.feed(body):
        size += len(piece)
        if size > limit:
            return None
        pieces.append(piece)
    if not decoder.complete:
        raise BrokenCoding("it ends too early")
    return b"".join(pieces)


def _counted(members: int) -> int:
    if members >= MAX_MEMBERS:
        raise BrokenCoding(f"it has more than {MAX_MEMBERS} parts")
    return members + 1


class _Zlib:
    """`wbits` as in zlib: 31 gzip, 15 zlib, -15 raw deflate; 0: zlib or raw deflate, which the first byte
    shows."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._stream = zlib.decompressobj(wbits) if wbits else None
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream is None:  # the low half of zlib's first byte is 8, its method (RFC 1950 2.2)
                self._wbits = self._wbits or (15 if data[0] & 15 == 8 else -15)
                self._stream = zlib.decompressobj(self._wbits)
            if self._stream.eof:
                if self._wbits != 31:
                    return  # bytes after the end are ignored
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._members = _counted(self._members)
                self._stream = zlib.decompressobj(31)
            stream = self._stream
            piece = stream.decompress(data, PIECE)
            while piece or stream.unconsumed_tail:
                if piece:
                    yield piece
                piece = stream.decompress(stream.unconsumed_tail, PIECE)
            data = stream.unused_data if stream.eof else b""

    @property
    def complete(self) -> bool:
        return self._stream is not None and self._stream.eof


class _Brotli:
    def __init__(self) -> None:
        import brotli

        self._stream = brotli.Decompressor()

    def feed(self, data: bytes) -> Iterator[bytes]:
        while not self._stream.is_finished():
            piece = self._stream.process(data, output_buffer_limit=PIECE)
            data = b""
            if piece:
                yield piece
            elif (
                self._stream.can_accept_more_data()
            ):  # also true while more output of earlier input is to come
                return

    @property
    def complete(self) -> bool:
        return bool(self._stream.is_finished())


class _Zstd:
    """Frames in a row are one body (RFC 8878 3.1)."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
        self._new: Callable[[], Any] = partial(zstd.ZstdDecompressor, options=options)
        self._stream = self._new()
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._stream.eof:
                self._members = _counted(self._members)
                self._stream = self._new()
            stream = self._stream
            if piece := stream.decompress(data, PIECE):
                yield piece
            while not stream.eof and not stream.needs_input:
                if piece := stream.decompress(b"", PIECE):
                    yield piece
            data = stream.unused_data if stream.eof else b""

    @property
    def complete(self) -> bool:
        return bool(self._stream.eof)


_CODINGS: dict[str, Callable[[], _Stream]] = {
    "gzip": lambda: _Zlib(31), "x-gzip": lambda: _Zlib(31), "deflate": lambda: _Zlib(0), "br": _Brotli, "zstd": _Zstd,
}  # fmt: skip
