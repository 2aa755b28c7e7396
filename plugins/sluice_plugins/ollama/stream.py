"""Decodes answers of Ollama's /api/chat: one JSON object per line.

The line with done:true ends the answer; a body that ends without one is truncated, and a `done_reason` that
means failure is an error (`sluice_plugins.decoding.FAILURES`). A last line without a line end counts. After
tool calls `stop` becomes `tool_calls`, unless `keep_stop`. A tool call comes in one piece; if it has no id,
one is generated. An error within a stream is a line {"error": "…"} with status 200. A line that msgspec
refuses because a field has a wrong type is decoded field by field (`sluice.wire.lenient`).

Standard: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from typing import Any

import msgspec
from msgspec import Raw

from sluice.errors import UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from sluice.wire.lenient import REPLACEMENT, Halves, fit, parse, whole_characters
from sluice.wire.ndjson import JSONLines
from sluice.wire.upstream_errors import reported_error, stream_error
from sluice_plugins.decoding import MAX_EVENT, FrameDecoder, arguments_of, failure_of
from sluice_plugins.openings import LinesOrDocument

DONE_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}


class Function(msgspec.Struct):
    name: str | None = None
    arguments: Raw = Raw(b"{}")


class CalledTool(msgspec.Struct):
    function: Function | None = None
    id: str | None = None


class LineMessage(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[CalledTool] | None = None


class Line(msgspec.Struct):
    """A line of /api/chat, or of /api/generate, which has `response`, `thinking` and `tool_calls` instead of
    `message`."""

    model: str | None = None
    message: LineMessage | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: list[CalledTool] | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


_LINE = msgspec.json.Decoder(Line)
_TEXTS = ("thinking", "content", "response")


class ChatDecoder(FrameDecoder[bytes]):
    """Decodes one answer. `skipped` counts malformed lines that were ignored (see `Ollama.strict`),
    `skipped_fields` fields of a wrong type, `finish_missing` answers without a done_reason. `whole`: the body
    is one line, which is the answer even if it does not say `done`."""

    __slots__ = (
        "_calls", "_halves", "_keep_stop", "_lines", "_parsed", "_started", "_strict",
        "finish_missing", "skipped", "skipped_fields", "whole",
    )  # fmt: skip

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        self._lines = JSONLines(max_event)
        super().__init__(LinesOrDocument(self._lines, max_event))
        self._calls = 0
        self._halves: Halves | None = None
        self._parsed: dict[str, Any] | None = None  # the last line, if it was decoded field by field
        self._started = False
        self._strict = strict
        self._keep_stop = keep_stop
        self.skipped = 0
        self.skipped_fields = 0
        self.finish_missing = 0
        self.whole = False

    def _end(self, events: list[StreamEvent]) -> None:
        opening = self._framing
        for line in opening.close() if isinstance(opening, LinesOrDocument) else self._lines.close():
            try:
                self._take(line, events)
            except UpstreamGarbled:
                raise UpstreamTruncated from None
        if not self._done:
            raise UpstreamTruncated

    def _take(self, frame: bytes, events: list[StreamEvent]) -> None:
        line = self._decode(frame)
        if (line is None or (line.message is None and not line.done)) and (
            error := reported_error(frame)
        ) is not None:
            raise error  # an error in the format of another vendor
        if line is None:
            if self._strict or not self._started:
                raise UpstreamGarbled
            self.skipped += 1
            return
        if line.error:
            raise reported_error(frame) or stream_error(line.error)
        if not self._started:
            self._started = True
            if isinstance(self._framing, LinesOrDocument) and self._framing.is_lines:
                self._framing = self._lines
            events.append(Started(model=line.model or ""))
        if line.message is not None:
            self._message(line.message, events)
        if line.done or (
            line.done is None and (line.done_reason or (self.whole and line.message is not None))
        ):
            events.append(self._finish(line))

    def _decode(self, frame: bytes) -> Line | None:
        if self._halves is None or not self._halves.pending:
            try:
                return _LINE.decode(frame)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        try:
            values, odd = fit(parse(frame), Line)
            if self._halves is not None or b"\\u" in frame:
                self._join_halves(values)
                values = whole_characters(values)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd
        self._parsed = values
        return msgspec.convert(values, Line)

    def _join_halves(self, values: dict[str, Any]) -> None:
        """Join surrogate pairs split over two lines; a half left at the end of the answer becomes U+FFFD."""
        halves = self._halves = self._halves or Halves()
        message = values.get("message")
        if type(message) is not dict:
            message = values if "response" in values else values.setdefault("message", {})
        for name in _TEXTS:
            if type(message.get(name)) is str:
                message[name] = halves.join((name,), message[name])
            if values.get("done") and halves.pending.pop((name,), ""):
                message[name] = (message.get(name) or "") + REPLACEMENT

    def _message(self, message: LineMessage, events: list[StreamEvent]) -> None:
        if message.thinking:
            events.append(ReasoningDelta(message.thinking))
        if message.content:
            events.append(TextDelta(message.content))
        for call in message.tool_calls or ():
            if call.function is None:
                continue
            index = self._calls
            self._calls += 1
            events.append(ToolCallStarted(index, self._id(call.id or ""), call.function.name or ""))
            events.append(ToolCallDelta(index, arguments_of(call.function.arguments) or "{}"))

    def _id(self, given: str) -> str:
        """Returns the call's id; "" if it has none or another call has the same."""
        if given in self._ids:
            return ""
        self._ids.add(given)
        return given

    def _finish(self, line: Line) -> Finished:
        self._done = True
        native = line.done_reason or ""
        failure = failure_of(native)
        if failure is not None:
            raise failure
        if not native:
            self.finish_missing = 1
        reason = DONE_REASONS.get(native, "stop")
        if reason == "stop" and self._calls and not (self._keep_stop and native):
            reason = "tool_calls"
        if line.prompt_eval_count is None and line.eval_count is None:
            return Finished(reason, None, native)
        return Finished(reason, Usage(input=line.prompt_eval_count or 0, output=line.eval_count or 0), native)
