"""Log lines for an application with its own logging."""

import io
import logging

from sluice.telemetry.logs import LogLines


class LoggerLines(LogLines):
    """Passes each line (one JSON object) to the logger "sluice": warnings and errors as WARNING, all others
    as INFO. The host decides what happens to them. The configuration's `log.level` is applied before."""

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
