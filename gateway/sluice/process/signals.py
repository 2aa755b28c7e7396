"""Ignores the signals with which other servers reload, reopen or dump something: SIGHUP, SIGQUIT and the SIGUSRs.

A line in the log reports that nothing was done. Only if the terminal is gone on which the process was started, SIGHUP ends it.
"""

import os
import signal
from typing import Any

UNUSED_SIGNALS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def ignore_unused_signals() -> None:
    """Ignore them from the start, as their default action ends the process."""
    for number in UNUSED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def say_unused(log: Any, number: int) -> None:
    """Log that the signal does nothing here."""
    hint = "nothing is reloaded, reopened or dumped: restart to apply another configuration"
    log.warning("signal_ignored", signal=signal.Signals(number).name, hint=hint)


class Terminal:
    """The terminal that the process was started on, if it was."""

    def __init__(self) -> None:
        self._there = os.isatty(1)

    def is_gone(self) -> bool:
        """Whether it was closed: only then SIGHUP is the kernel's, not an operator's."""
        return self._there and not os.isatty(1)
