"""The supervisor's record of a worker process."""

import msgspec

from sluice.process.channel import ChannelEnd
from sluice.process.watchdog import CrashTrace


class Child(msgspec.Struct):
    number: int
    started: float
    """The start time, on the monotonic clock."""
    status: int
    """The descriptor on which the worker reports that it listens, and that it stops accepting; -1: closed."""
    wire: ChannelEnd
    """The supervisor's end of the channel to the worker."""
    slot: int
    """The slot of the worker's counters and of its sign of life."""
    trace: CrashTrace
    listens: bool = False
    silent: bool = False
    """It was silent for too long, and is being killed."""
    replaced: bool = False
    """It was sent SIGTERM, to be replaced by another worker."""
    kill_at: float | None = None
    """The time at which it is killed if it has not ended."""
    leaves: bool = False
    """It accepts no connections any more, and ends when its calls have ended."""
    again_in: float | None = None
    """Seconds before its replacement starts; None: it is not being replaced."""

    @property
    def serves(self) -> bool:
        return self.listens and not self.leaves

    @property
    def state(self) -> str:
        """The state in words, for people."""
        if self.silent:
            return "silent"
        return (
            "leaving"
            if self.leaves
            else "draining"
            if self.replaced
            else "serving"
            if self.listens
            else "starting"
        )
