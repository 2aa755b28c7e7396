"""Splits a stream of bytes at a delimiter: the one buffer below every text format.

Complete blocks are returned as one piece of bytes, so that the usual read (whole frames, nothing pending) is
neither copied nor examined byte by byte. Incomplete data waits in a bounded buffer, and no byte of it is
searched twice.
"""

import re

from sluice.errors import UpstreamGarbled

LIMIT = 1 << 20
"""Default maximum bytes of one line or event. The longest ones in practice carry images and search results.
"""


class DelimitedBlocks:
    """Blocks that each end in `delimiter`; none may be longer than `limit` bytes, without the delimiter."""

    __slots__ = ("_buffer", "_delimiter", "_garbled", "_limit")

    def __init__(self, delimiter: bytes, limit: int = LIMIT) -> None:
        self._delimiter = delimiter
        self._limit = limit
        self._buffer = bytearray()
        self._garbled = False

    @property
    def pending(self) -> bool:
        """Returns whether earlier bytes still wait for the rest of their line."""
        return bool(self._buffer) or self._garbled

    def feed(self, data: bytes) -> bytes:
        """Returns the complete blocks, delimiters included, in one piece; b"" if there is none. Raises
        UpstreamGarbled for a block that is too long: at once if it comes first, else in the next call."""
        if self._garbled:
            raise self._too_long()
        body = self._cut(data)
        if len(body) > self._limit:
            body = self._short_ones(body)
        if len(self._buffer) >= self._limit + len(self._delimiter):
            self._garbled = True
        if self._garbled and not body:
            raise self._too_long()
        return body

    def cut(self, boundary: re.Pattern[bytes], back: int, end: bytes) -> bytes:
        """Removes and returns the pending bytes up to the end of the last match of `boundary` in their last
        `back` bytes, with `end` appended; b"" if there is no match."""
        buffer = self._buffer
        last = 0
        for found in boundary.finditer(buffer, max(0, len(buffer) - back)):
            last = found.end()
        if not last:
            return b""
        body = bytes(buffer[:last]) + end
        del buffer[:last]
        return body

    def close(self) -> bytes:
        """Ends the input. Returns what follows the last delimiter. Raises the error that `feed` has
        postponed."""
        if self._garbled:
            raise self._too_long()
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _cut(self, data: bytes) -> bytes:
        buffer = self._buffer
        if not buffer:
            found = data.rfind(self._delimiter)
            end = found + len(self._delimiter) if found >= 0 else 0
            if end == len(data):
                return data
            buffer += data[end:]
            return data[:end]
        start = max(
            0, len(buffer) - len(self._delimiter) + 1
        )  # all before was searched, but for a delimiter cut in two
        buffer += data
        found = buffer.rfind(self._delimiter, start)
        if found < 0:
            return b""
        end = found + len(self._delimiter)
        body = bytes(buffer[:end])
        del buffer[:end]
        return body

    def _short_ones(self, body: bytes) -> bytes:
        """Returns `body` up to its first block that is too long."""
        start = 0
        while start < len(body):
            end = body.find(self._delimiter, start)
            if end - start > self._limit:
                self._garbled = True
                return body[:start]
            start = end + len(self._delimiter)
        return body

    def _too_long(self) -> UpstreamGarbled:
        return UpstreamGarbled(f"The upstream sent a line or event longer than {self._limit} bytes")


class Newlines:
    """Converts CRLF and CR to LF, also if a read ends between CR and LF."""

    __slots__ = ("after_cr",)

    def __init__(self) -> None:
        self.after_cr = False

    def feed(self, data: bytes) -> bytes:
        if self.after_cr and data:
            self.after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" not in data:
            return data
        self.after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
