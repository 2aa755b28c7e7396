"""Writes of one turn of the event loop, made together at its end.

A write to a socket wakes its reader, on another CPU by an interrupt, and the kernel's code on the way there
drives the interpreter's out of the caches. Made in a row, most writes find their readers awake: under load a
request costs a sixth less so (bench/PROFILE.md). Where at most MAX_UNBATCHED_EXCHANGES
are under way there is nothing to be gained, and no write waits.

Everything that is written to a transport goes through here, and whoever closes one, or its writing side,
flushes first.
"""

import asyncio

MAX_UNBATCHED_EXCHANGES = 4
MAX_BATCHED_BYTES = 16 << 10
"""Bytes that do not wait: what a turn can read of a fast upstream is more than a client that does not read
may cost."""


class WriteBatch:
    """Collects writes. `users` is the number of exchanges in flight: each adds itself at its start, and takes
    itself off."""

    __slots__ = ("_loop", "_waiting", "users")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[asyncio.WriteTransport, bytes] = {}
        self.users = 0

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Writes now, or after the callbacks that the event loop has scheduled already."""
        waiting = self._waiting
        if transport in waiting:
            data = waiting.pop(transport) + data
        if self.users <= MAX_UNBATCHED_EXCHANGES or len(data) > MAX_BATCHED_BYTES:
            transport.write(data)
        else:
            if not waiting:
                self._loop.call_soon(self.flush)
            waiting[transport] = data

    def holds(self, transport: asyncio.WriteTransport | None) -> bool:
        """Returns whether something that was written to the transport has not been handed to it yet."""
        return transport in self._waiting

    def flush(self) -> None:
        """Hands the pending writes to their transports. Those to a closing transport are dropped, as without
        a batch."""
        waiting, self._waiting = self._waiting, {}
        for transport, data in waiting.items():
            if not transport.is_closing():
                transport.write(data)
