"""Runs the turns of a session one at a time, over the processes of one host that share a file of
conversations.

Each session has two bytes of a file beside that one, which are locked with open file description locks
(fcntl(2)): one for the turn, and one for a gate in front of it. A process locks the gate first and keeps it
until it has the turn, so a process whose sessions are always busy does not overtake one that waits. The
kernel frees the locks of a killed process at once.
"""

import asyncio
import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sluice.errors import Unavailable

SUPPORTED = hasattr(fcntl, "F_OFD_SETLK")
"""Linux has these locks; on other systems turns are in order within a process only."""
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.002, 0.05
"""Seconds between two attempts: more each time."""
MAX_WAIT_SECONDS = 600.0
"""Maximum seconds that a turn waits for those of other processes."""
_FLOCK = struct.Struct("hhqqi4x")
"""The format of `struct flock`: l_type, l_whence, l_start, l_len, l_pid."""


class TurnLocks:
    """Opens `path`, or makes it. Raises OSError. `sleep` and `clock` in seconds."""

    def __init__(
        self,
        path: Path,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._sleep = sleep
        self._clock = clock

    async def take(self, tenant: str, session: str, waiting: Callable[[int], Any]) -> None:
        """Waits until no other process has a turn of the session. Safe to cancel. Raises Unavailable.

        `waiting` gets +1 and -1 around the time that it waits.
        """
        gate = _place_of(tenant, session)
        if self._lock(gate, 2):
            self._free(gate, 1)
            return
        waiting(1)
        try:
            until = self._clock() + MAX_WAIT_SECONDS
            await self._locked(gate, until)
            try:
                await self._locked(gate + 1, until)
            finally:
                self._free(gate, 1)
        finally:
            waiting(-1)

    def give_back(self, tenant: str, session: str) -> None:
        self._free(_place_of(tenant, session) + 1, 1)

    def close(self) -> None:
        """Releases all locks."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    async def _locked(self, place: int, until: float) -> None:
        wait = MIN_RETRY_SECONDS
        while not self._lock(place, 1):
            if self._clock() > until:
                raise Unavailable("Turns of this session at another process take too long")
            await self._sleep(wait)
            wait = min(MAX_RETRY_SECONDS, wait * 1.5)

    def _lock(self, place: int, count: int) -> bool:
        try:
            self._set(fcntl.F_WRLCK, place, count)
        except BlockingIOError:
            return False
        except OSError as error:
            raise Unavailable("The order of this session's turns cannot be kept now") from error
        return True

    def _free(self, place: int, count: int) -> None:
        if self._file >= 0:
            self._set(fcntl.F_UNLCK, place, count)

    def _set(self, kind: int, place: int, count: int) -> None:
        fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, place, count, 0))


def _place_of(tenant: str, session: str) -> int:
    """Returns the position of the session's gate: even, below 2^62. Two sessions with the same position would
    wait for each other."""
    name = f"{len(tenant)} {tenant} {session}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) >> 3 << 1
