"""The stream of Chat Completions: chunks of JSON in server-sent events -> events. The other half of `plugins.openai`.

It is complete when choice 0 has a finish reason and then `[DONE]` or the end of the body comes; usage may come on any
chunk (the last one counts), most often behind the finish reason. The rest of this file's length is vendors.

Verbatim: the frames come back as they were, but for the terminator, errors, malformed frames, comments and the chunk
that carries nothing but usage (not every client asked for it; it is in `Finished`).

Standard: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from gateway.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
)
from gateway.wire import sse
from gateway.wire.jsontext import oversized, slow_numbers
from gateway.wire.lines import LIMIT
from gateway.wire.upstream_errors import stream_error, tells_error, told_error
from plugins.openai_chunk import MALFORMED, Choice, Chunk, ContentPart, Function, ReportedUsage, ToolCallPart
from plugins.openai_chunk import decode as _decode
from plugins.openai_form import Form, learn

FRAMING = len(b"data: \n\n")
MAX_DOCUMENT = 32 << 20
"""Bytes of an answer that came whole."""
WHITE = b"\xef\xbb\xbf \t\r\n"
"""What may stand before all else, a byte order mark included."""
MAX_CALLS = 256
"""Tool calls of one answer."""
FORMS = 50
"""Forms that are learnt of one answer at most (`plugins.openai_form`): some vendors' change every second, or every time."""

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}


class _Call:
    """A tool call under way, known upstream by its index; `started` once its name, or arguments, came."""

    __slots__ = ("id", "index", "name", "started")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.started = False

    def is_another(self, call: ToolCallPart, function: Function) -> bool:
        """Is this delta the beginning of another call on the same (or no) index?

        A new id alone is no sign (older vLLM makes one up for every delta), and neither is a name (some repeat it).
        """
        if not function.name or not self.started:
            return False
        return call.id != self.id if call.id else call.index is None and not self.id


