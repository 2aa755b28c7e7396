"""llhttp, and how much it was asked about: for tests of the ways past it."""

from typing import Any


class Counted:
    """Stands in for a parser's `_llhttp`. `bytes`: what it was fed."""

    def __init__(self, llhttp: Any) -> None:
        self._llhttp = llhttp
        self.bytes = 0

    def feed_data(self, data: bytes) -> None:
        self.bytes += len(data)
        self._llhttp.feed_data(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._llhttp, name)
