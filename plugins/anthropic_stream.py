"""The answer of Anthropic's Messages API: https://docs.anthropic.com/en/docs/build-with-claude/streaming (SSE).

A stream is message_start, then content blocks (start, deltas, stop), message_delta (why it stopped, usage so far) and
message_stop, its terminator. Event types nobody here knows are skipped, as the vendor's versioning policy asks.
A body that ends after a stop reason has been told, but before message_stop, is complete too.
Citations and the results of tools the provider ran have no event of ours.

A thinking block's signature, and a redacted block's data, are told as one event at the block's end. Thinking of which no text
is shown (`display: omitted`), and a compaction of the history, are signs of life, nothing else; so is a `fallback` block,
which names the model that goes on where another declined.
"""

from typing import Any

import msgspec
from msgspec import Raw

from gateway.errors import UpstreamGarbled, UpstreamTruncated
from gateway.events import (
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
from gateway.wire.sse import Event, EventStream
from gateway.wire.upstream_errors import stream_error, told_error
from plugins.decoding import FrameDecoder

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
"""Characters of thinking and signatures that are kept of one answer, to be told at their blocks' ends; longer ones are not."""

TOOL_KINDS: dict[str, ToolKind] = {"tool_use": "function", "server_tool_use": "server", "mcp_tool_use": "server"}

EVENTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    type: str
    id: str = ""
    name: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    to: Any = None
    input: Raw = Raw(b"")


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Event(msgspec.Struct):
    """Any event of the stream: one decode, no union, so that a type nobody here knows is no error."""

    type: str
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None
    error: Any = None


class _Typed(msgspec.Struct):
    type: str


_EVENT = msgspec.json.Decoder(_Event)
_TYPED = msgspec.json.Decoder(_Typed)


class _Writing(msgspec.Struct):
    """A tool call that is being written. `whole`: its input, where it came at once; `pieces`: it came in pieces."""

    index: int
    whole: str
    pieces: bool = False


class _Thinking:
    """A block of thinking that is being told: its text in pieces, and its signature."""

    __slots__ = ("pieces", "signature")

    def __init__(self, text: str, signature: str) -> None:
        self.pieces = [text]
        self.signature = signature


class MessagesDecoder(FrameDecoder[Event]):
    """The events of one message. `strict`: data that is no event is an error, else it is a proxy's noise: skipped, counted."""

    __slots__ = (
        "_blocks", "_sealed", "_started", "_stop_reason", "_stream", "_strict", "_thinking", "_tools", "_usage", "skipped"
    )  # fmt: skip

    def __init__(self, *, strict: bool = False) -> None:
        self._stream = EventStream()
        super().__init__(self._stream)
        self._strict = strict
        self._tools: dict[int, _Writing] = {}  # by content block
        self._usage: _Usage | None = None
        self._thinking: dict[int, _Thinking] = {}  # by content block
        self._blocks = 0  # of reasoning, so far
        self._sealed = 0  # characters of them
        self._stop_reason = ""
        self._started = False
        self.skipped = 0

    def _end(self) -> list[StreamEvent]:
        self._stream.close()
        if not self._stop_reason:
            raise UpstreamTruncated
        return [self._finish()]

    def _take(self, frame: Event, events: list[StreamEvent]) -> None:
        event = self._decode(frame.data)
        if event is None:
            return
        if not self._started and event.type not in ("message_start", "error"):
            raise UpstreamGarbled
        match event:
            case _Event(type="content_block_delta", delta=_Delta() as delta):
                self._delta(event.index, delta, events)
            case _Event(type="content_block_start", content_block=_Block() as block):
                self._block(event.index, block, events)
            case _Event(type="content_block_stop"):
                self._block_end(event.index, events)
            case _Event(type="message_start", message=_Message() as message) if not self._started:
                self._started = True
                self._count(message.usage)
                events.append(Started(message.id, message.model))
            case _Event(type="message_delta", delta=delta):
                self._count(event.usage)
                self._stop_reason = (delta and delta.stop_reason) or self._stop_reason
            case _Event(type="message_stop"):
                events.append(self._finish())
            case _Event(type="error"):
                raise stream_error(event.error)

    def _decode(self, data: bytes) -> _Event | None:
        try:
            event = _EVENT.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            kind = _type(data)
            if not kind and (error := told_error(data)) is not None:  # as proxies in front of the API write it
                raise error from None
            if kind in EVENTS or (self._strict and not kind):
                raise UpstreamGarbled from None
            self.skipped += not kind
            return None
        return event if event.type in EVENTS else None

    def _delta(self, block: int, delta: _Delta, events: list[StreamEvent]) -> None:
        match delta.type:
            case "text_delta" if delta.text:
                events.append(TextDelta(delta.text))
            case "thinking_delta":
                events.append(ReasoningDelta(delta.thinking) if delta.thinking else Working())
                self._keep(block, delta.thinking)
            case "signature_delta":
                self._keep(block, signature=delta.signature)
            case "compaction_delta":
                events.append(Working())
            case "input_json_delta" if delta.partial_json and (tool := self._tools.get(block)):
                tool.pieces = True
                events.append(ToolCallDelta(tool.index, delta.partial_json))

    def _block(self, index: int, block: _Block, events: list[StreamEvent]) -> None:
        if block.text and block.type == "text":
            events.append(TextDelta(block.text))
        elif block.type == "thinking":
            events.append(ReasoningDelta(block.thinking) if block.thinking else Working())
            self._thinking[index] = _Thinking(block.thinking or "", block.signature or "")
        elif block.type == "redacted_thinking":
            self._redacted(block.data or "", events)
        elif block.type in ("fallback", "compaction"):
            events.append(Working(_model(block.to)))
        elif kind := TOOL_KINDS.get(block.type):
            # a client parses what its function is called with, so no arguments are {} for it
            whole = _input(block.input) or ("{}" if kind == "function" else "")
            tool = self._tools[index] = _Writing(len(self._tools), whole)
            events.append(ToolCallStarted(tool.index, block.id, block.name, kind))

    def _redacted(self, data: str, events: list[StreamEvent]) -> None:
        self._sealed += len(data)
        if not data or self._sealed > MAX_SEALED:
            events.append(Working())
            return
        events.append(ReasoningBlock(self._blocks, redacted=data))
        self._blocks += 1

    def _keep(self, block: int, text: str = "", signature: str = "") -> None:
        """What the block's end is to tell, within a bound."""
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
        thinking = self._thinking.pop(index, None)
        if thinking is not None:
            if thinking.signature:
                events.append(ReasoningBlock(self._blocks, "".join(thinking.pieces), thinking.signature))
                self._blocks += 1
            return
        tool = self._tools.get(index)
        if tool is not None and tool.whole and not tool.pieces:
            tool.pieces = True
            events.append(ToolCallDelta(tool.index, tool.whole))

    def _count(self, usage: _Usage | None) -> None:
        """Counts are cumulative, and later ones replace earlier ones; what is left out has not changed."""
        if usage is None:
            return
        if self._usage is None:
            self._usage = usage
            return
        for name in _Usage.__struct_fields__:
            if (count := getattr(usage, name)) is not None:
                setattr(self._usage, name, count)

    def _finish(self) -> Finished:
        self._done = True
        usage = None if self._usage is None else _usage(self._usage)
        return Finished(STOP_REASONS.get(self._stop_reason, "stop"), usage, self._stop_reason)


def _type(data: bytes) -> str:
    """The type of an event whose fields are not what they should be; "" for what is no event at all."""
    try:
        return _TYPED.decode(data).type
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _model(named: Any) -> str:
    """The model that a fallback block goes on with."""
    match named:
        case {"model": str(model)}:
            return model
        case _:
            return ""


def _input(raw: Raw) -> str:
    text = bytes(raw).decode("utf-8", "replace")
    return "" if text == "null" or not text.strip("{} \n") else text


def _usage(usage: _Usage) -> Usage:
    """Anthropic counts what was read from and written to its cache apart from `input_tokens`; ours is the whole input."""
    cached = usage.cache_read_input_tokens or 0
    details = usage.output_tokens_details
    return Usage(
        input=(usage.input_tokens or 0) + cached + (usage.cache_creation_input_tokens or 0),
        output=usage.output_tokens or 0,
        cached_input=cached,
        reasoning=(details and details.thinking_tokens) or 0,
    )
