"""Signals that mean nothing here: SIGHUP, SIGQUIT and the SIGUSRs, which people send to servers to have them reload, reopen or
dump something.

There is nothing of that kind yet: a line in the log says so, and nothing else happens. Only where the terminal is gone that
the process was started on, SIGHUP ends it.
"""

import os
import signal
from typing import Any

UNUSED_SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def ignore_unused_signals() -> None:
    """Let what people send to other servers do no harm, from the first moment on."""
    for number in UNUSED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def say_unused(log: Any, number: int) -> None:
    """Tell whoever sent it that the signal means nothing here."""
    hint = "nothing is reloaded, reopened or dumped: restart to apply another configuration"
    log.warning("signal_ignored", signal=signal.Signals(number).name, hint=hint)


class Terminal:
    """The terminal that the process was started on, if it was."""

    def __init__(self) -> None:
        self._there = os.isatty(1)

    def is_gone(self) -> bool:
        """Whether it was closed: then SIGHUP means that, and is not somebody's wish."""
        return self._there and not os.isatty(1)
