"""Events -> the chunks of a GenerateContentResponse, as server-sent events or in a list, or one whole.

Each chunk is a response with the next parts of its only candidate; events of one read share a chunk. A call
is written once it is complete, because its arguments are an object. The last chunk has the finish reason, the
counts and the sources. There is no other terminator; behind an error's chunk there is none of these.

A heartbeat is a chunk with an empty text: clients take comments of server-sent events for broken JSON.

Standard: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError, UpstreamGarbled
from sluice.frontends import Answer, Encoder
from sluice.frontends.gemini.errors import error_object
from sluice.frontends.gemini.grounding import Sources
from sluice.frontends.gemini.seals import signature_of
from sluice.frontends.whole_calls import WholeCall, WholeCalls
from sluice.model.events import (
    Cited,
    Finished,
    FinishReason,
    ReasoningBlock,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Working,
    with_refusal,
)
from sluice.wire.separators import without_separators

FINISH_REASONS: Mapping[FinishReason, str] = {
    "stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY",
}  # fmt: skip
GOOGLES_FILTERS = frozenset(
    {"SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
     "IMAGE_RECITATION", "MODEL_ARMOR"}
)  # fmt: skip
"""Gemini's own reasons to withhold an answer, which are passed on."""
UNREADABLE = "The model called a function with arguments that are no JSON object"
Part = dict[str, Any]
_json = msgspec.json.Encoder().encode


def usage_metadata(usage: Usage) -> dict[str, int]:
    """https://ai.google.dev/api/generate-content#UsageMetadata: thoughts are counted apart from candidates,
    as xAI counts them itself (its total is then all three)."""
    apart = usage.reasoning > usage.output or usage.total == usage.input + usage.output + usage.reasoning
    output = usage.output if apart else usage.output - usage.reasoning
    fields = {"promptTokenCount": usage.input, "candidatesTokenCount": output}
    if usage.reasoning:
        fields["thoughtsTokenCount"] = usage.reasoning
    if usage.cached_input:
        fields["cachedContentTokenCount"] = usage.cached_input
    return {**fields, "totalTokenCount": usage.tokens}


class _Responses:
    """Events -> parts, and parts -> responses."""

    __slots__ = ("_answer", "_calls", "_id", "_model", "_refused", "_shows_thoughts", "_sources")

    def __init__(self, answer: Answer, *, shows_thoughts: bool = True) -> None:
        self._answer = answer
        self._model = answer.model
        self._id = ""
        self._shows_thoughts = shows_thoughts
        self._calls: WholeCalls | None = None
        self._refused = False
        self._sources = Sources()

    def resume(self, started: Started) -> None:
        self._started(started.model)

    def restart(self) -> bytes:
        return b""

    def _started(self, model: str) -> None:
        if self._answer.reveal and model:
            self._model = model

    def _parts(self, events: Sequence[StreamEvent]) -> list[Part]:
        """Returns the parts for these events, with neighbouring texts of one kind joined."""
        parts: list[Part] = []
        for event in events:
            match event:
                case TextDelta(text=text) if text:
                    self._refused = self._refused or type(event) is RefusalDelta
                    self._sources.text_passed(text)
                    _say(parts, text)
                case ReasoningDelta(text=text) if text and self._shows_thoughts:
                    _think(parts, text)
                case ReasoningBlock():
                    parts.append({"text": "", "thoughtSignature": signature_of(event)})
                case ToolCallStarted() | ToolCallDelta():
                    self._calls = self._calls or WholeCalls()
                    parts += [_function_call(call) for call in self._calls.take(event)]
                case Cited():
                    self._sources.cite(event)
                case Started(id=id, model=model):
                    self._id = id or self._id
                    self._started(model)
                case Working(model=model):
                    self._started(model)
                case Finished():
                    parts += (
                        [_function_call(call) for call in self._calls.rest()]
                        if self._calls is not None
                        else []
                    )
                case _:
                    pass
        return parts

    def _response(self, parts: list[Part], finished: Finished | None = None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}}
        fields: dict[str, Any] = {"candidates": [candidate]}
        if finished is not None:
            candidate["finishReason"] = _reason(finished, refused=self._refused)
            if self._sources:
                candidate["groundingMetadata"] = self._sources.metadata()
            if finished.usage is not None:
                fields["usageMetadata"] = usage_metadata(finished.usage)
        candidate["index"] = 0
        return {**fields, "modelVersion": self._model, "responseId": self._id or self._answer.id}

    def _fails(self, finished: Finished) -> bool:
        """Returns whether a call had to be left out, though the answer was not cut by its limit."""
        return self._calls is not None and self._calls.unreadable and finished.reason != "length"


