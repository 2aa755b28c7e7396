"""Decodes answers of Bedrock's ConverseStream:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html

The body is a binary event stream (`sluice.wire.eventstream`). Each message has the event's name in
`:event-type` and its JSON as payload: messageStart, content blocks (start, if it has more than an index,
deltas, stop), messageStop (stop reason), and metadata (usage), the last one. How a stream ends:

    metadata after messageStop, or the body's end       complete
    the body's end without messageStop                  truncated
    a message of the type exception or error            an error, of the kind that its name means
    a stop reason that means failure                    an error (`sluice_plugins.decoding.FAILURES`)

Unknown events and deltas are skipped, the events counted; `initial-response`, which AWS's protocols may send
first, has no content. A JSON document in place of a stream is a whole answer (as Converse returns it) or an
error. A payload that msgspec refuses is decoded field by field (`sluice.wire.lenient`).

Images, and results of tools that Bedrock runs itself, only show that the model is working. Redacted content
is forwarded in the form of Anthropic's own API if it is Claude's, otherwise it is marked as Bedrock's
(`redacted_text`). Bedrock counts tokens read from and written to the prompt cache apart from inputTokens; the
gateway's input count includes them
(https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html).
"""

from typing import Any

import msgspec
from msgspec import Raw

from sluice.errors import UpstreamGarbled, UpstreamTruncated
from sluice.model.events import (
    Cited,
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
from sluice.wire.eventstream import EventMessage
from sluice.wire.lenient import encoded, parse, read
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.bedrock.frames import MessagesOrDocument, exception, failed
from sluice_plugins.bedrock.payload import (
    EVENTS,
    Block,
    Citation,
    Counts,
    Payload,
    ReasoningContent,
    ToolUse,
    as_events,
    blob_of,
    redacted_text,
    usage_of,
)
from sluice_plugins.decoding import MAX_EVENT, FrameDecoder, failure_of

STOP_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
}
MAX_SEALED = 4 << 20
"""Most characters of reasoning, signatures and redacted content kept for the events at their blocks' ends."""


class _Whole(msgspec.Struct):
    """Converse's whole answer, sent in place of a stream."""

    output: Any = None
    stopReason: str | None = None
    usage: Raw = Raw(b"null")


_PAYLOAD = msgspec.json.Decoder(Payload)


class _OpenReasoning(msgspec.Struct):
    """A block of reasoning being received."""

    pieces: list[str] = []
    signature: str = ""
    redacted: bytes = b""


class _OpenCall(msgspec.Struct):
    """A tool call being received."""

    index: int
    kind: ToolKind
    begun: bool = False


