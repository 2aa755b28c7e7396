"""Writes one JSON line per request, at its end, and the few events of the process itself. Content is never
logged.

Lines are written in batches (the runtime's ticker flushes them), as a write is the most expensive part of a
line. A line that cannot be written (a full disk, a closed pipe, one that nobody reads) is dropped and
counted, and a later line reports the number: the log can neither fail a request nor delay one.
"""

import json
import logging
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from sluice.config.types import Log
from sluice.telemetry.output import LogOutput


def _builtin(value: object) -> object:
    return float(value) if isinstance(value, float) else str(value)


json_line: Callable[[object], bytes] = msgspec.json.Encoder(enc_hook=_builtin).encode
"""Renders a log event as one JSON object."""


def text_line(event: object) -> bytes:
    """Renders a log event as a short line for people: the time (UTC), the level unless it is info, the event,
    and its fields. Characters that could move a terminal's cursor are escaped."""
    fields: dict[str, object] = msgspec.to_builtins(event, enc_hook=_builtin, str_keys=True)
    time_of_day = str(fields.pop("timestamp", ""))[11:19]
    level = fields.pop("level", "info")
    name = str(fields.pop("event", ""))
    fields.pop("request_id", None)
    words = [time_of_day, name] if level == "info" else [time_of_day, str(level).upper(), name]
    words += [
        f"{field}={_shown(value)}" for field, value in fields.items() if value not in (None, "", [], {})
    ]
    return " ".join(words).encode("utf-8", "backslashreplace")


