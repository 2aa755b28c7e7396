"""Encodes events as the server-sent events of a streamed Response: `response.created`, the items step by
step, and one end.

Each event has its `sequence_number`. An answer ends in `response.completed`, `response.incomplete` (too long,
or filtered), or in an `error` event and `response.failed`, as OpenAI sends them: some clients act upon the
one and some upon the other. There is no `[DONE]`. Nothing is written before the model is called, so an error
until then is an HTTP error. Standard: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.openai.errors import error_object
from sluice.frontends.responses.output import MessageItem, ResponseOutput
from sluice.frontends.responses.response import (
    completed_at,
    ended,
    failure,
    repeated,
    response_id,
    usage_object,
)
from sluice.model.chat import ChatRequest, Tool
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Working
from sluice.wire.separators import without_separators

Value = dict[str, Any]
_json = msgspec.json.Encoder().encode


def _tools_of(chat: ChatRequest) -> dict[str, Tool]:
    """Returns the request's tools that are more than a function, by name."""
    return {tool.name: tool for tool in chat.tools if tool.custom or tool.namespace}


class Responding:
    """The common part of a streamed and a whole Response: the object, and the items of the answer."""

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        self._chat = chat
        self._answer = answer
        self._model = answer.model
        self._output = ResponseOutput(answer.id, _tools_of(chat), self._tell)

    def _tell(self, name: str, fields: Value) -> None:
        pass

    def _named(self, model: str) -> None:
        if self._answer.reveal and model:
            self._model = model

    def _response(self, output: list[Value], usage: Usage | None = None, **state: Any) -> Value:
        answer = self._answer
        head = {
            "id": response_id(answer),
            "object": "response",
            "created_at": answer.created,
            "model": self._model,
        }
        return {
            **head,
            **repeated(self._chat),
            **state,
            "output": output,
            "usage": usage_object(usage) if usage is not None else None,
        }

    def _end(self, finished: Finished) -> Value:
        """Returns the Response at the answer's end."""
        state = ended(finished.reason)
        if state["status"] == "completed":
            state["completed_at"] = completed_at(self._answer)
        self._output.close(state["status"])
        response = self._response(self._output.items, finished.usage, **state)
        if (keep := self._chat.keep) is not None and keep.kept:
            keep.response = response
        return response


class Stream(Responding):
    """Writes a streamed Response. The common part of all deltas of a text is made once."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        super().__init__(chat, answer)
        self._frames: list[bytes] = []
        self._sequence = 0  # the number of events so far: the next sequence_number
        self._opened = False
        self._writing: MessageItem | None = None  # the message that `_prefix` belongs to
        self._prefix = b""

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        for event in events:
            if type(event) is TextDelta:
                self._text(event.text)
            else:
                self._take(event)
        return self._written()

    def fail(self, error: GatewayError) -> bytes:
        self._open()
        detail = error_object(error)["error"]
        self._frame(
            "error", {**{name: detail[name] for name in ("code", "message", "param")}, "error": detail}
        )
        response = self._response(self._output.items, status="failed", error=failure(error))
        self._frame("response.failed", {"response": response})
        return self._written()

    def resume(self, started: Started) -> None:
        self._named(started.model)

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b": keep-alive\n\n"

    def _take(self, event: StreamEvent) -> None:
        match event:
            case Started(model=model):
                self._named(model)
                self._open()
            case Working(model=model):
                self._named(model)
            case Finished():
                self._open()
                response = self._end(event)
                name = "completed" if response["status"] == "completed" else "incomplete"
                self._tell(name, {"response": response})
            case _:
                self._open()
                self._output.take(event)

    def _open(self) -> None:
        if not self._opened:
            self._opened = True
            response = self._response([], status="in_progress")
            self._tell("created", {"response": response})
            self._tell("in_progress", {"response": response})

    def _text(self, text: str) -> None:
        """Writes a piece of text; in an open message that costs little more than its encoding."""
        message = self._output.message
        if message is None or message is not self._writing:
            self._open()
            message = self._writing = message or self._output.open_message()
            at = _json(
                {"type": "response.output_text.delta", "item_id": message.id, "output_index": message.index}
            )
            self._prefix = (
                b'event: response.output_text.delta\ndata: %b,"content_index":0,"logprobs":[],"delta":'
                % at[:-1]
            )
        if not text:
            return
        message.pieces.append(text)
        written = without_separators(_json(text))
        self._frames.append(b'%b%b,"sequence_number":%d}\n\n' % (self._prefix, written, self._sequence))
        self._sequence += 1

    def _tell(self, name: str, fields: Value) -> None:
        self._frame(f"response.{name}", fields)

    def _frame(self, type_: str, fields: Value) -> None:
        data = without_separators(_json({"type": type_, "sequence_number": self._sequence, **fields}))
        self._sequence += 1
        self._frames.append(b"event: %b\ndata: %b\n\n" % (type_.encode(), data))

    def _written(self) -> bytes:
        frames, self._frames = self._frames, []
        return frames[0] if len(frames) == 1 else b"".join(frames)


class Whole(Responding):
    """Writes a whole Response at its end."""

    content_type = "application/json"

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        for event in events:
            match event:
                case Started(model=model) | Working(model=model):
                    self._named(model)
                case Finished():
                    return _json(self._end(event))
                case _:
                    self._output.take(event)
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def resume(self, started: Started) -> None:
        """Does nothing: nothing of a whole answer is written before its end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""
