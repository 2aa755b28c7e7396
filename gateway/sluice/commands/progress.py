"""Shows on a terminal what a command that takes longer than a second is doing.

It writes one line on stderr, overwrites it, and erases it at the end, so that the command's own output is
unaffected. If stderr is not a terminal, nothing is written and no thread is started.
"""

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

FIRST = 1.0
"""Seconds of silence before the first line."""
EVERY = 0.5
"""Seconds between two lines."""


class Progress:
    """A context manager: within it, `doing` and the seconds so far are shown.

    with Progress("reading calls.csv") as progress:
        progress.doing = "1000 lines of calls.csv"
    """

    def __init__(
        self, doing: str, *, out: TextIO | None = None, first: float = FIRST, every: float = EVERY
    ) -> None:
        self.doing = doing
        self._out = out if out is not None else sys.stderr
        self._pauses = first, every
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if self._out.isatty():
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Erase the line and show nothing more. It may be called repeatedly."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _show(self) -> None:
        began = time.monotonic()
        pause, every = self._pauses
        shown = False
        while not self._over.wait(pause):
            self._write(f"\r\033[K{self.doing} … {time.monotonic() - began:.0f} s")
            pause, shown = every, True
        if shown:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except (OSError, ValueError):  # the terminal was closed
            self._over.set()
