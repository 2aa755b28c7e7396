"""One JSON line per request, at its end, and the few events of the process's own life. Content is never logged.

A line that cannot be written (a full disk, a closed pipe) is counted and dropped: a log cannot fail a request.
"""

import logging
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

_encode = msgspec.json.Encoder(enc_hook=str).encode


def _render(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    return _encode(event)


class _Lines:
    """Writes whole lines, unbuffered, and never raises."""

    def __init__(self, out: BinaryIO, dropped: Callable[[], None]) -> None:
        self._out = out
        self._dropped = dropped

    def msg(self, line: bytes) -> None:
        try:
            self._out.write(line + b"\n")
            self._out.flush()
        except (OSError, ValueError):
            self._dropped()

    debug = info = warning = error = critical = exception = msg


class _Foreign(logging.Handler):
    """Lines of other libraries: the logger's name and level only, for their texts may quote a caller's bytes."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        self._log.warning("library", logger=record.name, severity=record.levelname.lower(), exception=kind)


def open_log(
    level: str = "info", out: BinaryIO | None = None, dropped: Callable[[], None] = lambda: None
) -> structlog.typing.FilteringBoundLogger:
    """A structlog logger that writes JSON lines to `out` (default: stdout).

    `dropped` is called for each line that could not be written.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        _Lines(out or sys.stdout.buffer, dropped),
        processors=[structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True), _render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        cache_logger_on_first_use=True,
    )
    return logger


def quiet_libraries(log: Any) -> None:
    """Send what libraries log to ours, without their texts."""
    root = logging.getLogger()
    root.handlers[:] = [_Foreign(log)]
    root.setLevel(logging.WARNING)
