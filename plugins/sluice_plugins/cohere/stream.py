"""Decodes answers of Cohere's chat API, version 2 (server-sent events):
https://docs.cohere.com/v2/docs/streaming

A stream is message-start, content blocks (start, deltas, end) of text or thinking, the plan of tool calls,
the calls, and citations of the text, in the order in which the model writes them; message-end has the finish
reason and the usage. How a stream ends:

    message-end                              complete ([DONE] may follow)
    the body's end without it                truncated
    a finish reason that means failure       an error (ERROR, TIMEOUT), with the text of `error` if present

A tool plan is treated as reasoning: it is what the model thought before its calls. Unknown types of events
are skipped. A JSON document in place of a stream is a whole answer or an error. An event that msgspec refuses
is decoded field by field (`sluice.wire.lenient`).

Cohere counts a citation's characters within its content block; the events count them from the beginning of
the answer. Each source of a citation becomes an event of its own. `tokens` are those that the model read and
wrote; `billed_units` exclude Cohere's own part of the prompt.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw

from sluice.errors import UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Cited,
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
from sluice.wire.lenient import REPLACEMENT, Halves, encoded, fit, parse, whole_characters
from sluice.wire.sse import Event, EventStream
from sluice.wire.upstream_errors import reported_error, stream_error
from sluice_plugins.decoding import MAX_EVENT, FrameDecoder, arguments_of, failure_of, is_last
from sluice_plugins.openings import EventsOrDocument

_CONTENT = frozenset({"content-delta", "tool-plan-delta", "tool-call-start"})
_BEGIN = frozenset({"content-start", "tool-call-start"})
EVENTS = frozenset(
    {
        "message-start", "content-start", "content-delta", "content-end", "tool-plan-delta", "tool-call-start",
        "tool-call-delta", "tool-call-end", "citation-start", "citation-end", "message-end",
    }
)  # fmt: skip
FINISH_REASONS: dict[str, FinishReason] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
"""https://docs.cohere.com/reference/chat#response.body.finish_reason; those with ERROR_ are of version 1."""
MAX_QUOTE = 2000
"""Most characters of a source's text."""