class ChunkDecoder(msgspec.Struct, eq=False):
    """Bytes of one response -> events. `skipped` counts malformed events that were passed over (see `OpenAI.strict`)."""

    verbatim: bool = False
    strict: bool = False
    skipped: int = 0
    _stream: sse.EventStream = msgspec.field(default_factory=sse.EventStream)
    _document: bytearray | None = None
    _first: bytes = b""  # the body's first byte that is not white space: tells a stream from a document
    _error: UpstreamError | None = None
    _started: bool = False
    _done: bool = False
    _native: str = ""
    _usage: ReportedUsage | None = None
    _calls: dict[int, _Call] = {}
    _count: int = 0
    _latest: _Call | None = None
    _form: Form | None = None
    _texts: int = 0  # reads that ended in a text of no known form
    _forms_left: int = FORMS

    __repr__ = object.__repr__  # it holds what was said

    def feed(self, data: bytes) -> list[StreamEvent]:
        form = self._form
        if form is not None and self._stream.clean and len(data) <= LIMIT:
            events = form.events(data)
            if events is not None:
                return events
        if self._error is not None:
            raise self._error
        if self._done:
            return []
        if not self._first:
            self._recognize(data)
        if self._document is not None:
            return self._collect(data)
        body = self._stream.complete(data)
        if not body:
            return []
        found = sse.payloads(body)
        if found is not None:
            return self._batch(found, body)
        return self._batch(self._odd_frames(body), None)

    def close(self) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        if self._done:
            return []
        if self._document is not None:
            events = self._batch([_as_chunk(self._document), b"[DONE]"], None)
            if self._error is not None:
                raise self._error
            return events
        self._stream.close()
        events = []
        self._finish(events)
        return events

    def _recognize(self, data: bytes) -> None:
        self._first = data.lstrip(WHITE)[:1]
        if self._first in (b"{", b"["):
            self._document = bytearray()
        elif self._first == b"<":
            raise UpstreamGarbled("The upstream answered with a page of HTML or XML")

    def _collect(self, data: bytes) -> list[StreamEvent]:
        assert self._document is not None
        self._document += data
        if len(self._document) > MAX_DOCUMENT:
            raise UpstreamGarbled(f"The upstream sent a document longer than {MAX_DOCUMENT} bytes in place of a stream")
        return []

    def _odd_frames(self, body: bytes) -> list[bytes]:
        """The payloads of frames that are not all one `data: ` line."""
        events = map(self._stream.event, body.split(sse.END))
        return [_as_error(event.data) if event.event == "error" else event.data for event in events if event is not None]

    def _batch(self, payloads: list[bytes], body: bytes | None) -> list[StreamEvent]:
        """The events of one read. `body` holds exactly these payloads' frames, None where it holds anything else."""
        events: list[StreamEvent] = []
        passed: list[bytes] = []
        withheld = gap = False  # `gap`: one was withheld before another that is passed on
        try:
            for payload in payloads:
                if self._chunk(payload, events):
                    gap = gap or withheld
                    passed.append(payload)
                elif self._done:
                    break
                else:
                    withheld = True
        except UpstreamError as error:
            self._error = error
            self._form = None
        if events and type(events[-1]) is TextDelta:
            self._learn(payloads[-1])
        if self.verbatim and passed:
            events.append(Verbatim(_frames(passed, None if gap else body, len(payloads))))
        if self._error is not None and not events:
            raise self._error
        return events

    def _learn(self, payload: bytes) -> None:
        """The next reads may well be of this one's form. An answer of one token is not worth the while."""
        self._texts += 1
        if self._texts > 1 and self._forms_left and self._error is None:
            self._texts = 0
            self._forms_left -= 1
            self._form = learn(payload, _text_of, verbatim=self.verbatim)

    def _chunk(self, payload: bytes, events: list[StreamEvent]) -> bool:
        """Translate one chunk. False: it must not be forwarded."""
        if payload == b"[DONE]":
            self._finish(events)
            return False
        try:
            chunk = _decode(payload)
        except MALFORMED:
            return self._not_a_chunk(payload, events)
        if chunk.error:
            raise told_error(payload) or stream_error({"error": chunk.error})
        if chunk.usage is not None:
            self._usage = chunk.usage
        elif chunk.x_groq is not None:
            self._usage = chunk.x_groq.usage or self._usage
        choices = chunk.choices
        if not choices:
            return self._without_choices(chunk, payload)
        if not self._started:
            self._started = True
            events.append(Started(chunk.id or "", chunk.model or ""))
        for choice in choices:
            if not choice.index:
                self._choice(choice, events)
        return True

    def _choice(self, choice: Choice, events: list[StreamEvent]) -> None:
        delta = choice.delta
        if delta is not None:
            reasoning = delta.reasoning_content or delta.reasoning
            if reasoning:
                events.append(ReasoningDelta(reasoning))
            content = delta.content
            if content:
                if type(content) is str:
                    events.append(TextDelta(content))
                else:
                    _parts(content, events)  # type: ignore[arg-type]
            if delta.refusal:
                events.append(TextDelta(delta.refusal))
            if delta.tool_calls:
                for call in delta.tool_calls:
                    self._tool_call(call, events)
            if delta.function_call is not None:
                self._tool_call(ToolCallPart(function=delta.function_call), events)
        if choice.finish_reason:
            self._native = choice.finish_reason
            if self._native == "error":
                raise UpstreamError("stream_error", "The upstream ended its answer with an error", status=200)
        if choice.usage is not None:
            self._usage = choice.usage

    def _without_choices(self, chunk: Chunk, payload: bytes) -> bool:
        """Azure's verdict on the prompt is a chunk like any other; usage alone is withheld; anything else is none of ours."""
        if chunk.usage is None or b'"base_resp"' in payload:
            error = told_error(payload)
            if error is not None:
                raise error
        if chunk.usage is None and chunk.choices is None:
            self._skip()
        return chunk.usage is None and chunk.choices is not None

    def _not_a_chunk(self, payload: bytes, events: list[StreamEvent]) -> bool:
        word = payload.strip()
        if word == b"[DONE]":
            self._finish(events)
            return False
        try:
            payload.decode()
        except UnicodeDecodeError:  # the standard's own answer: U+FFFD in its place
            return self._chunk(payload.decode("utf-8", "replace").encode(), events)
        if word:
            self._skip()
        return False

    def _skip(self) -> None:
        if self.strict:
            raise UpstreamGarbled("The upstream sent an event that is not a chunk of a chat completion")
        self.skipped += 1

    def _tool_call(self, delta: ToolCallPart, events: list[StreamEvent]) -> None:
        function = delta.function or Function()
        call = self._latest if delta.index is None else self._calls.get(delta.index)
        if call is None or call.is_another(delta, function):
            call = self._new_call(delta.index)
        self._latest = call
        arguments = function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        if not call.started:
            call.id = delta.id or call.id
            call.name = function.name or ""
            if call.name or arguments:
                call.started = True
                events.append(ToolCallStarted(call.index, call.id, call.name))
        if arguments:
            events.append(ToolCallDelta(call.index, arguments))

    def _new_call(self, index: int | None) -> _Call:
        if self._count >= MAX_CALLS:
            raise UpstreamGarbled(f"The upstream made more than {MAX_CALLS} tool calls")
        call = _Call(self._count)
        self._count += 1
        if index is not None:
            self._calls[index] = call
        return call

    def _finish(self, events: list[StreamEvent]) -> None:
        """The stream's end, by its terminator or the body's end: complete only with a finish reason."""
        if not self._native:
            raise self._cut()
        self._done = True
        self._form = None
        if not self._started:
            events.append(Started())
        events.append(finished(self._native, self._usage))

    def take(self, choices: Sequence[Choice], usage: ReportedUsage | None, events: list[StreamEvent]) -> None:
        """A whole answer's choices at once: what follows `Started`. Raises UpstreamTruncated where it has no finish reason."""
        self._started = True
        self._usage = usage
        for choice in choices:
            if not choice.index:
                self._choice(choice, events)
        self._finish(events)

    def _cut(self) -> UpstreamError:
        if self._started or (self._first in b"deir:" and not self.skipped):
            return UpstreamTruncated()
        return UpstreamGarbled("The upstream's answer is not a stream of chat completion chunks")


