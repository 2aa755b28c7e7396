"""Newline-delimited JSON: one value a line, LF or CRLF, empty lines are skipped (they keep a connection
awake)."""

from sluice.wire.lines import LIMIT, DelimitedBlocks


class JSONLines:
    """Bytes -> lines (without their line ends), each of `limit` bytes at most. What is in a line is not
    looked at."""

    __slots__ = ("_blocks",)

    def __init__(self, limit: int = LIMIT) -> None:
        self._blocks = DelimitedBlocks(b"\n", limit)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises UpstreamGarbled for a line that is too long (see
        `DelimitedBlocks.feed`)."""
        return [line for raw in self._blocks.feed(data).split(b"\n") if (line := raw.strip(b" \t\r"))]

    def close(self) -> list[bytes]:
        """The input has ended: the last line, where its line end is missing; the reader must judge whether it
        is whole."""
        last = self._blocks.close().strip(b" \t\r")
        return [last] if last else []
