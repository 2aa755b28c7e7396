"""How long a body may take, and how much of unfinished ones is kept. Pure: the clock is passed in."""

from typing import Protocol

MIN_RATE = 1024
"""Bytes a second that a body must come at, on average; no honest network is slower for long."""


class Pace:
    """When a body that is still coming is too late.

    It is `timeout` seconds after the beginning, and each byte moves that by 1 / MIN_RATE seconds, but never to more than
    `timeout` seconds from now. So a body that stalls ends within `timeout` however much of it has come, one that trickles soon
    afterwards, and one that comes at MIN_RATE or faster may take as long as it needs. Times are in seconds of one clock.
    """

    __slots__ = ("_timeout", "due")

    def __init__(self, timeout: float, now: float) -> None:
        self._timeout = timeout
        self.due = now + timeout

    def came(self, size: int, now: float) -> None:
        """So many bytes more have come."""
        self.due = min(self.due + size / MIN_RATE, now + self._timeout)


class Keeper(Protocol):
    """A connection that keeps parts of requests."""

    def give_up(self) -> None:
        """Drop what is kept; whoever waits for it is told so."""
        ...


class Unfinished:
    """What all connections keep of requests that are not complete, or wait for their turn: `limit` bytes at most.

    Beyond that the connection that has been silent for the longest time gives up what it keeps. Those are the ones that stall
    or trickle; bodies that come as fast as their network allows are heard of all the time.
    """

    __slots__ = ("_kept", "_limit", "size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[Keeper, int] = {}  # who has been silent for longest first
        self.size = 0

    def keep(self, keeper: Keeper, size: int) -> None:
        """`keeper` keeps so many bytes from now on; 0: nothing any more."""
        self.size += size - self._kept.pop(keeper, 0)
        if size:
            self._kept[keeper] = size
        while self.size > self._limit:
            silent = next(iter(self._kept))
            self.size -= self._kept.pop(silent)
            silent.give_up()
