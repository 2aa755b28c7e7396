"""Decodes answers of Anthropic's Messages API (SSE):
https://docs.anthropic.com/en/docs/build-with-claude/streaming

A stream is message_start, content blocks (start, deltas, stop), message_delta (stop reason, usage so far) and
message_stop, its terminator. Unknown event types are skipped, as the vendor's versioning policy requires. How
a stream ends:

    message_stop, or a proxy's [DONE] after content   complete; without a stop reason it is `stop` (`finish_missing`)
    a stop reason, then the body's end                complete
    usage in a message_delta, then the body's end     complete if `usage_is_end`, else truncated
    the body's end with none of these                 truncated
    a stop reason that means failure                  an error (`sluice_plugins.decoding.FAILURES`)

After calls of the client's tools `stop` becomes `tool_calls`, unless `keep_stop`. A last event that is
complete JSON counts even without the empty line after it. An event that msgspec refuses is decoded field by
field (`sluice.wire.lenient`). A stream without message_start begins with its first block. Citations and
results of tools that the provider ran make no events.

The signature of a thinking block, or the data of a redacted block, becomes one event at the end of the block.
Thinking without visible text (`display: omitted`), a compaction of the history, and a `fallback` block (it
names the model that continues after another one declined) become Working events: they only show that the
model is working.
"""

import json
import re
from typing import Any

import msgspec

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    ToolKind,
    Usage,
    Working,
)
from sluice.wire.lenient import REPLACEMENT, Halves, fit, parse, whole_characters
from sluice.wire.sse import Event, EventStream
from sluice.wire.upstream_errors import reported_error, stream_error
from sluice_plugins.anthropic.event import (
    BEGINNINGS,
    EVENTS,
    OF_BLOCKS,
    TYPES,
    Block,
    Delta,
    Message,
    ReportedUsage,
    StreamedEvent,
    continuing_model,
    decode,
    is_message,
    usage_of,
    values_of,
    with_text_input,
)
from sluice_plugins.anthropic.instead import as_events
from sluice_plugins.anthropic.texts import form_of, texts_of
from sluice_plugins.decoding import MAX_EVENT, FrameDecoder, arguments_of, failure_of, is_last
from sluice_plugins.openings import EventsOrDocument
from sluice_plugins.text_form import Form

STOP_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "compaction": "stop",
}
MAX_SEALED = 4 << 20
"""Most characters of thinking and signatures kept for the events at their blocks' ends; beyond it none are
sent."""

TOOL_KINDS: dict[str, ToolKind] = {
    "tool_use": "function",
    "server_tool_use": "server",
    "mcp_tool_use": "server",
}


_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


OF_PROMPT = frozenset({"input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"})
"""Counts of input tokens, which do not change within an answer."""
MAX_MOVED = 10_000
"""Most blocks whose wrong index is remembered."""


class _OpenCall(msgspec.Struct):
    """A tool call being received. `whole`: its input, if it came at once; `pieces`: whether it came in
    pieces."""

    index: int
    whole: str
    kind: ToolKind
    pieces: bool = False


class _Thinking:
    """A thinking block being received: the pieces of its text, and its signature."""

    __slots__ = ("pieces", "signature")

    def __init__(self, text: str, signature: str) -> None:
        self.pieces = [text]
        self.signature = signature


