"""Detects workers whose event loop has stopped, and keeps their stacks for the log. Pure, except
`CrashTrace`.

Silence is counted in checks, not in seconds: if the supervisor itself did not run (the machine slept, the
whole group was stopped), no worker is blamed.
"""

import contextlib
import faulthandler
import os
from collections.abc import Mapping

LOOK_EVERY = 1.0
"""Seconds between two checks."""
SILENT_FOR = 10
"""Checks without a sign of life after which a worker is replaced."""
LAST_WORDS = 1.0
"""Seconds that it then has to write its stacks."""
LINES, BYTES = 60, 16 << 10


class Watchdog:
    """Call `look` with the latest signs of life, by process, every LOOK_EVERY seconds."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[float, int]] = {}

    def look(self, beats: Mapping[int, float]) -> list[int]:
        """Returns the processes that have been silent for too long, each once."""
        found = []
        seen, self._seen = self._seen, {}
        for pid, beat in beats.items():
            before, looks = seen.get(pid, (-1.0, 0))
            looks = looks + 1 if beat == before else 0
            self._seen[pid] = beat, looks
            if looks == SILENT_FOR:
                found.append(pid)
        return found


class CrashTrace:
    """The file for a worker's stacks of threads, written when it crashes or gets SIGABRT. Raises OSError."""

    def __init__(self) -> None:
        self._file = os.memfd_create("sluice-trace")

    def follow(self) -> None:
        """Enables it, in the worker."""
        faulthandler.enable(self._file, all_threads=True)

    def lines(self) -> list[str]:
        """Returns the stacks written so far: names of files and functions, never values."""
        with contextlib.suppress(OSError):
            return os.pread(self._file, BYTES, 0).decode("utf-8", "replace").splitlines()[:LINES]
        return []

    def close(self) -> None:
        os.close(self._file)
