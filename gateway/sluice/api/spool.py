"""Spools forms that are too large for memory: written to a temporary file as they arrive, and read for each
attempt.

The file has no name (or only for a moment), so nothing is left behind whatever happens. Writing takes a
thread; reading does not, because what has just been written is in the page cache.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from sluice.errors import Unavailable
from sluice.wire.multipart import FormPart, FormScanner

PIECE = 256 << 10
RETRY_AFTER = 1.0
"""Seconds of the Retry-After when there is no space for a form."""


class FormSpools:
    """All files of one process: `limit` bytes together, in `directory` (null: the system's directory for
    temporary files).
    """

    def __init__(self, limit: int, directory: str | None = None) -> None:
        self._limit = limit
        self._directory = directory
        self.size = 0

    def open(self) -> "SpooledForm":
        """Makes an empty file. Raises OSError."""
        return SpooledForm(self, self._directory)

    def take(self, size: int) -> None:
        """Reserves `size` more bytes. Raises Unavailable at the limit."""
        if self.size + size > self._limit:
            raise Unavailable("Too many large forms are on their way", retry_after=RETRY_AFTER)
        self.size += size


class SpooledForm:
    """One form (`sluice.frontends.Uploaded`). Its file is closed with the last reference to it: the call's,
    or that of an attempt that outlives the client.
    """

    def __init__(self, spools: FormSpools, directory: str | None) -> None:
        self._spools = spools
        self._size = 0
        self._file = -1
        with tempfile.TemporaryFile(buffering=0, dir=directory) as file:
            self._file = os.dup(file.fileno())
        self.parts: list[FormPart] = []
        self.first = -1

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._spools.size -= self._size

    def __len__(self) -> int:
        return self._size

    def between(self, start: int, end: int) -> Iterator[bytes]:
        """Yields the bytes from `start` to `end`, a piece at a time. Raises OSError."""
        while start < end:
            piece = os.pread(self._file, min(PIECE, end - start), start)
            if not piece:
                raise OSError("a spooled form has become shorter")
            start += len(piece)
            yield piece

    async def receive(
        self, pieces: AsyncIterator[bytes], boundary: str, beside: Callable[..., Awaitable[Any]]
    ) -> None:
        """Reads the whole form. Raises ValueError for an invalid one, Unavailable, OSError, and what `pieces`
        raises.
        """
        scanner = FormScanner(boundary)
        async for piece in pieces:
            scanner.feed(piece)
            self._spools.take(len(piece))
            self._size += len(piece)
            await beside(self._write, piece)
        scanner.close()
        self.parts, self.first = scanner.parts, scanner.first

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]
