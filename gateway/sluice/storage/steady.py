"""A wall clock for what deletes by age: one that jumps ahead, and is set right again, deletes nothing."""

from collections.abc import Callable

MAX_STEP_SECONDS = 60.0
"""Seconds by which the wall clock may get ahead of the monotonic one between two readings."""
BELIEVED_SECONDS = 3600.0
"""Seconds after which a jump is believed: then it was a correction, or the host had slept."""


class SteadyWall:
    """`wall` gives seconds since the epoch, `clock` monotonic ones. It is to be read now and then."""

    def __init__(self, wall: Callable[[], float], clock: Callable[[], float]) -> None:
        self._wall = wall
        self._clock = clock
        self._offset = wall() - clock()
        self._jumped_at: float | None = None

    def __call__(self) -> float:
        """Seconds since the epoch: the wall clock's, or what it would say if it had not jumped ahead."""
        now, elapsed = self._wall(), self._clock()
        if now - elapsed - self._offset > MAX_STEP_SECONDS:
            if self._jumped_at is None:
                self._jumped_at = elapsed
            if elapsed - self._jumped_at < BELIEVED_SECONDS:
                return elapsed + self._offset
        self._jumped_at = None
        self._offset = now - elapsed
        return now
