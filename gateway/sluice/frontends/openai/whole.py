"""Writes one chat completion when it is complete: made from events, from the upstream's own chunks, or the
upstream's own.

Chunks are joined so that no vendor's field is lost: deltas are continued (`deltas`), and outside of them the
last value counts (citations, system_fingerprint …), except for logprobs, which are continued, too. Standard:
https://platform.openai.com/docs/api-reference/chat/object
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.openai.annotations import annotations
from sluice.frontends.openai.chunks import sealed, usage_object
from sluice.frontends.openai.deltas import joined, merge
from sluice.frontends.openai.errors import error_object
from sluice.frontends.openai.reasoning import reasoning_details, thinking_blocks
from sluice.frontends.openai.rename import Renaming
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
    Working,
)
from sluice.wire.call_ids import new_call_id
from sluice.wire.lenient import encoded, value_again
from sluice.wire.sse import EventStream, payloads

_json = msgspec.json.Encoder().encode

MAX_FRAMES = 64 << 20
"""Maximum bytes of frames that are parsed as one: more than any upstream may send in one event."""


class _Completion(msgspec.Struct, eq=False):
    _answer: Answer
    _model: str = ""  # "": the answer's

    content_type: ClassVar[str] = "application/json"

    __repr__ = object.__repr__  # the fields hold the model's text

    def start(self) -> bytes:
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def resume(self, started: Started) -> None:
        """Does nothing: nothing of a whole answer is written before its end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""

    def _head(self) -> dict[str, Any]:
        answer = self._answer
        return {
            "id": f"chatcmpl-{answer.id}",
            "object": "chat.completion",
            "created": answer.created,
            "model": self._model or answer.model,
        }


class Whole(_Completion, eq=False):
    """Builds the completion from events. `usage` is null if the upstream did not report it."""

    _text: list[str] = []
    _refusal: list[str] = []
    _reasoning: list[str] = []
    _blocks: list[ReasoningBlock] = []
    _cited: list[Cited] = []
    _calls: dict[int, tuple[ToolCallStarted, list[str]]] = {}

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        for event in events:
            match event:
                case RefusalDelta(text=text):
                    self._refusal.append(text)
                case TextDelta(text=text):
                    self._text.append(text)
                case ReasoningDelta(text=text):
                    self._reasoning.append(text)
                case ToolCallStarted(kind="function"):
                    self._calls[event.index] = (event, [])
                case ToolCallDelta(index=index, arguments=arguments) if index in self._calls:
                    self._calls[index][1].append(arguments)
                case ReasoningBlock():
                    self._blocks.append(event)
                case Cited():
                    self._cited.append(event)
                case Started(model=model) | Working(model=model) if self._answer.reveal and model:
                    self._model = model
                case Finished():
                    return self._completion(event)
                case _:
                    pass
        return b""

    def _completion(self, finished: Finished) -> bytes:
        choice = {"index": 0, "message": self._message(), "logprobs": None, "finish_reason": finished.reason}
        usage = usage_object(finished.usage) if finished.usage is not None else None
        return _json({**self._head(), "choices": [choice], "usage": usage})

    def _message(self) -> dict[str, Any]:
        text = "".join(self._text)
        refusal = "".join(self._refusal) or None
        content = text if text or not (self._calls or refusal) else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": refusal}
        if self._reasoning:
            message["reasoning_content"] = "".join(self._reasoning)
        if fields := annotations(self._cited):
            message["annotations"] = fields
        if self._blocks:
            message["thinking_blocks"] = thinking_blocks(self._blocks, indexed=False)
            message["reasoning_details"] = reasoning_details(self._blocks)
        if self._calls:
            message["tool_calls"] = [_call(*call) for call in self._calls.values()]
        return message


def _call(call: ToolCallStarted, arguments: list[str]) -> dict[str, Any]:
    function = {"name": call.name, "arguments": "".join(arguments)}
    return {"id": call.id or new_call_id(), "type": "function", "function": function, **sealed(call)}


class Accumulated(_Completion, eq=False):
    """Builds the completion from the upstream's chunks, or forwards its own whole answer."""

    _stream: EventStream | None = None  # for frames of another form than one `data: ` line
    _top: dict[str, Any] = {}
    _choices: dict[int, dict[str, Any]] = {}

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        last = events[-1]
        if type(last) is Verbatim and last.whole:
            if self._answer.reveal and not last.made:  # one that was made names no model
                return last.data
            return Renaming(self._answer.model).document(last.data)
        finished: Finished | None = None
        for event in events:
            if type(event) is Verbatim:
                for payload in payloads(event.data) or self._odd_frames(event.data):
                    self._take(payload)
            elif type(event) is Finished:  # its own frames may follow it in the batch
                finished = event
        return b"" if finished is None else self._completion(finished.usage)

    def _odd_frames(self, data: bytes) -> list[bytes]:
        self._stream = self._stream or EventStream(limit=MAX_FRAMES)
        return [event.data for event in self._stream.feed(data)]

    def _take(self, payload: bytes) -> None:
        chunk = value_again(payload)
        if type(chunk) is not dict:
            return
        choices = chunk.pop("choices", None)
        chunk.pop("obfuscation", None)  # padding that hides a chunk's length
        self._top.update([(key, value) for key, value in chunk.items() if value is not None])
        for choice in choices if type(choices) is list else ():
            if type(choice) is dict:
                self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        kept = self._choices.setdefault(index if type(index) is int else 0, {"message": {}})
        for key, value in choice.items():
            if (
                value is None or value == "" or key in ("index", "message")
            ):  # Perplexity sends the whole text so far
                continue
            if key == "delta" and type(value) is dict:
                merge(kept["message"], value)
            elif key == "logprobs" and type(value) is dict and type(kept.get(key, value)) is dict:
                merge(kept.setdefault(key, {}), value)
            else:
                kept[key] = value

    def _completion(self, usage: Usage | None) -> bytes:
        reported = {"usage": usage_object(usage) if usage is not None else None}
        choices = [_choice(index, self._choices[index]) for index in sorted(self._choices)]
        whole = {**self._head(), "choices": choices, **reported, **self._top, "object": "chat.completion"}
        if not self._answer.reveal:
            whole["model"] = self._answer.model
        return encoded(whole)


def _choice(index: int, kept: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = joined(kept)
    given = choice.pop("message")
    calls = given.get("tool_calls")
    if type(calls) is list:
        given["tool_calls"] = [_without_index(call) for call in calls]
    message = {"role": "assistant", "content": None, "refusal": None, **given}
    if message["content"] == "" and calls:
        message["content"] = None
    return {"index": index, "message": message, "logprobs": None, "finish_reason": "stop", **choice}


def _without_index(call: Any) -> Any:
    return {key: value for key, value in call.items() if key != "index"} if type(call) is dict else call
