"""Encodes events as the lines of Ollama's stream, or as its one object, for /api/chat and /api/generate.

A line has the next text, reasoning or tool call; a call is written in one line, once it is complete. The last
line has `done`, why the answer ended, and how long it took (in nanoseconds, of the gateway's clock):
`prompt_eval_duration` up to the first content, `eval_duration` from then on, `load_duration` 0. Counts are
the provider's, and are absent if it reported none. Clients parse every line as an object, so a heartbeat is
one without content. After an error's line there is no `done`. Standard:
https://github.com/ollama/ollama/blob/main/docs/api.md and ChatResponse, GenerateResponse in api/types.go
there
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from sluice.errors import GatewayError, UpstreamGarbled
from sluice.frontends import Answer
from sluice.frontends.ollama.errors import error_object
from sluice.frontends.whole_calls import WholeCall, WholeCalls
from sluice.model.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Working,
)
from sluice.wire.separators import without_separators

DONE_REASONS: dict[FinishReason, str] = {
    "stop": "stop", "length": "length", "tool_calls": "stop", "content_filter": "content_filter",
}  # fmt: skip
UNREADABLE = "The model called a tool with arguments that are no JSON object"
NANOSECONDS = 1_000_000_000
_json = msgspec.json.Encoder().encode


class _Objects:
    """The common part of streamed lines and a whole answer."""

    __slots__ = ("_answer", "_calls", "_first", "_generates", "_model")

    def __init__(self, answer: Answer, *, generates: bool) -> None:
        self._answer = answer
        self._generates = generates
        self._model = answer.model
        self._first = 0.0  # when the first content came
        self._calls: WholeCalls | None = None

    def start(self) -> bytes:
        return b""

    def resume(self, started: Started) -> None:
        self._model = started.model or self._model if self._answer.reveal else self._model

    def restart(self) -> bytes:
        return b""

    def go_on_from(self, other: object) -> None:
        """Continues from another encoder, which forwarded what the client has: the first content came then."""
        self._first = getattr(other, "first", 0.0)

    def _started(self, model: str) -> None:
        if self._answer.reveal and model:
            self._model = model

    def _call(self, event: ToolCallStarted | ToolCallDelta) -> list[WholeCall]:
        if self._calls is None:
            self._calls = WholeCalls()
        return self._calls.take(event)

    def _last_calls(self) -> list[WholeCall]:
        return self._calls.rest() if self._calls is not None else []

    def _fails(self, finished: Finished) -> bool:
        """Returns whether a call had to be left out, though the answer was not cut by its limit."""
        return self._calls is not None and self._calls.unreadable and finished.reason != "length"

    def _head(self) -> dict[str, Any]:
        answer = self._answer
        now = answer.created + max(0.0, answer.clock() - answer.received)
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")
        return {"model": self._model, "created_at": moment.replace("+00:00", "Z")}

    def _message_of(self, text: str, thinking: str = "", calls: Sequence[WholeCall] = ()) -> dict[str, Any]:
        more: dict[str, Any] = {"thinking": thinking} if thinking else {}
        if calls:
            more["tool_calls"] = [_tool_call(call) for call in calls]
        if self._generates:
            return {"response": text, **more}
        return {"message": {"role": "assistant", "content": text, **more}}

    def _end(self, finished: Finished) -> dict[str, Any]:
        answer, usage = self._answer, finished.usage
        now = answer.clock()
        first = self._first or now
        fields: dict[str, Any] = {
            "done": True,
            "done_reason": DONE_REASONS[finished.reason],
            "total_duration": _nanoseconds(now - answer.received),
            "load_duration": 0,
        }
        if usage is not None:
            fields["prompt_eval_count"] = usage.input
        fields["prompt_eval_duration"] = _nanoseconds(first - answer.received)
        if usage is not None:
            fields["eval_count"] = usage.output
        fields["eval_duration"] = _nanoseconds(now - first)
        return fields


def _tool_call(call: WholeCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"index": call.number, "name": call.name, "arguments": call.arguments}}


def _nanoseconds(seconds: float) -> int:
    """Returns at least 1, because clients divide by it."""
    return max(1, int(seconds * NANOSECONDS))


class OllamaLines(_Objects):
    """Writes the stream. The common part of lines of text is made once per read of the upstream."""

    __slots__ = ()

    content_type = "application/x-ndjson"

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        lines: list[bytes] = []
        texts: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                if event.text:
                    texts.append(event.text)
                continue
            if texts:
                lines.append(self._texts(texts))
                texts = []
            lines.append(self._event(event))
        if texts:
            lines.append(self._texts(texts))
        return b"".join(lines)

    def fail(self, error: GatewayError) -> bytes:
        return _line(error_object(error))

    def heartbeat(self) -> bytes:
        return _line({**self._head(), **self._message_of(""), "done": False})

    def _texts(self, texts: list[str]) -> bytes:
        self._first = self._first or self._answer.clock()
        probe = _line({**self._head(), **self._message_of(""), "done": False})
        at = probe.rindex(b'""')
        before, behind = probe[:at], probe[at + 2 :]
        return before + without_separators((behind + before).join(map(_json, texts))) + behind

    def _event(self, event: StreamEvent) -> bytes:
        match event:
            case RefusalDelta(text=text) if text:
                return self._texts([text])
            case ReasoningDelta(text=text) if text:
                return self._content(self._message_of("", text))
            case ToolCallStarted() | ToolCallDelta():
                return self._tools(self._call(event))
            case Started(model=model) | Working(model=model):
                self._started(model)
                return b""
            case Finished():
                return self._finish(event)
            case _:
                return b""

    def _content(self, message: dict[str, Any]) -> bytes:
        self._first = self._first or self._answer.clock()
        return _line({**self._head(), **message, "done": False})

    def _tools(self, calls: list[WholeCall]) -> bytes:
        self._first = self._first or self._answer.clock()
        return b"".join([self._content(self._message_of("", calls=[call])) for call in calls])

    def _finish(self, finished: Finished) -> bytes:
        calls = self._tools(self._last_calls())
        if self._fails(finished):
            return calls + self.fail(UpstreamGarbled(UNREADABLE))
        return calls + _line({**self._head(), **self._message_of(""), **self._end(finished)})


def _line(value: dict[str, Any]) -> bytes:
    return without_separators(_json(value)) + b"\n"


class Whole(_Objects):
    """Writes the whole answer when it is complete."""

    __slots__ = ("_reasoning", "_text", "_whole_calls")

    content_type = "application/json; charset=utf-8"

    def __init__(self, answer: Answer, *, generates: bool) -> None:
        super().__init__(answer, generates=generates)
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._whole_calls: list[WholeCall] = []

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        for event in events:
            match event:
                case TextDelta(text=text):
                    self._first = self._first or self._answer.clock()
                    self._text.append(text)
                case ReasoningDelta(text=text):
                    self._first = self._first or self._answer.clock()
                    self._reasoning.append(text)
                case ToolCallStarted() | ToolCallDelta():
                    self._first = self._first or self._answer.clock()
                    self._whole_calls += self._call(event)
                case Started(model=model) | Working(model=model):
                    self._started(model)
                case Finished():
                    return self._finish(event)
                case _:
                    pass
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def heartbeat(self) -> bytes:
        return b""

    def _finish(self, finished: Finished) -> bytes:
        calls = self._whole_calls + self._last_calls()
        if self._fails(finished):
            return self.fail(UpstreamGarbled(UNREADABLE))
        message = self._message_of("".join(self._text), "".join(self._reasoning), calls)
        return _json({**self._head(), **message, **self._end(finished)})
