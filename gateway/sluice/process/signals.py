"""Which signals mean something. SIGTERM and SIGINT end the gateway, SIGHUP reloads its configuration, SIGUSR2
replaces its workers one after another.

Those with which other servers reopen or dump something (SIGQUIT and SIGUSR1) are ignored, and a line in the log reports
that nothing was done. If the terminal is gone on which the process was started, SIGHUP ends it.
"""

import os
import signal
from typing import Any

UNUSED_SIGNALS = (signal.SIGQUIT, signal.SIGUSR1)


def ignore_signals() -> None:
    """Ignore all but SIGTERM and SIGINT, from the start until somebody handles them: their default action ends the process."""
    for number in (signal.SIGHUP, signal.SIGUSR2, *UNUSED_SIGNALS):
        signal.signal(number, signal.SIG_IGN)


def say_unused(log: Any, number: int) -> None:
    """Log that the signal does nothing here."""
    hint = "SIGHUP reloads the configuration, SIGUSR2 replaces the workers of a gateway that has several"
    log.warning("signal_ignored", signal=signal.Signals(number).name, hint=hint)


class Terminal:
    """The terminal that the process was started on, if it was."""

    def __init__(self) -> None:
        self._there = os.isatty(1)

    def is_gone(self) -> bool:
        """Whether it was closed: only then SIGHUP is the kernel's, not an operator's."""
        return self._there and not os.isatty(1)