def _text_of(payload: bytes) -> str:
    """What a chunk says where that is text and nothing else, and it is passed on; else ""."""
    decoder = ChunkDecoder()
    decoder._started = True
    events: list[StreamEvent] = []
    try:
        passed = decoder._chunk(payload, events)
    except UpstreamError:
        return ""
    match events:
        case [TextDelta(text=text)] if passed and decoder._usage is None and not decoder._native and decoder._latest is None:
            return text
        case _:
            return ""


def _parts(parts: Sequence[ContentPart], events: list[StreamEvent]) -> None:
    for part in parts:
        if part.text:
            events.append(TextDelta(part.text))
        match part.thinking:
            case None | "":
                pass
            case str(text):
                events.append(ReasoningDelta(text))
            case thoughts:
                events.extend(ReasoningDelta(thought.text) for thought in thoughts if thought.text)


def finished(native: str, usage: ReportedUsage | None) -> Finished:
    return Finished(_FINISH.get(native.lower(), "stop"), _usage(usage), native)


def _usage(usage: ReportedUsage | None) -> Usage | None:
    if usage is None or (usage.prompt_tokens is None and usage.completion_tokens is None):
        return None
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details is not None else None
    reasoning = usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details is not None else None
    return Usage(
        input=usage.prompt_tokens or 0,
        output=usage.completion_tokens or 0,
        cached_input=cached or usage.cached_tokens or usage.prompt_cache_hit_tokens or 0,
        reasoning=reasoning or 0,
    )


def _frames(passed: list[bytes], body: bytes | None, count: int) -> bytes:
    """The frames that are passed on. They stand at the beginning of `body`, the frames of `count` payloads; without it
    they are written anew."""
    if body is None:
        return b"".join([b"data: %b\n\n" % payload.replace(b"\n", b"\ndata: ") for payload in passed])
    if len(passed) == count:
        return body
    return body[: sum(map(len, passed)) + FRAMING * len(passed)]


def _as_error(payload: bytes) -> bytes:
    """The payload of an `event: error`, so that it reads as an error whether or not it says so itself."""
    try:
        value = msgspec.json.decode(payload)
    except MALFORMED:
        value = payload.decode("utf-8", "replace")
    if isinstance(value, dict) and value.get("error"):
        return payload
    return msgspec.json.encode({"error": value or "The upstream sent an error event"})


def check_size(document: bytes | bytearray) -> None:
    """Raises UpstreamGarbled for a JSON document that is too deep or has too many values, before it is parsed."""
    if bound := oversized(document):
        raise UpstreamGarbled(f"The upstream sent a document that {bound}")


def _as_chunk(document: bytes | bytearray) -> bytes:
    """A whole chat completion as the one chunk that would have said the same; an error document as it is."""
    check_size(document)
    if slow_numbers(document):
        raise UpstreamGarbled("The upstream sent a document whose numbers would take too long to read")
    try:
        value = msgspec.json.decode(document)
    except MALFORMED:
        value = None
    match value:
        case {"error": error} if error:
            pass
        case [{"error": error}, *_]:
            value = {"error": error}
        case {"choices": [_, *_] as choices}:
            value = {**value, "object": "chat.completion.chunk", "choices": [_as_chunk_choice(choice) for choice in choices]}
        case _ if tells_error(value):
            value = {"error": value}
        case _:
            raise UpstreamGarbled("The upstream answered with something other than a chat completion")
    return msgspec.json.encode(value)


def _as_chunk_choice(choice: Any) -> Any:
    match choice:
        case {"message": {"tool_calls": [*calls]}}:
            numbered = [{"index": index, **call} for index, call in enumerate(calls) if isinstance(call, dict)]
            return {**choice, "delta": {**choice["message"], "tool_calls": numbered}, "message": None}
        case {"message": dict(message)}:
            return {**choice, "delta": message, "message": None}
        case _:
            return choice
