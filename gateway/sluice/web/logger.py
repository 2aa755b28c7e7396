"""Log lines for an application that has a logging of its own."""

import io
import logging

from sluice.telemetry.logs import LogLines


class LoggerLines(LogLines):
    """Hands each line (one JSON object) to the logger "sluice": warnings and worse as WARNING, all others as
    INFO.

    What becomes of them is the host's choice. The `log.level` of the configuration is looked at before.
    """

    def __init__(self) -> None:
        super().__init__(io.BytesIO())
        self._logger = logging.getLogger("sluice")

    def msg(self, line: bytes) -> None:
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info("%s", line.decode())

    def now(self, line: bytes) -> None:
        self._logger.warning("%s", line.decode())

    debug = info = msg
    warning = error = critical = exception = now
