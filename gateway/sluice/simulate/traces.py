"""Recorded arrivals, as CSV or JSON lines.

A line of a trace may have any of these fields, by any of these names (case, spaces and _ make no difference):

    time        time, timestamp, arrival, at: seconds, milliseconds (`unit`), or a date and time of ISO 8601
    alias       alias, model
    key         key, user
    input       input, input_tokens, tokens_in, prompt_tokens, context_tokens, request_tokens, input_length
    output      output, output_tokens, tokens_out, completion_tokens, generated_tokens, response_tokens, output_length
    max_tokens  max_tokens
    session     session, session_id
    stream      stream

So published traces are read as they are: Azure's (TIMESTAMP, ContextTokens, GeneratedTokens), BurstGPT's
(Timestamp, Model, Request tokens, Response tokens, ...), Mooncake's (timestamp in ms, input_length,
output_length).

The gateway's call records (docs/logs.md) are told by `"record": "call"`: a call arrived its duration before
the record's time.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO, TypeGuard

import msgspec

from sluice.errors import ConfigError

MAX_TOKENS = 10**9
"""Maximum tokens of one prompt or answer."""
MAX_LINE_BYTES = 1 << 20
MAX_TRACE_SECONDS = 40 * 86400
"""Maximum seconds that a trace may span."""

NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("time", "timestamp", "arrival", "arrivaltime", "at"),
    "alias": ("alias", "model"),
    "key": ("key", "user"),
    "input": (
        "input",
        "inputtokens",
        "tokensin",
        "prompttokens",
        "contexttokens",
        "requesttokens",
        "inputlength",
    ),
    "output": (
        "output",
        "outputtokens",
        "tokensout",
        "completiontokens",
        "generatedtokens",
        "responsetokens",
        "outputlength",
    ),
    "max_tokens": ("maxtokens",),
    "session": ("session", "sessionid"),
    "stream": ("stream",),
}
Unit = Literal["s", "ms"]


class Arrival(msgspec.Struct, gc=False):
    """One call. `at`: seconds since the trace's beginning. "" and 0: the trace does not say."""

    at: float
    alias: str = ""
    key: str = ""
    input: int = 0
    output: int = 0
    max_tokens: int = 0
    session: str = ""
    stream: bool = True


class RecordedAttempt(msgspec.Struct, frozen=True, gc=False):
    """The figures of a complete answer, from its call record; times in seconds."""

    target: str
    first_token: float
    token: float


class Trace(msgspec.Struct, frozen=True):
    """Arrivals by their time. `began`: seconds since the epoch at time 0; 0.0: the trace does not say.
    `attempts`: those of call records, for models of upstreams. `skipped`: the number of lines that are not
    calls."""

    arrivals: list[Arrival]
    began: float
    attempts: list[RecordedAttempt]
    skipped: int = 0


def read_trace(path: str, *, unit: Unit = "s") -> Trace:
    """Reads a trace. Raises ConfigError if a line cannot be read, OSError."""
    rows: list[Arrival] = []
    attempts: list[RecordedAttempt] = []
    skipped = 0
    with Path(path).open("r", encoding="utf-8", errors="replace", newline="") as file:
        number = 1
        try:
            for number, line in _lines(file):  # noqa: B007 (it is told where a line is wrong)
                fields = _decoded(line) if isinstance(line, str) else line
                row = (
                    _of_record(fields, attempts) if fields.get("record") == "call" else _of_line(fields, unit)
                )
                if row is None:
                    skipped += 1
                else:
                    rows.append(row)
        except (ValueError, csv.Error) as error:
            raise ConfigError([f"{path}:{number}: {error}"]) from None
    if not rows:
        raise ConfigError([f"{path}: has no call in it"])
    rows.sort(key=lambda row: row.at)
    began = rows[0].at
    if rows[-1].at - began > MAX_TRACE_SECONDS:
        raise ConfigError(
            [
                f"{path}: spans more than {MAX_TRACE_SECONDS // 86400} days (are its times milliseconds? --unit ms)"
            ]
        )
    for row in rows:
        row.at -= began
    return Trace(rows, began if began > 10**8 else 0.0, attempts, skipped)