def _say(parts: list[Part], text: str) -> None:
    if parts and parts[-1].keys() == {"text"}:
        parts[-1]["text"] += text
    else:
        parts.append({"text": text})


def _think(parts: list[Part], text: str) -> None:
    if parts and "thought" in parts[-1]:
        parts[-1]["text"] += text
    else:
        parts.append({"text": text, "thought": True})


def _function_call(call: WholeCall) -> Part:
    sealed = {"thoughtSignature": call.signature} if call.signature else {}
    return {"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}, **sealed}


def _reason(finished: Finished, *, refused: bool) -> str:
    if finished.reason == "content_filter" and finished.native in GOOGLES_FILTERS:
        return finished.native
    return FINISH_REASONS[with_refusal(finished.reason, refused)]


class Events(_Responses):
    """Server-sent events."""

    __slots__ = ()

    content_type = "text/event-stream"

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        parts = self._parts(events)
        last = events[-1] if events else None
        finished = (
            last
            if type(last) is Finished
            else next((event for event in events if type(event) is Finished), None)
        )
        if finished is None:
            return self._chunk(self._response(parts)) if parts else b""
        if self._fails(finished):
            return (self._chunk(self._response(parts)) if parts else b"") + self.fail(
                UpstreamGarbled(UNREADABLE)
            )
        return self._chunk(self._response(parts or [{"text": ""}], finished)) + self.end()

    def fail(self, error: GatewayError) -> bytes:
        return self._chunk(error_object(error)) + self.end()

    def heartbeat(self) -> bytes:
        return self._chunk(
            {"candidates": [{"content": {"role": "model", "parts": [{"text": ""}]}, "index": 0}]}
        )

    def frame(self, chunk: bytes) -> bytes:
        """Returns a chunk in the stream's framing."""
        return b"data: %b\r\n\r\n" % chunk

    def end(self) -> bytes:
        """Returns the bytes after the last chunk."""
        return b""

    def _chunk(self, response: dict[str, Any]) -> bytes:
        return self.frame(without_separators(_json(response)))


class JsonListEvents(Events):
    """Writes a JSON list, one element at a time: the format of requests without `alt=sse`."""

    __slots__ = ("begun",)

    content_type = "application/json; charset=utf-8"

    def __init__(self, answer: Answer, *, shows_thoughts: bool = True) -> None:
        super().__init__(answer, shows_thoughts=shows_thoughts)
        self.begun = False

    def go_on_from(self, other: Encoder) -> None:
        """Continues the list that `other` has begun."""
        self.begun = bool(getattr(other, "begun", False))

    def heartbeat(self) -> bytes:
        """Returns white space, which is allowed everywhere between values (RFC 8259 2)."""
        return b"\n"

    def frame(self, chunk: bytes) -> bytes:
        before, self.begun = (b",\r\n" if self.begun else b"["), True
        return before + chunk

    def end(self) -> bytes:
        return b"]" if self.begun else b"[]"


class Whole(_Responses):
    """Writes the whole answer at its end."""

    __slots__ = ("_whole",)

    content_type = "application/json; charset=utf-8"

    def __init__(self, answer: Answer, *, shows_thoughts: bool = True) -> None:
        super().__init__(answer, shows_thoughts=shows_thoughts)
        self._whole: list[Part] = []

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        self._whole += self._parts(events)
        finished = next((event for event in events if type(event) is Finished), None)
        if finished is None:
            return b""
        if self._fails(finished):
            return self.fail(UpstreamGarbled(UNREADABLE))
        return _json(self._response(_joined(self._whole), finished))

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def heartbeat(self) -> bytes:
        return b""


def _joined(parts: list[Part]) -> list[Part]:
    """Joins neighbouring texts of one kind."""
    found: list[Part] = []
    pieces: list[str] = []
    for part in parts:
        if found and part.keys() <= {"text", "thought"} and found[-1].keys() == part.keys():
            pieces.append(part["text"])
            continue
        if pieces:
            found[-1]["text"] = "".join(pieces)
        found.append(dict(part))
        pieces = [part["text"]] if part.keys() <= {"text", "thought"} else []
    if pieces:
        found[-1]["text"] = "".join(pieces)
    return found
