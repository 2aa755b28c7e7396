"""Decodes answers of generateContent (SSE):
https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse

Each event is a whole GenerateContentResponse with the next parts of the first candidate. There is no
terminator: the finish reason may come with any event, text may follow it, and a later reason replaces it. How
a stream ends:

    a finish reason, then the body's end      complete
    the body's end without one                truncated
    promptFeedback.blockReason                an error, content_policy: the prompt was refused
    a finish reason that means failure        an error (FAILED, and `sluice_plugins.decoding.FAILURES`)
    a bare JSON object or list with an error  that error (Vertex AI writes it between and after events)

Without `alt=sse` the API writes a JSON list of the same objects, which is decoded, too. Arguments of calls
may come in pieces (`partialArgs`, each with a JSONPath: Vertex AI's streamFunctionCallArguments); they become
one event when the call is complete. Code that Google runs, and its results, become Working events; an inline
image becomes a Markdown image with a data: URL.

A `thoughtSignature` belongs to its part. That of a call is `ToolCallStarted.signature`; for any other part an
event with a block of reasoning is sent, whose `signature` is "gemini:" and Google's signature, so that it is
recognized when the caller sends it back. (https://ai.google.dev/gemini-api/docs/thought-signatures)

Sources of the answer become events at its end (`sluice_plugins.gemini.sources`).

Token counts are those of the whole answer so far. `toolUsePromptTokenCount` is part of the input,
`thoughtsTokenCount` is output beside `candidatesTokenCount`.
(https://ai.google.dev/api/generate-content#UsageMetadata)

A chunk without any of the API's names is decoded again with its names converted (`sluice_plugins.gemini.chunks`),
and so are all chunks after it.
"""

import re
from collections.abc import Callable
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
    Usage,
    Working,
)
from sluice.wire.lenient import REPLACEMENT, Halves, encoded, fit, parse, value_again, whole_characters
from sluice.wire.seals import GOOGLES
from sluice.wire.sse import Event, EventStream
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.decoding import MAX_EVENT, FrameDecoder, arguments_of, failure_of, is_last
from sluice_plugins.gemini.chunks import (
    Blob,
    Chunk,
    FunctionCall,
    Part,
    PartialArg,
    ReportedUsage,
    fitted,
    in_camel_case,
    unwrapped,
)
from sluice_plugins.gemini.sources import Sources
from sluice_plugins.openings import EventsOrDocument

FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop", "OTHER": "stop", "NO_IMAGE": "stop", "IMAGE_OTHER": "stop", "FINISH_REASON_UNSPECIFIED": "stop",
    "MAX_TOKENS": "length", "CONTINUATION": "length",
    "SAFETY": "content_filter", "RECITATION": "content_filter", "LANGUAGE": "content_filter", "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter", "SPII": "content_filter", "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter", "PUP_LIMITED_DISABLED": "content_filter",
    "IMAGE_SAFETY": "content_filter", "IMAGE_PROHIBITED_CONTENT": "content_filter", "IMAGE_RECITATION": "content_filter",
    "1": "stop", "2": "length", "3": "content_filter", "4": "content_filter", "5": "stop",
    "6": "content_filter", "7": "content_filter", "8": "content_filter",
}  # fmt: skip
"""https://ai.google.dev/api/generate-content#FinishReason; numbers are those of the enumeration in Protocol
Buffers."""
FAILED = frozenset({"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "MISSING_THOUGHT_SIGNATURE", "9"})
"""Finish reasons, beside FAILURES, that mean an error."""

NOT_BLOCKED = ("BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED", "0")

MAX_PARTIAL = 4 << 20
"""Most characters of arguments received in pieces, in one answer."""
MAX_INDEX = 10_000
"""The largest index of a list in a JSONPath."""
MAX_PATH = 400
"""The longest path of an argument, in characters; it limits the path's levels to those that JSON texts may have."""


_CHUNK = msgspec.json.Decoder(Chunk)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_STEP = re.compile(
    r"\.(?P<name>[^.\[\]]+)|\[(?P<index>\d{1,9})\]|\[(?P<quote>['\"])(?P<quoted>.*?)(?P=quote)\]"
)


def _refuse(data: bytes) -> Chunk:
    """Replaces the fast decoder in streams that use other names."""
    raise msgspec.DecodeError


class _Events(EventStream):
    """Splits server-sent events; bare JSON between them counts as an event, too."""

    def event(self, frame: bytes) -> Event | None:
        event = super().event(frame)
        bare = frame.strip()
        return Event(bare) if event is None and bare.startswith((b"{", b"[")) else event


class _Pieces:
    """A string that is received in pieces."""

    __slots__ = ("texts",)

    def __init__(self) -> None:
        self.texts: list[str] = []


class GenerateDecoder(FrameDecoder[Event]):
    """Decodes the first candidate of one answer.

    `strict`: malformed data is an error, otherwise it is skipped and counted in `skipped`. `skipped_fields`
    counts fields of a wrong type, `finish_missing` answers without a finish reason. `keep_stop`: `stop` after
    calls stays `stop` instead of becoming `tool_calls`.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_candidate",
        "_content",
        "_finish_reason",
        "_halves",
        "_keep_stop",
        "_open",
        "_parsed",
        "_partial",
        "_read",
        "_sources",
        "_started",
        "_stream",
        "_strict",
        "_thoughts",
        "_usage",
        "finish_missing",
        "skipped",
        "skipped_fields",
    )  # fmt: skip

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        self._stream = _Events(max_event)
        super().__init__(EventsOrDocument(self._stream))
        self._strict = strict
        self._keep_stop = keep_stop
        self._started = False
        self._read: Callable[[bytes], Chunk] = _CHUNK.decode
        self._parsed: dict[str, Any] | None = None  # the current chunk, if it was decoded field by field
        self._sources = Sources()
        self._finish_reason = ""
        self._usage: ReportedUsage | None = None
        self._calls = 0
        self._candidate: int | None = None  # the index of the first candidate, which is the answer
        self._content = False
        self._blocks = 0
        self._open: dict[str, Any] | list[Any] | None = None  # the current call's arguments in pieces
        self._partial = 0  # characters of arguments received in pieces
        self._thoughts: list[str] = []  # text of thoughts that have no signature yet
        self._halves: Halves | None = None
        self.skipped = 0
        self.skipped_fields = 0
        self.finish_missing = 0

    @property
    def reported(self) -> Usage | None:
        return None if self._usage is None else _usage(self._usage)

    # ---- frames

    def _take(self, frame: Event, events: list[StreamEvent]) -> None:
        data = frame.data
        chunk = self._decode(data)
        if chunk is None or chunk.error or (chunk.candidates is None and chunk.promptFeedback is None):
            if (error := reported_error(data)) is not None:
                raise error
            if chunk is None and data.strip() == b"[DONE]":
                if self._content:
                    self._finish(events)
                return
            if chunk is None and data.lstrip().startswith(b"["):
                self._list(data, events)
                return
            if chunk is None or _is_nameless(chunk):
                again = self._in_other_names(data)
                if again is None or (not (again.candidates or again.promptFeedback) and _is_nameless(again)):
                    if self._strict:
                        raise UpstreamGarbled
                    self.skipped += 1
                    return
                chunk = again
        self._chunk(chunk, data, events)

    def _in_other_names(self, data: bytes) -> Chunk | None:
        """Returns a chunk that is written in snake_case or in an envelope, and decodes later chunks in the
        same way; None for any other chunk."""
        values = value_again(data)
        named = in_camel_case(unwrapped(values))
        if self._read is _refuse or named == values or fitted(named) == fitted(values):
            return None  # its other names are unknown to the API, too
        self._read = _refuse
        return self._decode(data)

    def _list(self, data: bytes, events: list[StreamEvent]) -> None:
        """Decode a list of chunks, which the API writes without `alt=sse`."""
        try:
            chunks = parse(data)
        except (ValueError, RecursionError):
            raise UpstreamGarbled from None
        for chunk in chunks if type(chunks) is list else [chunks]:
            if type(chunk) is not list:
                self._take(Event(encoded(chunk)), events)

    def _end(self, events: list[StreamEvent]) -> None:
        document = self._framing.document if isinstance(self._framing, EventsOrDocument) else None
        if document is not None:
            try:
                self._list(document, events)
            except UpstreamGarbled:
                raise UpstreamTruncated from None
        elif rest := self._stream.close().strip():
            frame = self._stream.event(rest)
            if frame is not None and (
                is_last(frame.data)
                or self._decode(frame.data) is not None
                or reported_error(frame.data) is not None
            ):
                self._take(frame, events)
        if self._done:
            return
        if not self._finish_reason and not (self._content and _is_document(document)):
            raise UpstreamTruncated
        self._finish(events)

    def _decode(self, data: bytes) -> Chunk | None:
        """Returns the chunk; None if the data is not a JSON object."""
        self._parsed = None
        if self._halves is None or not self._halves.pending:
            try:
                return self._read(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        try:
            values = parse(data)
            if self._read is _refuse:
                values = in_camel_case(unwrapped(values))
            parsed, odd = fit(values, Chunk)
            if self._halves is not None or _HALF.search(data):
                self._join_halves(parsed)
                parsed = whole_characters(parsed)
            chunk = msgspec.convert(parsed, Chunk)
        except (ValueError, RecursionError):
            return None
        self._parsed = parsed
        self.skipped_fields += odd
        return chunk

    def _join_halves(self, parsed: dict[str, Any]) -> None:
        """Join surrogate pairs that are split over two chunks, in texts of the same kind."""
        halves = self._halves = self._halves or Halves()
        for candidate in (parsed.get("candidates") or ())[:1]:
            for part in (candidate.get("content") or {}).get("parts") or ():
                if type(part.get("text")) is str:
                    part["text"] = halves.join((bool(part.get("thought")),), part["text"])

    # ---- chunks

    def _chunk(self, chunk: Chunk, data: bytes, events: list[StreamEvent]) -> None:
        if not self._started:
            self._started = True
            if _is_nameless(chunk):
                chunk = self._in_other_names(data) or chunk
            if isinstance(self._framing, EventsOrDocument) and self._framing.document is None:
                self._framing = self._stream
            events.append(Started(chunk.responseId or "", chunk.modelVersion or ""))
        if chunk.usageMetadata is not None:
            self._count(chunk.usageMetadata)
        feedback = chunk.promptFeedback
        blocked = feedback.blockReason if feedback is not None else None
        if feedback is not None and blocked and blocked not in NOT_BLOCKED:
            message = feedback.blockReasonMessage or "The upstream refused the prompt"
            raise UpstreamError("content_policy", f"{message[:300]} ({blocked[:40]})", status=200)
        for candidate in chunk.candidates or ():
            if self._candidate is None:
                self._candidate = candidate.index or 0
            if (candidate.index or 0) != self._candidate:
                continue
            if candidate.content is not None:
                for part in candidate.content.parts or ():
                    self._content = True
                    self._part(part, events)
            if candidate.groundingMetadata or candidate.citationMetadata:
                self._sources.take(candidate.groundingMetadata, candidate.citationMetadata)
            if candidate.finishReason:
                self._reason(candidate.finishReason)

    def _part(self, part: Part, events: list[StreamEvent]) -> None:
        text = part.text
        if part.functionCall is not None:
            self._call(part.functionCall, part.thoughtSignature or "", events)
            return
        if text:
            if part.thought:
                events.append(ReasoningDelta(text))
                if self._partial <= MAX_PARTIAL:
                    self._partial += len(text)
                    self._thoughts.append(text)
            else:
                events.append(TextDelta(text))
                self._sources.add_text(text)
        elif part.inlineData is not None and part.inlineData.data:
            image = _image(part.inlineData)
            events.append(image)
            if type(image) is TextDelta:
                self._sources.shown(image.text)
        elif text is None:
            events.append(Working())
        if part.thoughtSignature:
            events.append(
                ReasoningBlock(self._blocks, "".join(self._thoughts), GOOGLES + part.thoughtSignature)
            )
            self._blocks += 1
            self._thoughts.clear()

    def _call(self, call: FunctionCall, signature: str, events: list[StreamEvent]) -> None:
        if self._open is not None and call.name:
            self._close_call(events)  # the end of the previous call is missing
        if self._open is None:
            if not call.name and not call.id and call.partialArgs is None and not call.args:
                return  # the end of a call that was ended already
            events.append(
                ToolCallStarted(self._calls, self._id(call.id or ""), call.name or "", signature=signature)
            )
            self._calls += 1
            if not call.willContinue and call.partialArgs is None:
                events.append(ToolCallDelta(self._calls - 1, arguments_of(call.args) or "{}"))
                return
            self._open = _object_of(arguments_of(call.args))
        for arg in call.partialArgs or ():
            self._argument(arg)
        if call.willContinue:
            events.append(Working())
        else:
            self._close_call(events)

    def _argument(self, arg: PartialArg) -> None:
        """Store a piece of an argument at its JSONPath (RFC 9535; only names and indexes)."""
        path = arg.jsonPath or ""
        if len(path) > MAX_PATH:
            raise UpstreamGarbled("The upstream's tool call has an argument whose path is too long")
        self._partial += len(path) + len(arg.stringValue or "") + 8
        if self._partial > MAX_PARTIAL:
            raise UpstreamGarbled("The upstream's tool call is too long")
        keys: list[str | int] = [
            int(step["index"]) if step["index"] is not None else step["name"] or step["quoted"] or ""
            for step in _STEP.finditer(path)
        ]
        at: Any = self._open
        if not keys:
            self.skipped_fields += 1
            return
        for key, following in zip(keys, [*keys[1:], None], strict=True):
            made: list[Any] | dict[str, Any] = [] if type(following) is int else {}
            if type(at) is list and type(key) is int and key <= MAX_INDEX:
                self._partial += max(0, 8 * (key + 1 - len(at)))  # memory of list entries counts, too
                at.extend([None] * (key + 1 - len(at)))
            elif type(at) is not dict or type(key) is not str:
                self.skipped_fields += 1
                return
            held = at[key] if type(key) is int else at.get(key)
            if following is None:
                at[key] = self._value(arg, held)
            elif held is None:
                held = at[key] = made
            at = held

    def _value(self, arg: PartialArg, held: Any) -> Any:
        if arg.stringValue is not None:
            pieces = held if isinstance(held, _Pieces) else _Pieces()
            pieces.texts.append(arg.stringValue)
            return pieces
        return arg.boolValue if arg.boolValue is not None else arg.numberValue

    def _close_call(self, events: list[StreamEvent]) -> None:
        arguments, self._open = _joined(self._open), None
        events.append(ToolCallDelta(self._calls - 1, encoded(arguments).decode()))

    def _id(self, given: str) -> str:
        """Returns the call's id; "" if it has none, as usual: one is generated for it."""
        if given in self._ids:
            return ""
        self._ids.add(given)
        return given

    def _reason(self, reason: str) -> None:
        """Record a finish reason. Raises UpstreamError for one that means failure."""
        if reason in FINISH_REASONS:
            self._finish_reason = reason
            return
        failure = failure_of(reason)
        if failure is None and reason in FAILED:
            failure = UpstreamError(
                "stream_error", f"The upstream ended its answer with {reason}", status=200
            )
        if failure is not None:
            raise failure
        self._finish_reason = reason

    def _count(self, usage: ReportedUsage) -> None:
        """Record usage, which is that of the whole answer so far; one without counts (only a traffic type) is
        ignored."""
        if self._usage is None or usage.promptTokenCount is not None or usage.totalTokenCount is not None:
            if self._usage is None and usage == ReportedUsage():
                return
            self._usage = usage
            return
        for name in ReportedUsage.__struct_fields__:
            if (count := getattr(usage, name)) is not None:
                setattr(self._usage, name, count)

    def _finish(self, events: list[StreamEvent]) -> None:
        self._done = True
        if self._open is not None:
            self._close_call(events)
        for (thought,) in list(self._halves.pending) if self._halves is not None else ():
            events.append(ReasoningDelta(REPLACEMENT) if thought else TextDelta(REPLACEMENT))
        events += self._sources.cited()
        if not self._finish_reason:
            self.finish_missing = 1
        reason = FINISH_REASONS.get(self._finish_reason, "stop")
        if reason == "stop" and self._calls and not self._keep_stop:
            reason = "tool_calls"
        events.append(Finished(reason, self.reported, self._finish_reason))


def _is_nameless(chunk: Chunk) -> bool:
    """Returns whether a chunk has none of the names that Google writes in every chunk."""
    return chunk.usageMetadata is None and chunk.responseId is None and chunk.modelVersion is None


def _is_document(body: bytes | None) -> bool:
    """Returns whether a body is one whole answer rather than a list of chunks."""
    return body is not None and body.lstrip().startswith(b"{")


def _object_of(text: str) -> dict[str, Any]:
    """Returns the JSON object in the text of a call's arguments; {} for any other text."""
    try:
        value = parse(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return {}
    return value if type(value) is dict else {}


def _joined(value: Any) -> Any:
    if isinstance(value, _Pieces):
        return "".join(value.texts)
    if type(value) is dict:
        return {key: _joined(inner) for key, inner in value.items()}
    return [_joined(inner) for inner in value] if type(value) is list else value


def _image(blob: Blob) -> StreamEvent:
    if not (blob.mimeType or "").startswith("image/"):
        return Working()
    return TextDelta(f"![image](data:{blob.mimeType};base64,{blob.data})")


def _usage(usage: ReportedUsage) -> Usage:
    parts = (usage.promptTokenCount or 0, usage.toolUsePromptTokenCount or 0)
    outputs = (usage.candidatesTokenCount or 0, usage.thoughtsTokenCount or 0)
    input = (
        sum(parts) if min(parts) >= 0 else min(parts)
    )  # else a negative part could hide in a plausible sum
    output = sum(outputs) if min(outputs) >= 0 else min(outputs)
    reported = usage.totalTokenCount or 0
    total = reported if reported != input + output else 0
    return Usage(input, output, usage.cachedContentTokenCount or 0, usage.thoughtsTokenCount or 0, total)
