"""Signals: SIGTERM and SIGINT end the gateway, SIGHUP reloads its configuration, SIGUSR2 replaces its workers
one after another.

SIGQUIT and SIGUSR1, with which other servers dump or reopen something, are ignored, with a line in the log.
If the terminal on which the process was started is closed, SIGHUP ends it.
"""

import os
import signal
from typing import Any

UNUSED_SIGNALS = (signal.SIGQUIT, signal.SIGUSR1)


def ignore_signals() -> None:
    """Ignores all but SIGTERM and SIGINT until handlers are installed: the default action would end the
    process."""
    for number in (signal.SIGHUP, signal.SIGUSR2, *UNUSED_SIGNALS):
        signal.signal(number, signal.SIG_IGN)


def say_unused(log: Any, number: int) -> None:
    """Logs that the signal has no effect."""
    hint = "SIGHUP reloads the configuration, SIGUSR2 replaces the workers of a gateway that has several"
    log.warning("signal_ignored", signal=signal.Signals(number).name, hint=hint)


class Terminal:
    """The terminal on which the process was started, if any."""

    def __init__(self) -> None:
        self._there = os.isatty(1)

    def is_gone(self) -> bool:
        """Returns whether it was closed: then SIGHUP comes from the kernel, not from an operator."""
        return self._there and not os.isatty(1)
