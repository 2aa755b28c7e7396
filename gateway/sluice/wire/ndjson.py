"""Newline-delimited JSON: one value per line, ended by LF or CRLF. Empty lines are skipped (servers send them
as heartbeats)."""

from sluice.wire.lines import LIMIT, DelimitedBlocks


class JSONLines:
    """Splits bytes into lines, without their line ends, of at most `limit` bytes each. The lines are not
    parsed."""

    __slots__ = ("_blocks",)

    def __init__(self, limit: int = LIMIT) -> None:
        self._blocks = DelimitedBlocks(b"\n", limit)

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the lines that `data` completes. Raises UpstreamGarbled for a line that is too long (see
        `DelimitedBlocks.feed`)."""
        return [line for raw in self._blocks.feed(data).split(b"\n") if (line := raw.strip(b" \t\r"))]

    def close(self) -> list[bytes]:
        """Ends the input. Returns the last line if its line end is missing; the caller has to judge whether
        it is complete."""
        last = self._blocks.close().strip(b" \t\r")
        return [last] if last else []