class _Content(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Raw = Raw(b"")


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Source(msgspec.Struct):
    type: str | None = None
    id: str | None = None
    document: Any = None


class _Citation(msgspec.Struct):
    start: int | None = None
    end: int | None = None
    type: str | None = None
    content_index: int | None = None
    sources: list[_Source] | None = None


class _Message(msgspec.Struct):
    content: _Content | None = None
    tool_plan: str | None = None
    tool_calls: _ToolCall | None = None
    citations: _Citation | None = None


class _Tokens(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    billed_units: _Tokens | None = None
    tokens: _Tokens | None = None
    cached_tokens: int | None = None


class _Delta(msgspec.Struct):
    message: _Message | None = None
    finish_reason: str | None = None
    usage: _Usage | None = None
    error: Any = None


class _Event(msgspec.Struct):
    type: str = ""
    id: str | None = None
    index: int | None = None
    delta: _Delta | None = None


class _Typed(msgspec.Struct):
    type: str = ""
    id: str | None = None


_EVENT = msgspec.json.Decoder(_Event)
_START = msgspec.json.Decoder(_Typed)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_IS_START = re.compile(rb'"type"\s*:\s*"message-start"').search


class ChatDecoder(FrameDecoder[Event]):
    """Decodes one answer.

    `strict`: malformed data is an error, otherwise it is skipped and counted in `skipped`. `skipped_fields`
    counts fields of a wrong type, `finish_missing` answers without a finish reason. `billed`: usage counts
    billed tokens.
    """

    __slots__ = (
        "_begun",
        "_billed",
        "_calls",
        "_halves",
        "_has_content",
        "_keep_stop",
        "_length",
        "_newest",
        "_offsets",
        "_started",
        "_stream",
        "_strict",
        "_usage",
        "finish_missing",
        "skipped",
        "skipped_fields",
    )  # fmt: skip

    def __init__(
        self,
        *,
        strict: bool = False,
        max_event: int = MAX_EVENT,
        keep_stop: bool = False,
        billed: bool = False,
    ) -> None:
        self._stream = EventStream(max_event)
        super().__init__(EventsOrDocument(self._stream))
        self._strict = strict
        self._keep_stop = keep_stop
        self._billed = billed
        self._started = False
        self._newest = -1  # the index of the newest block or call
        self._has_content = False  # a block or a call has begun
        self._calls: dict[int, int] = {}  # indexes of the gateway's calls, by Cohere's indexes
        self._begun: set[int] = set()  # calls that have arguments
        self._length = 0  # characters of the answer's text
        self._offsets: dict[int, int] = {}  # characters of the answer before each content block
        self._usage: _Usage | None = None
        self._halves: Halves | None = None
        self.skipped = 0
        self.skipped_fields = 0
        self.finish_missing = 0

    @property
    def reported(self) -> Usage | None:
        return None if self._usage is None else _usage(self._usage, billed=self._billed)

    # ---- frames

    def _end(self, events: list[StreamEvent]) -> None:
        if isinstance(self._framing, EventsOrDocument) and (document := self._framing.document) is not None:
            return self._whole(document, events)
        last = self._stream.event(self._stream.close())
        if last is not None and is_last(last.data):
            self._take(last, events)
        if not self._done:
            raise UpstreamTruncated
        return None

    def _take(self, frame: Event, events: list[StreamEvent]) -> None:
        data = frame.data
        event = self._decode(data)
        if (
            event is not None and not event.type and frame.event in EVENTS
        ):  # the `event:` line names the type, too
            event.type = frame.event
        if event is None or not event.type:
            if (error := reported_error(data)) is not None:
                raise error
            if event is None and data.strip() == b"[DONE]":
                if self._has_content:
                    self._finish(_Delta(), events)
                return
            if self._strict:
                raise UpstreamGarbled
            self.skipped += 1
            return
        if not self._started:
            self._started = True
            self._framing = self._stream
            events.append(Started(event.id or ""))
        self._event(event, data, events)

    def _decode(self, data: bytes) -> _Event | None:
        """Returns the event; None if the data is not a JSON object."""
        if self._halves is None or not self._halves.pending:
            try:
                return _EVENT.decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        if _IS_START(data):  # its content, calls and citations are empty lists
            try:
                start = _START.decode(data)
                return _Event(start.type, start.id)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        try:
            values = parse(data)
            if self._halves is not None or _HALF.search(data):
                self._join_halves(values)
                values = whole_characters(values)
            values, odd = fit(values, _Event)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd
        return msgspec.convert(values, _Event)

    def _join_halves(self, values: Any) -> None:
        """Join surrogate pairs split over two deltas of one text or one call's arguments; a half that is left at
        the end of a text becomes U+FFFD."""
        halves = self._halves = self._halves or Halves()
        match values:
            case {"type": "content-delta", "delta": {"message": {"content": dict(content)}}}:
                for name in ("text", "thinking"):
                    if type(content.get(name)) is str:
                        content[name] = halves.join((values.get("index"), name), content[name])
            case {"delta": {"message": {"tool_calls": {"function": {"arguments": str(piece)} as function}}}}:
                function["arguments"] = halves.join((values.get("index"), "arguments"), piece)
            case {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": str(plan)} as message}}:
                message["tool_plan"] = halves.join(("plan",), plan)

    def _event(self, event: _Event, data: bytes, events: list[StreamEvent]) -> None:
        delta = event.delta or _Delta()
        message = delta.message or _Message()
        begins = event.type in _BEGIN
        index = self._newest + begins if event.index is None else event.index
        if begins:
            self._newest = index
        index = max(index, 0)
        self._has_content = self._has_content or event.type in _CONTENT
        match event.type:
            case "content-start" | "content-delta":
                self._content(index, message.content or _Content(), events)
            case "content-end":
                self._end_halves(index, events)
            case "tool-plan-delta":
                if message.tool_plan:
                    events.append(ReasoningDelta(message.tool_plan))
            case "tool-call-start":
                self._call(index, message.tool_calls or _ToolCall(), events)
            case "tool-call-delta":
                self._arguments(index, message.tool_calls or _ToolCall(), events)
            case "tool-call-end":
                self._end_call(index, events)
            case "citation-start":
                self._cite(index, message.citations or _Citation(), events)
            case "message-end":
                self._finish(delta, events)
            case "message-start" | "citation-end" | "debug":
                pass
            case _ if b'"error"' in data and (error := reported_error(data)) is not None:
                raise error
            case _:
                self.skipped += 1

    # ---- content

    def _content(self, index: int, content: _Content, events: list[StreamEvent]) -> None:
        if content.thinking:
            events.append(ReasoningDelta(content.thinking))
        if content.text:
            self._offsets.setdefault(index, self._length)
            self._length += len(content.text)
            events.append(TextDelta(content.text))

    def _end_halves(self, index: int | None, events: list[StreamEvent]) -> None:
        """Replace pending halves of surrogate pairs by U+FFFD: those of the block that ends, or (None)
        all."""
        for ended in (
            [key for key in self._halves.pending if index in (None, key[0]) and key[-1] != "arguments"]
            if self._halves is not None
            else ()
        ):
            del self._halves.pending[ended]  # type: ignore[union-attr]
            events.append(TextDelta(REPLACEMENT) if ended[-1] == "text" else ReasoningDelta(REPLACEMENT))

    def _call(self, index: int, call: _ToolCall, events: list[StreamEvent]) -> None:
        number = self._calls[index] = len(self._calls)
        function = call.function or _Function()
        events.append(ToolCallStarted(number, self._id(call.id or ""), function.name or ""))
        self._arguments(index, call, events)

    def _id(self, given: str) -> str:
        """Returns the call's id; "" if it has none or another call has the same."""
        if given in self._ids:
            return ""
        self._ids.add(given)
        return given

    def _arguments(self, index: int, call: _ToolCall, events: list[StreamEvent]) -> None:
        number = self._calls.get(index, len(self._calls) - 1)  # no such call: the newest
        piece = _piece(call.function.arguments) if call.function is not None else ""
        if number >= 0 and piece:
            self._begun.add(number)
            events.append(ToolCallDelta(number, piece))

    def _end_call(self, index: int, events: list[StreamEvent]) -> None:
        number = self._calls.get(index)
        if number is not None and number not in self._begun:
            self._begun.add(number)
            events.append(
                ToolCallDelta(number, "{}")
            )  # clients parse the arguments of their functions as JSON

    def _cite(self, index: int, citation: _Citation, events: list[StreamEvent]) -> None:
        start, end = -1, -1
        if (
            citation.type in (None, "TEXT_CONTENT")
            and citation.start is not None
            and citation.end is not None
        ):
            offset = self._offsets.get(citation.content_index if citation.content_index is not None else 0, 0)
            start, end = offset + citation.start, offset + citation.end
        if not 0 <= start <= end:
            start, end = -1, -1
        for source in citation.sources or [_Source()]:
            about = source.document if isinstance(source.document, dict) else {}
            url, title = _text(about, "url", "link"), _text(about, "title", "name") or source.id or ""
            events.append(
                Cited(url, title, start, end, _text(about, "snippet", "text", "content")[:MAX_QUOTE])
            )

    # ---- the end

    def _finish(self, delta: _Delta, events: list[StreamEvent]) -> None:
        self._usage = delta.usage or self._usage
        native = delta.finish_reason or ""
        if (failure := failure_of(native)) is not None:
            raise stream_error(delta.error) if delta.error else failure
        self._done = True
        self._end_halves(None, events)
        for index in self._calls:  # without a tool-call-end
            self._end_call(index, events)
        if not native:
            self.finish_missing = 1
        reason = FINISH_REASONS.get(native, "stop")
        if reason == "stop" and self._calls and not (self._keep_stop and native):
            reason = "tool_calls"
        events.append(Finished(reason, self.reported, native))

    def _whole(self, document: bytes, events: list[StreamEvent]) -> None:
        """Decode a whole answer, as the events of a stream.

        Raises UpstreamTruncated for half a document, UpstreamError for one that reports an error.
        """
        try:
            value = parse(document)
        except (ValueError, RecursionError):
            raise UpstreamTruncated from None
        match value:
            case {"message": dict(message), **rest} if not rest.get("error"):
                pass
            case _:
                raise reported_error(document) or UpstreamGarbled()
        for frame in _as_frames(value, message):
            self._take(Event(encoded(frame)), events)


def _as_frames(value: dict[str, Any], message: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a whole answer as the events of a stream."""
    frames: list[dict[str, Any]] = [{"type": "message-start", "id": value.get("id")}]

    def add(kind: str, index: int, message_part: dict[str, Any]) -> None:
        frames.append({"type": kind, "index": index, "delta": {"message": message_part}})

    content = message.get("content")
    for index, block in enumerate(content if isinstance(content, list) else [{"text": content}]):
        add("content-start", index, {"content": block})
    add("tool-plan-delta", 0, {"tool_plan": message.get("tool_plan")})
    for index, call in enumerate(_list(message, "tool_calls")):
        add("tool-call-start", index, {"tool_calls": call})
    for index, citation in enumerate(_list(message, "citations")):
        add("citation-start", index, {"citations": citation})
    end = {"finish_reason": value.get("finish_reason"), "usage": value.get("usage")}
    return [*frames, {"type": "message-end", "delta": end}]


def _list(message: dict[str, Any], name: str) -> list[Any]:
    found = message.get(name)
    return found if isinstance(found, list) else []


def _piece(raw: Raw) -> str:
    """Returns the next piece of a call's arguments: text, or (from servers other than Cohere's) the JSON
    value."""
    text = bytes(raw)
    if text.startswith(b'"'):
        try:
            return msgspec.json.decode(text, type=str)
        except msgspec.DecodeError:
            return ""
    return arguments_of(raw)


def _text(about: dict[str, Any], *names: str) -> str:
    """Returns the first of these fields that is a string."""
    return next((text for name in names if isinstance(text := about.get(name), str) and text), "")


def _usage(usage: _Usage, *, billed: bool) -> Usage | None:
    counted = (usage.billed_units if billed else None) or usage.tokens or usage.billed_units
    if counted is None:
        return None
    reasoning = usage.tokens.reasoning_tokens if usage.tokens is not None else None
    cached = min(usage.cached_tokens or 0, counted.input_tokens or 0)
    return Usage(counted.input_tokens or 0, counted.output_tokens or 0, cached, reasoning or 0)
