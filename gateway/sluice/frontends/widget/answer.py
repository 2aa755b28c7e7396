"""Encodes events as the lines of the widget's stream, or as its one object.

A stream is `start`, any number of `token`, then `done` or `error`, each on one line. Only clients that
request the full profile (`Accept: application/x-ndjson; profile=full`) get `reasoning`, `tool_call`,
`tool_call_delta`, `citation` and `reset`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError, wait_of
from sluice.frontends import Answer
from sluice.frontends.gateway_errors import INTERNAL
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Working,
)
from sluice.wire.call_ids import new_call_id
from sluice.wire.separators import without_separators

FOLD = 256
"""Maximum pieces of text that are kept apart: a string per token takes ten times the memory of the text."""

_json = msgspec.json.Encoder().encode


class _Text:
    """The answer's text so far; `message`: the part for the history."""

    __slots__ = ("_answer", "_model", "_pieces")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._model = answer.model
        self._pieces: list[str] = []

    def _fold(self) -> None:
        self._pieces = ["".join(self._pieces)]

    def _started(self, event: Started | Working) -> None:
        if self._answer.reveal and event.model:
            self._model = event.model

    def resume(self, started: Started) -> None:
        self._started(started)

    @property
    def _message(self) -> str:
        return "".join(self._pieces).strip()

    @property
    def _conversation(self) -> str:
        """The conversation's id; without a history, the request's."""
        return self._answer.conversation or self._answer.id


_TOKEN = b'{"type":"token","token":'
_END = b"}\n"
_BETWEEN = _END + _TOKEN


class NdjsonLines(_Text):
    """Writes the stream. A batch of texts only is encoded by one join."""

    __slots__ = ("_full",)

    content_type = "application/x-ndjson; charset=utf-8"

    def __init__(self, answer: Answer, *, full: bool) -> None:
        super().__init__(answer)
        self._full = full

    def start(self) -> bytes:
        return _line({"type": "start", "conversationId": self._conversation})

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        if len(events) == 1 and type(event := events[0]) is TextDelta and event.text:  # most reads
            return self._tokens([event.text])
        lines: list[bytes] = []
        texts: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                if event.text:
                    texts.append(event.text)
                continue
            if texts:
                lines.append(self._tokens(texts))
                texts = []
            lines.append(self._line(event))
        if texts:
            lines.append(self._tokens(texts))
        return b"".join(lines) if len(lines) != 1 else lines[0]

    def fail(self, error: GatewayError) -> bytes:
        line = {"type": "error", "error": INTERNAL, "code": error.code, "requestId": self._answer.id}
        wait = wait_of(error)
        return _line(line if wait is None else {**line, "retryAfter": wait})

    def restart(self) -> bytes:
        if not self._full:
            return b""
        self._pieces = []
        return b'{"type":"reset"}\n'

    def heartbeat(self) -> bytes:
        return b"\n"

    def _tokens(self, texts: list[str]) -> bytes:
        self._pieces += texts
        if len(self._pieces) > FOLD:
            self._fold()
        tokens = _BETWEEN.join(map(_json, texts))
        if not tokens.isascii():
            tokens = without_separators(tokens)
        return _TOKEN + tokens + _END

    def _line(self, event: StreamEvent) -> bytes:
        match event:
            case Finished():
                return self._done(event)
            case RefusalDelta(text=text):
                return self._tokens([text]) if text else b""
            case Started() | Working():
                self._started(event)
                return b""
            case _ if self._full:
                line = _extra(event)
                return _line(line) if line else b""
            case _:
                return b""

    def _done(self, finished: Finished) -> bytes:
        usage = finished.usage
        line: dict[str, Any] = {
            "type": "done",
            "message": self._message,
            "conversationId": self._conversation,
            "model": self._model,
            "finishReason": finished.reason,
        }
        if usage is not None:
            line["usage"] = {
                "inputTokens": usage.input,
                "outputTokens": usage.output,
                "cachedInputTokens": usage.cached_input,
                "reasoningTokens": usage.reasoning,
            }
        if finished.cost is not None:
            line["cost"] = finished.cost
        return _line(line)


def _line(value: dict[str, Any]) -> bytes:
    line = _json(value)
    return (line if line.isascii() else without_separators(line)) + b"\n"


def _extra(event: StreamEvent) -> dict[str, Any]:
    """Returns the lines of the full profile."""
    match event:
        case ReasoningDelta(text=text) if text:
            return {"type": "reasoning", "text": text}
        case ToolCallStarted(index=index, id=call_id, name=name, kind=kind):
            return {
                "type": "tool_call",
                "index": index,
                "id": call_id or new_call_id(),
                "name": name,
                "kind": kind,
            }
        case ToolCallDelta(index=index, arguments=arguments) if arguments:
            return {"type": "tool_call_delta", "index": index, "arguments": arguments}
        case Cited():
            return _source(event)
        case _:
            return {}


def _source(cited: Cited) -> dict[str, Any]:
    fields: dict[str, Any] = {"type": "citation", "url": cited.url, "title": cited.title}
    if 0 <= cited.start <= cited.end:
        fields |= {"start": cited.start, "end": cited.end}
    return {**fields, "quote": cited.quote} if cited.quote else fields


class Whole(_Text):
    """Writes the whole answer at its end."""

    __slots__ = ()

    content_type = "application/json"

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        for event in events:
            if isinstance(event, TextDelta):
                self._pieces.append(event.text)
                if len(self._pieces) > FOLD:
                    self._fold()
            elif type(event) is Finished:
                return _json({"conversationId": self._conversation, "message": self._message})
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return _json({"error": INTERNAL, "code": error.code, "requestId": self._answer.id})

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""