class ConverseDecoder(FrameDecoder[EventMessage]):
    """Decodes one answer.

    `strict`: a payload that is not a JSON object is an error, otherwise it is skipped and counted in
    `skipped`, as unknown events are. `skipped_fields` counts fields of a wrong type, `finish_missing` answers
    without a stop reason.
    """

    __slots__ = (
        "_block",
        "_blocks",
        "_calls",
        "_keep_stop",
        "_open",
        "_sealed",
        "_sealing",
        "_started",
        "_stop_reason",
        "_stop_sequence",
        "_stopped",
        "_stream",
        "_strict",
        "_usage",
        "finish_missing",
        "skipped",
        "skipped_fields",
    )  # fmt: skip

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        self._stream = MessagesOrDocument(max_event)
        super().__init__(self._stream)
        self._strict = strict
        self._keep_stop = keep_stop
        self._started = False
        self._stopped = False
        self._stop_reason = ""
        self._stop_sequence = ""
        self._usage: Counts | None = None
        self._block = -1  # index of the newest content block
        self._open: dict[int, _OpenCall] = {}  # tool calls, by content block
        self._calls = 0
        self._sealing: dict[int, _OpenReasoning] = {}  # reasoning, by content block
        self._blocks = 0  # blocks of reasoning so far
        self._sealed = 0  # characters of reasoning that were kept
        self.skipped = 0
        self.skipped_fields = 0
        self.finish_missing = 0

    @property
    def reported(self) -> Usage | None:
        return None if self._usage is None else usage_of(self._usage)

    # ---- messages

    def _take(self, frame: EventMessage, events: list[StreamEvent]) -> None:
        kind = frame.text(":message-type") or ("event" if frame.text(":event-type") else "")
        if kind == "event":
            self._event(frame.text(":event-type"), frame.payload, events)
        elif kind in ("exception", "error"):
            raise failed(frame)
        else:
            self.skipped += 1

    def _event(self, name: str, payload: bytes, events: list[StreamEvent]) -> None:
        """Decode one event by its name; subclasses handle more names."""
        if name in EVENTS:
            value = self._decode(payload)
            if value is not None:
                self._take_event(name, value, events)
        elif name.endswith("Exception"):  # proxies write exceptions as events
            raise exception(name, payload)
        elif name != "initial-response":
            self.skipped += 1

    def _decode(self, payload: bytes) -> Payload | None:
        try:
            return _PAYLOAD.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        try:
            value, odd = read(payload, Payload)
        except (ValueError, RecursionError):
            if self._strict:
                raise UpstreamGarbled from None
            self.skipped += 1
            return None
        self.skipped_fields += odd
        return value

    def _take_event(self, name: str, value: Payload, events: list[StreamEvent]) -> None:
        if not self._started:
            self._started = True
            events.append(Started())
        block = value.contentBlockIndex
        if block is None:
            block = self._block + (name == "contentBlockStart") if self._block >= 0 else 0
        match name:
            case "contentBlockDelta" if value.delta is not None:
                self._block = block
                self._delta(block, value.delta, events)
            case "contentBlockStart":
                self._block = block
                self._start(block, value.start or Block(), events)
            case "contentBlockStop":
                self._end_block(block, events)
            case "messageStop":
                self._stop(value)
            case "metadata":
                self._usage = value.usage or self._usage
                if self._stopped:
                    self._finish(events)

    def _end(self, events: list[StreamEvent]) -> None:
        if (document := self._stream.document) is not None:
            return self._whole(document, events)
        self._stream.close()  # raises for an error after the last message
        if not self._stopped:
            raise UpstreamTruncated
        return self._finish(events)

    # ---- content blocks

    def _start(self, block: int, start: Block, events: list[StreamEvent]) -> None:
        if start.toolUse is not None:
            self._call(block, start.toolUse, events)
        elif start.toolResult is not None or start.image is not None:
            events.append(Working())
        else:  # servers other than AWS begin blocks with their content
            self._delta(block, start, events)

    def _call(self, block: int, tool: ToolUse, events: list[StreamEvent]) -> None:
        kind: ToolKind = "server" if tool.type == "server_tool_use" else "function"
        calling = self._open[block] = _OpenCall(self._calls, kind)
        self._calls += 1
        events.append(ToolCallStarted(calling.index, self._id(tool.toolUseId or ""), tool.name or "", kind))

    def _id(self, given: str) -> str:
        """Returns the call's id; "" if it has none or another call has the same."""
        if given in self._ids:
            return ""
        self._ids.add(given)
        return given

    def _delta(self, block: int, delta: Block, events: list[StreamEvent]) -> None:
        if delta.text:
            events.append(TextDelta(delta.text))
        elif delta.toolUse is not None:
            self._input(block, delta.toolUse, events)
        elif delta.reasoningContent is not None:
            self._reason(block, delta.reasoningContent, events)
        elif delta.citation is not None:
            events.append(self._cited(delta.citation))
        elif delta.toolResult is not None or delta.image is not None:
            events.append(Working())

    def _input(self, block: int, tool: ToolUse, events: list[StreamEvent]) -> None:
        calling = self._open.get(block) or next(
            reversed(self._open.values()), None
        )  # no such call: the newest
        given = tool.input
        arguments = given if isinstance(given, str) else encoded(given).decode() if given else ""
        if arguments and calling is not None:
            calling.begun = True
            events.append(ToolCallDelta(calling.index, arguments))

    def _reason(self, block: int, reasoning: ReasoningContent, events: list[StreamEvent]) -> None:
        events.append(ReasoningDelta(reasoning.text) if reasoning.text else Working())
        blob = blob_of(reasoning.redactedContent)
        self._sealed += len(reasoning.text or "") + len(reasoning.signature or "") + len(blob)
        if self._sealed > MAX_SEALED:
            self._sealing.pop(block, None)
            return
        sealing = self._sealing.setdefault(block, _OpenReasoning())
        if reasoning.text:
            sealing.pieces.append(reasoning.text)
        sealing.signature += reasoning.signature or ""
        sealing.redacted += blob

    def _cited(self, citation: Citation) -> Cited:
        """Returns a citation at the end of the text so far: it follows its text, whose beginning Bedrock does
        not tell."""
        quote = "".join([piece.text or "" for piece in citation.sourceContent or ()])
        web = citation.location.web if citation.location is not None else None
        return Cited((web and web.url) or "", citation.title or citation.source or "", quote=quote)

    def _end_block(self, block: int, events: list[StreamEvent]) -> None:
        if (sealing := self._sealing.pop(block, None)) is not None:
            if sealing.signature:
                events.append(ReasoningBlock(self._blocks, "".join(sealing.pieces), sealing.signature))
                self._blocks += 1
            if sealing.redacted:
                events.append(ReasoningBlock(self._blocks, redacted=redacted_text(sealing.redacted)))
                self._blocks += 1
        elif (calling := self._open.get(block)) is not None and not calling.begun:
            calling.begun = True
            if calling.kind == "function":  # clients parse the arguments of their functions as JSON
                events.append(ToolCallDelta(calling.index, "{}"))

    # ---- the end

    def _stop(self, value: Payload) -> None:
        """Record a stop reason. Raises UpstreamError for one that means failure."""
        reason = value.stopReason or ""
        if (failure := failure_of(reason)) is not None:
            raise failure
        self._stopped = True
        self._stop_reason = reason
        extra = value.additionalModelResponseFields
        if extra is not None:
            self._stop_sequence = (extra.delta and extra.delta.stop_sequence) or extra.stop_sequence or ""

    def _finish(self, events: list[StreamEvent]) -> None:
        self._done = True
        for block in (*self._sealing, *self._open):  # blocks without a contentBlockStop
            self._end_block(block, events)
        if not self._stop_reason:
            self.finish_missing = 1
        reason = STOP_REASONS.get(self._stop_reason, "stop")
        called = any(calling.kind == "function" for calling in self._open.values())
        if reason == "stop" and called and not (self._keep_stop and self._stop_reason):
            reason = "tool_calls"
        events.append(Finished(reason, self.reported, self._stop_reason, stop_sequence=self._stop_sequence))

    def _whole(self, document: bytes, events: list[StreamEvent]) -> None:
        """Decode a whole answer, as the events of a stream.

        Raises UpstreamTruncated for an incomplete document, UpstreamError for one that reports an error.
        """
        try:
            parse(document)
        except (ValueError, RecursionError):
            raise UpstreamTruncated from None
        if (error := reported_error(document)) is not None:
            raise error
        try:
            whole, _ = read(document, _Whole)
        except ValueError:
            raise UpstreamGarbled from None
        match whole.output:
            case {"message": {"content": list(blocks)}}:
                pass
            case _:
                raise UpstreamGarbled
        for index, block in enumerate(blocks):
            for name, value in as_events(index, block):
                self._event(name, encoded(value), events)
        self._event("messageStop", encoded({"stopReason": whole.stopReason}), events)
        self._event("metadata", b'{"usage":%b}' % bytes(whole.usage), events)