class MessagesDecoder(FrameDecoder[Event]):
    """Decodes one message.

    `strict`: malformed data is an error, otherwise it is skipped and counted in `skipped`, since proxies add
    such data. `skipped_fields` counts fields of a wrong type, `finish_missing` answers without a stop reason.
    """

    _verbatim = False

    __slots__ = (
        "_block_index",
        "_blocks",
        "_body",
        "_calls",
        "_form",
        "_had_delta",
        "_halves",
        "_keep_stop",
        "_kind",
        "_message_id",
        "_moved",
        "_reads",
        "_sealed",
        "_started",
        "_stop_reason",
        "_stop_sequence",
        "_stream",
        "_strict",
        "_thinking",
        "_tools",
        "_usage",
        "_usage_ended",
        "_usage_is_end",
        "_values",
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
        usage_is_end: bool = False,
    ) -> None:
        self._stream = EventStream(max_event)
        self._body = EventsOrDocument(self._stream)
        super().__init__(self._body)
        self._strict = strict
        self._keep_stop = keep_stop
        self._usage_is_end = usage_is_end
        self._tools: dict[int, _OpenCall] = {}  # by content block
        self._calls = 0
        self._block_index = -1  # index of the newest block
        self._moved: dict[int, int] = {}  # positions of blocks whose index is not their position
        self._usage: ReportedUsage | None = None
        self._thinking: dict[int, _Thinking] = {}  # by content block
        self._blocks = 0  # reasoning blocks so far
        self._sealed = 0  # characters of thinking and signatures that were kept
        self._usage_ended = False  # a message_delta had usage
        self._stop_reason = ""
        self._stop_sequence = ""
        self._started = False
        self._message_id = ""
        self._had_delta = False  # some block had a delta
        self._halves: Halves | None = None
        self._form: Form | None = None  # the form of the newest block's text deltas
        self._reads = 0  # reads with nothing but texts of the newest block
        self._kind = ""  # the type of the current event; "" if it has none
        self._values: dict[str, Any] | None = None  # the current event, if it was decoded field by field
        self.skipped = 0
        self.skipped_fields = 0
        self.finish_missing = 0

    @property
    def reported(self) -> Usage | None:
        return None if self._usage is None else usage_of(self._usage)

    def _walk(self, data: bytes, events: list[StreamEvent]) -> None:
        texts = self._texts(data)
        if texts is None:
            super()._walk(data, events)
        else:
            events += texts

    def _texts(self, data: bytes) -> list[StreamEvent] | None:
        """Returns the events of a read with nothing but texts of the newest block, as most are; None for any
        other."""
        halves = self._halves
        if (
            self._moved
            or not (self._started and self._stream.clean)
            or (halves is not None and halves.pending)
        ):
            return None
        form = self._form
        if form is not None and (events := form.events(data)) is not None:
            return events
        events = texts_of(data, self._block_index, verbatim=self._verbatim)
        if events is not None and form is None:
            self._reads += 1
            if self._reads > 1:  # not for an answer of a single token
                self._form = form_of(data, verbatim=self._verbatim)
        return events

    def _end(self, events: list[StreamEvent]) -> None:
        if isinstance(self._framing, EventsOrDocument) and (document := self._framing.document) is not None:
            return self._whole(document, events)
        for frame in (self._stream.event(self._stream.close()),):
            if frame is not None and is_last(frame.data):
                self._take_last(frame, events)
        if self._done:
            return None
        if not self._stop_reason and not (self._usage_is_end and self._usage_ended):
            raise UpstreamTruncated
        return self._finish(events)

    def _take_last(self, frame: Event, events: list[StreamEvent]) -> None:
        """Decode a last event without the empty line after it."""
        self._take(frame, events)

    def _whole(self, document: bytes, events: list[StreamEvent]) -> None:
        """Decode a whole message sent in place of a stream."""
        for event in as_events(document):
            self._take(Event(json.dumps(event).encode()), events)

    def _take(self, frame: Event, events: list[StreamEvent]) -> None:
        event = self._decode(frame)
        if event is None:
            if not self._started and is_message(frame.data):
                self._whole(frame.data, events)
            elif self._has_content and frame.data.strip() == b"[DONE]":
                self._finish(events)
            return
        if not self._started and event.type not in ("message_start", "error"):
            if event.type not in BEGINNINGS:
                raise UpstreamGarbled
            self._start(Message(), events)
        kind = self._kind = event.type
        if kind in OF_BLOCKS:
            self._indexed(event)
        index = event.index or 0
        match kind:
            case "content_block_delta":
                if event.delta is not None:
                    self._had_delta = True
                    self._delta(index, event.delta, events)
            case "content_block_start":
                if event.content_block is not None:
                    self._block_index = index
                    self._form, self._reads = None, 0
                    self._block(index, event.content_block, events)
            case "content_block_stop":
                self._block_end(index, events)
            case "message_start":
                if self._started:
                    self._kind = ""  # a message has only one
                    self._second_start((event.message or Message()).id or "")
                else:
                    self._start(event.message or Message(), events)
            case "message_delta":
                self._count(event.usage)
                self._usage_ended = self._usage_ended or event.usage is not None
                self._stop(event.delta or Delta())
            case "message_stop":
                self._finish(events)
            case "error":
                raise stream_error(event.error or values_of(frame.data))

    def _indexed(self, event: StreamedEvent) -> None:
        """Set a block's index to its position: some servers repeat or omit indexes, or begin with 1."""
        given = event.index
        if event.type == "content_block_start":
            event.index = self._block_index + 1
            if given is not None and (self._moved or given != event.index) and len(self._moved) < MAX_MOVED:
                self._moved[given] = event.index
        elif given is None:
            event.index = self._block_index
        elif self._moved:
            event.index = self._moved.get(given, self._block_index)

    def _start(self, message: Message, events: list[StreamEvent]) -> None:
        self._started = True
        self._framing = self._stream
        self._count(message.usage)
        prompt = None if self._usage is None else usage_of(self._usage)
        self._message_id = message.id or ""
        events.append(Started(self._message_id, message.model or "", prompt))

    def _second_start(self, id: str) -> None:
        """Handle a second message_start. It is ignored if it names the same message, or comes before any
        content.

        Otherwise raises UpstreamError: a proxy has retried in the middle of an answer. The new blocks would
        have the indexes of earlier ones, and an incomplete tool call would precede a complete one.
        """
        if id and self._message_id and id != self._message_id and self._has_content:
            raise UpstreamError(
                "stream_error", "The upstream began another answer within this one", status=200
            )

    @property
    def _has_content(self) -> bool:
        """Whether there was any block, or a delta without one."""
        return self._started and (self._had_delta or self._block_index >= 0)

    def _decode(self, frame: Event) -> StreamedEvent | None:
        data = frame.data
        event: StreamedEvent | None = None
        if self._halves is None or not self._halves.pending:
            try:
                event = decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                event = None
        if event is None:
            event = self._mended(data)
        if event is None or not event.type:
            if (error := reported_error(data)) is not None:  # an error of a proxy
                raise error
            if event is not None and frame.event in EVENTS:  # the frame's `event:` line names the type, too
                event.type = frame.event
                return event
            if self._strict:
                raise UpstreamGarbled from None
            self.skipped += 1
            return None
        if event.type in EVENTS:
            return event
        if (
            b'"error"' in data and (error := reported_error(data)) is not None
        ):  # an error in the format of another vendor
            raise error
        self._kind = event.type
        return None

    def _mended(self, data: bytes) -> StreamedEvent | None:
        """Decode an event that msgspec refused, field by field; None if it is not a JSON object."""
        try:
            values, odd = fit(with_text_input(parse(data)), StreamedEvent)
            if self._halves is not None or _HALF.search(data):
                self._join_halves(values)
                values = whole_characters(values)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd
        self._values = values
        return msgspec.convert(values, StreamedEvent)

    def _join_halves(self, values: dict[str, Any]) -> None:
        """Join surrogate pairs split over two deltas of a block (for a half left at its end see
        `_end_halves`)."""
        halves = self._halves = self._halves or Halves()
        block, delta = values.get("index", self._block_index), values.get("delta")
        if values.get("type") == "content_block_delta" and type(delta) is dict:
            for name in TYPES:
                if type(delta.get(name)) is str:
                    delta[name] = halves.join((block, name), delta[name])

    def _delta(self, block: int, delta: Delta, events: list[StreamEvent]) -> None:
        kind = delta.type or next((kind for name, kind in TYPES.items() if getattr(delta, name)), "")
        match kind:
            case "text_delta" if delta.text:
                events.append(TextDelta(delta.text))
            case "thinking_delta":
                events.append(ReasoningDelta(delta.thinking) if delta.thinking else Working())
                self._keep(block, delta.thinking or "")
            case "signature_delta":
                self._keep(block, signature=delta.signature or "")
            case "compaction_delta":
                events.append(Working())
            case "input_json_delta" if delta.partial_json and (tool := self._tool(block)):
                tool.pieces = True
                events.append(ToolCallDelta(tool.index, delta.partial_json))

    def _tool(self, block: int) -> _OpenCall | None:
        """Returns the call of this content block; else, since some servers send a wrong index, the newest
        block's."""
        return self._tools.get(block) or self._tools.get(self._block_index)

    def _block(self, index: int, block: Block, events: list[StreamEvent]) -> None:
        if block.text and block.type in ("text", ""):
            events.append(TextDelta(block.text))
        elif block.type == "thinking" or (block.thinking and not block.type):
            events.append(ReasoningDelta(block.thinking) if block.thinking else Working())
            self._thinking[index] = _Thinking(block.thinking or "", block.signature or "")
        elif block.type == "redacted_thinking":
            self._redacted(block.data or "", events)
        elif block.type in ("fallback", "compaction"):
            events.append(Working(continuing_model(block.to)))
        elif kind := TOOL_KINDS.get(block.type):
            # clients parse the arguments of their functions as JSON, so "" becomes {}
            whole = arguments_of(block.input) or ("{}" if kind == "function" else "")
            tool = self._tools[index] = _OpenCall(self._calls, whole, kind)
            self._calls += 1
            events.append(ToolCallStarted(tool.index, self._id(block.id or ""), block.name or "", kind))

    def _id(self, given: str) -> str:
        """Returns the call's id; "" if it has none or another call has the same."""
        if given in self._ids:
            return ""
        self._ids.add(given)
        return given

    def _redacted(self, data: str, events: list[StreamEvent]) -> None:
        self._sealed += len(data)
        if not data or self._sealed > MAX_SEALED:
            events.append(Working())
            return
        events.append(ReasoningBlock(self._blocks, redacted=data))
        self._blocks += 1

    def _keep(self, block: int, text: str = "", signature: str = "") -> None:
        """Collect text and signature for the event at the block's end, up to MAX_SEALED."""
        thinking = self._thinking.get(block)
        if thinking is None:
            return
        self._sealed += len(text) + len(signature)
        if self._sealed > MAX_SEALED:
            del self._thinking[block]
        elif text:
            thinking.pieces.append(text)
        else:
            thinking.signature += signature

    def _block_end(self, index: int, events: list[StreamEvent]) -> None:
        self._end_halves(events, index)
        thinking = self._thinking.pop(index, None)
        if thinking is not None:
            if thinking.signature:
                events.append(ReasoningBlock(self._blocks, "".join(thinking.pieces), thinking.signature))
                self._blocks += 1
            return
        tool = self._tools.get(index)
        if tool is not None:
            self._end_tool(tool, events)

    def _end_tool(self, tool: _OpenCall, events: list[StreamEvent]) -> None:
        if tool.whole and not tool.pieces:
            tool.pieces = True
            events.append(ToolCallDelta(tool.index, tool.whole))

    def _end_halves(self, events: list[StreamEvent], index: int | None = None) -> None:
        """Replace pending halves of surrogate pairs by U+FFFD: those of the block that ends, or (None)
        all."""
        if self._halves is None:
            return
        for ended in [text_id for text_id in self._halves.pending if index in (None, text_id[0])]:
            del self._halves.pending[ended]
            block, name = ended
            self._delta(block, msgspec.convert({name: REPLACEMENT}, Delta), events)

    @property
    def _called(self) -> bool:
        """Whether one of the client's tools was called."""
        return bool(self._tools) and any([tool.kind == "function" for tool in self._tools.values()])

    def _stop(self, delta: Delta) -> None:
        """Raises UpstreamError for a stop reason that means failure."""
        reason = delta.stop_reason or ""
        self._stop_sequence = delta.stop_sequence or self._stop_sequence
        if reason not in STOP_REASONS and (failure := failure_of(reason)) is not None:
            raise failure
        self._stop_reason = reason or self._stop_reason

    def _count(self, usage: ReportedUsage | None) -> None:
        """Merge usage: counts are cumulative, later ones replace earlier ones, and missing ones have not
        changed. Input counts do not change either, so a later zero is ignored: some servers send zeros for
        unknown counts."""
        if usage is None:
            return
        if self._usage is None:
            self._usage = usage
            return
        for name in ReportedUsage.__struct_fields__:
            count = getattr(usage, name)
            if count or (count is not None and name not in OF_PROMPT):
                setattr(self._usage, name, count)

    def _finish(self, events: list[StreamEvent]) -> None:
        self._done = True
        self._end_halves(events)
        for tool in self._tools.values():  # calls without a content_block_stop
            self._end_tool(tool, events)
        reason = STOP_REASONS.get(self._stop_reason, "stop")
        if not self._stop_reason:
            self.finish_missing = 1
        if reason == "stop" and self._called and not (self._keep_stop and self._stop_reason):
            reason = "tool_calls"
        usage = None if self._usage is None else usage_of(self._usage)
        events.append(Finished(reason, usage, self._stop_reason, stop_sequence=self._stop_sequence))