def _shown(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and " " not in value and '"' not in value:
        return value
    if isinstance(value, list):
        return ",".join(map(_shown, value))
    return json.dumps(value)


class LogLines:
    """Buffers lines for `out` until `flush`, so that one write serves many lines.

    Warnings and errors are written at once, with all lines before them. It never raises and never waits:
    bytes that `out` does not accept now are kept, up to BACKLOG bytes, and offered again by each flush.
    `dropped` is called for each line that is lost because the buffer was full or the write failed; a line of
    its own reports their number as soon as `out` accepts lines again.
    """

    FULL = 64 << 10
    """Bytes of one write, unless a single line is longer."""
    BACKLOG = 1 << 20
    """Bytes that may wait for a slow reader."""

    def __init__(
        self,
        out: BinaryIO | LogOutput,
        dropped: Callable[[], object] = lambda: None,
        *,
        full: int = FULL,
        render: Callable[[object], bytes] = json_line,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.render = render
        self._out = out
        self._full = full
        self.dropped = dropped
        self._stamp = _Stamp(wall)
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._due = full
        """The size of the buffer at which to try a write, so that a full `out` is not tried again for every
        line."""
        self._dropped_lines = 0
        """Lost lines that have not been reported yet."""
        self._writing = b""
        self._inside = 0
        """The number of lines in `_writing`, or of lost lines that it reports."""
        self._reports = False
        """Whether `_writing` is a report of lost lines."""

    @property
    def pending(self) -> bool:
        """Whether there is anything to flush."""
        return bool(self._kept or self._writing or self._dropped_lines)

    def msg(self, line: bytes) -> None:
        size = len(line) + 1
        if self._size + size > self._due:
            self.flush()
            if self._size + size > self.BACKLOG:
                self._lose(1)
                return
        self._kept.append(line)
        self._size += size

    def now(self, line: bytes) -> None:
        self.msg(line)
        self.flush()

    def flush(self) -> None:
        """Writes as much as `out` accepts."""
        while self._writing or self._kept or self._dropped_lines:
            if not self._writing:
                self._begin()
            try:
                taken = self._out.write(self._writing)
            except BlockingIOError:
                self._due = min(self._size + self._full, self.BACKLOG)
                return
            except (OSError, ValueError):
                self._give_up()
                return
            self._writing = self._writing[taken:]
        self._due = self._full

    def close(self, seconds: float) -> None:
        """Write what is left; where `out` takes nothing, wait for it as long as this at most."""
        deadline = time.monotonic() + seconds
        self.flush()
        while (
            isinstance(self._out, LogOutput)
            and (self._writing or self._kept)
            and (left := deadline - time.monotonic()) > 0
        ):
            self._out.wait(left)
            self.flush()

    def release(self) -> None:
        """Closes what was opened for writing: a forked process has no use for its copy."""
        self._kept.clear()
        self._out.close()

    def _begin(self) -> None:
        """Prepares the next write: as many lines as fit, or, if none are left, the report of lost ones."""
        kept = self._kept
        if not kept:
            event = {
                "event": "log_lines_dropped",
                "lines": self._dropped_lines,
                "level": "warning",
                "timestamp": self._stamp.text(),
            }
            self._writing = self.render(event) + b"\n"
            self._inside, self._dropped_lines = self._dropped_lines, 0
            self._reports = True
            return
        self._reports = False
        if self._size <= self._full:
            lines = kept
            self._kept = deque()
        else:
            lines, size = deque(), 0
            while kept and (not lines or size + len(kept[0]) < self._full):
                lines.append(kept.popleft())
                size += len(lines[-1]) + 1
        self._writing = b"\n".join(lines) + b"\n"
        self._size -= len(self._writing)
        self._inside = len(lines)

    def _give_up(self) -> None:
        """Drops everything that is kept: the write failed, and so would the next."""
        unwritten = len(self._kept)
        if self._reports:
            self._dropped_lines += self._inside
        else:
            unwritten += self._inside
        self._writing = b""
        self._kept.clear()
        self._size = 0
        self._due = self._full
        self._lose(unwritten)

    def _lose(self, lines: int) -> None:
        self._dropped_lines += lines
        for _ in range(lines):
            self.dropped()

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


class LogLine(msgspec.Struct, kw_only=True):
    """A line whose fields are known in advance. A Struct renders the same bytes as structlog at a fraction of
    the cost."""

    level: str = "info"
    timestamp: str = ""


class _Foreign(logging.Handler):
    """Forwards lines of other libraries: the logger's name and level only, because their texts may quote a
    caller's bytes."""

    def __init__(self, log: Any) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        self._log.warning("library", logger=record.name, severity=record.levelname.lower(), exception=kind)


def standard_lines(config: Log, dropped: Callable[[], object] = lambda: None, *, shared: bool) -> LogLines:
    """Returns the lines for standard output: JSON, or text if that is a terminal or the configuration sets
    it. `shared`: several processes write to it, so writes have at most PIPE_BUF bytes; longer ones could
    be mixed with each other."""
    out = LogOutput(1)
    text = config.format == "text" or (config.format == "auto" and out.isatty())
    return LogLines(
        out,
        dropped,
        full=select.PIPE_BUF if shared else LogLines.FULL,
        render=text_line if text else json_line,
    )


def open_log(
    lines: LogLines, level: str = "info", wall: Callable[[], float] = time.time
) -> structlog.typing.FilteringBoundLogger:
    """Returns a structlog logger that writes to `lines`."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        lines,
        processors=[
            structlog.processors.add_log_level,
            _Stamp(wall),
            lambda _, __, event: lines.render(event),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        context_class=dict,
    )
    return logger.bind()


def open_lines(
    lines: LogLines, level: str = "info", wall: Callable[[], float] = time.time
) -> Callable[[LogLine], None]:
    """Returns the function that writes `LogLine`s like the lines of `open_log`'s logger."""
    stamp, render, names = _Stamp(wall), lines.render, logging.getLevelNamesMapping()
    shown = {name.lower() for name, number in names.items() if number >= names[level.upper()]}

    def say(line: LogLine) -> None:
        if line.level in shown:
            line.timestamp = stamp.text()
            lines.msg(render(line))

    return say


def quiet_libraries(log: Any) -> None:
    """Sends the log lines of libraries to this logger, without their texts."""
    root = logging.getLogger()
    root.handlers[:] = [_Foreign(log)]
    root.setLevel(logging.WARNING)
