"""One JSON line per request, at its end, and the few events of the process's own life. Content is never logged.

Lines leave many at a time (the runtime's ticker flushes them), for a write is the dearest part of a line.
A line that cannot be written (a full disk, a closed pipe) is counted and dropped: a log cannot fail a request.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger


def _plain(value: object) -> object:
    return float(value) if isinstance(value, float) else str(value)


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def _render(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    return _encode(event)


class Lines:
    """Whole lines for `out`, kept until `flush`: one write for many. Warnings and worse leave at once, with what was before.

    Never raises: `dropped` is called for each line that could not be written.
    """

    FULL = 64 << 10
    """Bytes of one write, where one line is not longer."""

    def __init__(self, out: BinaryIO, dropped: Callable[[], None] = lambda: None, *, full: int = FULL) -> None:
        self._out = out
        self._full = full
        self._dropped = dropped
        self._kept: list[bytes] = []
        self._size = 0

    def msg(self, line: bytes) -> None:
        if self._size + len(line) >= self._full:
            self.flush()
        self._kept.append(line)
        self._size += len(line) + 1

    def now(self, line: bytes) -> None:
        self.msg(line)
        self.flush()

    def flush(self) -> None:
        if not self._kept:
            return
        lines, self._kept, self._size = self._kept, [], 0
        try:
            self._out.write(b"\n".join(lines) + b"\n")
            self._out.flush()
        except (OSError, ValueError):
            for _ in lines:
                self._dropped()

    debug = info = msg
    warning = error = critical = exception = now


class _Stamp:
    """ISO 8601 in UTC with milliseconds; a moment's text is made once."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._moment = self._second = -1
        self._of_second = self._text = ""

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["timestamp"] = self.text()
        return event

    def text(self) -> str:
        moment = int(self._wall() * 1000)
        if moment != self._moment:
            self._moment = moment
            second, milliseconds = divmod(moment, 1000)
            if second != self._second:
                self._second = second
                self._of_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._text = f"{self._of_second}.{milliseconds:03d}Z"
        return self._text


class Line(msgspec.Struct, kw_only=True):
    """A line whose fields are known beforehand. Made of a Struct it costs a fraction of structlog's way to the same bytes."""

    level: str = "info"
    timestamp: str = ""


class _Foreign(logging.Handler):
    """Lines of other libraries: the logger's name and level only, for their texts may quote a caller's bytes."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        self._log.warning("library", logger=record.name, severity=record.levelname.lower(), exception=kind)


def open_log(lines: Lines, level: str = "info", wall: Callable[[], float] = time.time) -> structlog.typing.FilteringBoundLogger:
    """A structlog logger that writes JSON lines."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        lines,
        processors=[structlog.processors.add_log_level, _Stamp(wall), _render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        context_class=dict,
    )
    return logger.bind()


def open_lines(lines: Lines, level: str = "info", wall: Callable[[], float] = time.time) -> Callable[[Line], None]:
    """What writes `Line`s, as `open_log`'s logger writes its own."""
    stamp = _Stamp(wall)

    def say(line: Line) -> None:
        line.timestamp = stamp.text()
        lines.msg(_encode(line))

    return say if logging.getLevelNamesMapping()[level.upper()] <= logging.INFO else lambda _: None


def quiet_libraries(log: Any) -> None:
    """Send what libraries log to ours, without their texts."""
    root = logging.getLogger()
    root.handlers[:] = [_Foreign(log)]
    root.setLevel(logging.WARNING)
