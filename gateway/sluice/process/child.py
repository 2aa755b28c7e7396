"""A worker process, as its supervisor knows it."""

import msgspec

from sluice.process.channel import ChannelEnd
from sluice.process.watchdog import CrashTrace


class Child(msgspec.Struct):
    number: int
    started: float
    """On the monotonic clock."""
    status: int
    """Descriptor on which the worker reports that it listens, and that it accepts no more; -1: closed."""
    wire: ChannelEnd
    """The supervisor's end of what the two ask each other by."""
    slot: int
    """Where it counts, and shows that it is alive."""
    trace: CrashTrace
    listens: bool = False
    silent: bool = False
    """It did nothing for too long, and is being ended."""
    replaced: bool = False
    """It was told to end, for another one to take its place."""
    kill_at: float | None = None
    """When it is to be killed, because it does not end by itself."""
    leaves: bool = False
    """It accepts no more, and ends when its calls have."""
    again_in: float | None = None
    """Pause in seconds before its replacement starts; None: it is not being replaced."""

    @property
    def serves(self) -> bool:
        return self.listens and not self.leaves

    @property
    def state(self) -> str:
        """A description for people."""
        if self.silent:
            return "silent"
        return "leaving" if self.leaves else "draining" if self.replaced else "serving" if self.listens else "starting"
