"""Collects the writes of one turn of the event loop, and makes them together at its end.

A write to a socket wakes its reader, with an interrupt if that is on another CPU, and the kernel's code for
this replaces the interpreter's in the caches. Of several writes in a row, most find their readers awake:
under load a request costs a sixth less (bench/PROFILE.md). If at most MAX_UNBATCHED_EXCHANGES are in flight
there is nothing to gain, and writes are made at once. All writes to a transport have to go through the batch,
and code that closes a transport, or its writing side, has to flush first.
"""

import asyncio

MAX_UNBATCHED_EXCHANGES = 4
MAX_BATCHED_BYTES = 16 << 10
"""Maximum bytes that wait: a client that does not read must not keep more than one turn's reads of a fast
upstream in memory."""


class WriteBatch:
    """Collects writes. `users`: the number of exchanges in flight; each adds itself at its start, and removes
    itself at its end."""

    __slots__ = ("_loop", "_waiting", "users")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[asyncio.WriteTransport, bytes] = {}
        self.users = 0

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Writes now, or after the callbacks that the event loop has already scheduled."""
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
        """Returns whether data for the transport has not been passed to it yet."""
        return transport in self._waiting

    def flush(self) -> None:
        """Passes the pending writes to their transports. Writes to a closing transport are dropped, as
        without a batch."""
        waiting, self._waiting = self._waiting, {}
        for transport, data in waiting.items():
            if not transport.is_closing():
                transport.write(data)
