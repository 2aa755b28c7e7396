"""Forms that are too large to be held: written to a temporary file as they come, and read from it as often as they are sent.

The file has no name (or none for longer than a moment), so nothing is left behind whatever happens. Writing is done beside the
event loop; reading is not, for what has just been written is in the page cache.
"""

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from sluice.errors import Unavailable
from sluice.wire.multipart import FormPart, FormScanner

PIECE = 256 << 10
RETRY_AFTER = 1.0
"""Seconds of the Retry-After for a form that there is no room for."""


class FormSpools:
    """All files of one process: `limit` bytes together, in `directory` (null: where temporary files go)."""

    def __init__(self, limit: int, directory: str | None = None) -> None:
        self._limit = limit
        self._directory = directory
        self.size = 0

    def open(self) -> "SpooledForm":
        """An empty file. Raises OSError where none can be made."""
        return SpooledForm(self, self._directory)

    def take(self, size: int) -> None:
        """Raises Unavailable where there is no room for so many bytes more."""
        if self.size + size > self._limit:
            raise Unavailable("Too many large forms are on their way", retry_after=RETRY_AFTER)
        self.size += size


class SpooledForm:
    """One form (`sluice.frontends.Uploaded`). Its file is closed with the last reference to it: the call's, or that of an
    attempt that outlives the call's client."""

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
        """Its bytes from `start` to `end`, a piece at a time. Raises OSError."""
        while start < end:
            piece = os.pread(self._file, min(PIECE, end - start), start)
            if not piece:
                raise OSError("a spooled form has become shorter")
            start += len(piece)
            yield piece

    async def receive(self, pieces: AsyncIterator[bytes], boundary: str, beside: Callable[..., Awaitable[Any]]) -> None:
        """Take the whole form. Raises ValueError for what is none, Unavailable, OSError, and what `pieces` raises."""
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
