"""Cutting a stream of bytes behind a delimiter: the one buffer under every text framing.

What is complete comes out as one piece of bytes, so that the usual read (whole frames, nothing pending) is
neither copied nor walked; what is not complete waits in a bounded buffer, and no byte of it is searched
twice.
"""

import re

from sluice.errors import UpstreamGarbled

LIMIT = 1 << 20
"""Default of the most bytes of one line or event. The longest ones seen carry images and search results."""


class DelimitedBlocks:
    """Blocks that each end in `delimiter`; none may be longer than `limit` bytes (the delimiter not
    counted)."""

    __slots__ = ("_buffer", "_delimiter", "_garbled", "_limit")

    def __init__(self, delimiter: bytes, limit: int = LIMIT) -> None:
        self._delimiter = delimiter
        self._limit = limit
        self._buffer = bytearray()
        self._garbled = False

    @property
    def pending(self) -> bool:
        """Whether earlier bytes still wait for the rest of their line."""
        return bool(self._buffer) or self._garbled

    def feed(self, data: bytes) -> bytes:
        """The blocks that are complete now, delimiters included, in one piece; b"" where there is none.

        Raises UpstreamGarbled for a block that is too long: at once where it comes first, else on the next
        call.
        """
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
        """Takes the pending bytes up to the end of the last match of `boundary` in their last `back` bytes,
        with `end` appended; b"" if there is none."""
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
        """The input has ended: what stands behind the last delimiter. Raises what `feed` owes."""
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
        """`body` up to its first block that is too long."""
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
    """CRLF, CR and LF all become LF, also where a read ends between CR and LF."""

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