def _lines(file: TextIO) -> Iterator[tuple[int, str | dict[str, Any]]]:
    """Yields each line's number, and its JSON text or its fields."""
    lines = _bounded(file)
    first = next(lines, "").removeprefix("\ufeff")
    if first.lstrip().startswith("{"):
        yield 1, first
        for number, line in enumerate(lines, 2):
            if line.strip():
                yield number, line
        return
    if not first:
        return
    names = [_plain(name) for name in next(csv.reader([first]), [])]
    if not set(names) & set(NAMES["time"]):
        raise ValueError(
            "expected JSON lines, or CSV whose first line names its columns, a `time` among them"
        )
    for number, values in enumerate(csv.reader(lines), 2):
        if values:
            yield number, dict(zip(names, values, strict=False))


def _bounded(file: TextIO) -> Iterator[str]:
    """Raises ValueError for a line that is longer than MAX_LINE_BYTES, and reads no more of it."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB")
        yield line


def _decoded(line: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise ValueError(f"no JSON: {error}") from None
    except RecursionError:
        raise ValueError("no JSON: nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError("expected a JSON object on each line")
    return (
        fields if fields.get("record") == "call" else {_plain(name): value for name, value in fields.items()}
    )


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "").replace(" ", "").replace("-", "")


def _of_line(fields: Mapping[str, Any], unit: Unit) -> Arrival | None:
    def found(what: str) -> Any:
        return next((fields[name] for name in NAMES[what] if fields.get(name) not in (None, "")), None)

    at = found("time")
    if at is None:
        raise ValueError(f"expected a time, under one of the names {', '.join(NAMES['time'])}")
    return Arrival(
        _seconds(at, unit),
        str(found("alias") or ""),
        str(found("key") or ""),
        _tokens(found("input")),
        _tokens(found("output")),
        _tokens(found("max_tokens")),
        str(found("session") or ""),
        str(found("stream")).lower() not in ("false", "0", "no"),
    )


def _of_record(fields: Mapping[str, Any], attempts: list[RecordedAttempt]) -> Arrival | None:
    """Returns None for requests that were refused before their alias was known."""
    duration = fields.get("duration")
    if not fields.get("alias") or not isinstance(duration, int | float):
        return None
    if not 0 <= duration <= MAX_TRACE_SECONDS:
        raise ValueError(f"expected a duration from 0 to {MAX_TRACE_SECONDS} seconds")
    key = fields.get("key")
    row = Arrival(
        _seconds(fields.get("timestamp"), "s") - duration,
        str(fields["alias"]),
        str(key or ""),
        _tokens(fields.get("tokens_in")),
        _tokens(fields.get("tokens_out")),
        stream=fields.get("stream") is not False,
    )
    listed = fields.get("attempts")
    last = listed[-1] if isinstance(listed, list) and listed else None
    if (
        isinstance(last, dict)
        and last.get("outcome") == "ok"
        and _is_span(first := last.get("first_token"))
        and _is_span(started := last.get("started") or 0.0)
    ):
        token = max(0.0, (duration - started - first) / (row.output - 1)) if row.output > 1 else 0.0
        attempts.append(RecordedAttempt(str(last.get("target")), first, token))
    return row


def _is_span(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value <= MAX_TRACE_SECONDS


def _seconds(value: Any, unit: Unit) -> float:
    """Raises ValueError."""
    try:
        seconds = float(value) / (1000 if unit == "ms" else 1)
    except (TypeError, ValueError, OverflowError):
        try:
            seconds = _moment(str(value))
        except ValueError:
            raise ValueError(
                "expected a time in seconds, or a date and time such as 2026-11-30T12:00:00Z"
            ) from None
    if not math.isfinite(seconds):
        raise ValueError("expected a time that is finite")
    return seconds


def _moment(text: str) -> float:
    """Parses a moment. Azure writes seven digits after the point, and Python 3.11 accepts six."""
    head, point, rest = text.strip().partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    moment = datetime.fromisoformat(head + point + rest[: min(digits, 6)] + rest[digits:])
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _tokens(value: Any) -> int:
    if value is None or value == "":
        return 0
    try:
        number = float(value)
        if 0 <= number <= MAX_TOKENS:
            return int(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"expected a number of tokens from 0 to {MAX_TOKENS}")
