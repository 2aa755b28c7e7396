"""Bounds the time that a body may take, and the memory of unfinished ones. Pure: the clock is passed in."""

from typing import Protocol

MIN_RATE = 1024
"""Minimum bytes per second of a body, on average; a working network is not slower than that for long."""


class Pace:
    """The deadline of a body that is still being received.

    It is `timeout` seconds after the beginning, and each byte extends it by 1 / MIN_RATE seconds, but never
    to more than `timeout` seconds from now. So a body that stalls ends within `timeout`, however much of it
    has arrived; one that trickles ends soon afterwards; and one that arrives at MIN_RATE or faster may take
    as long as it needs. Times are in seconds of one clock.
    """

    __slots__ = ("_timeout", "due")

    def __init__(self, timeout: float, now: float) -> None:
        self._timeout = timeout
        self.due = now + timeout

    def came(self, size: int, now: float) -> None:
        """Counts `size` more bytes."""
        self.due = min(self.due + size / MIN_RATE, now + self._timeout)


class Keeper(Protocol):
    """A connection that keeps bytes of incomplete requests."""

    def give_up(self) -> None:
        """Drops these bytes, and raises an error in the code that waits for more."""
        ...


class Unfinished:
    """Bounds the bytes that all connections keep of incomplete or waiting requests: at most `limit`.

    Beyond it the connection that has been silent for the longest time drops its bytes. Those are connections
    that stall or trickle; a body that arrives as fast as its network allows is never silent for long.
    """

    __slots__ = ("_kept", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[Keeper, int] = {}  # the longest silent first
        self.size = 0

    def keep(self, keeper: Keeper, size: int) -> None:
        """Records that `keeper` keeps `size` bytes from now on."""
        self.size += size - self._kept.pop(keeper, 0)
        if size:
            self._kept[keeper] = size
        while self.size > self._limit:
            silent = next(iter(self._kept))
            self.size -= self._kept.pop(silent)
            silent.give_up()
