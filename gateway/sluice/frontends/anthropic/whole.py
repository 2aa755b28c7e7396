"""Encodes events as one message, which is written when it is complete. Standard:
https://platform.claude.com/docs/en/api/messages/create"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.anthropic.errors import error_object
from sluice.frontends.anthropic.message import (
    UNREADABLE,
    citation_of,
    message_head,
    stop_of,
    usage_object,
)
from sluice.frontends.estimates import prompt_tokens
from sluice.model.chat import ChatRequest
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
    Working,
)
from sluice.wire.call_ids import new_call_id
from sluice.wire.seals import sealed_call

Block = dict[str, Any]
_json = msgspec.json.Encoder().encode


class Message:
    """The common part of both whole answers."""

    __slots__ = ("_answer",)

    content_type = "application/json"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def start(self) -> bytes:
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error, self._answer.id))

    def resume(self, started: Started) -> None:
        """Does nothing: nothing of a whole answer is written before its end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""


class Whole(Message):
    """Builds a whole message from events. `_pieces`: those of the last block's text, `_calls`: arguments by
    the call's index."""

    __slots__ = ("_calls", "_characters", "_chat", "_content", "_id", "_model", "_pieces", "_refused")

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        super().__init__(answer)
        self._chat = chat
        self._id = ""
        self._model = ""
        self._content: list[Block] = []
        self._pieces: list[str] = []
        self._calls: dict[int, tuple[Block, list[str]]] = {}
        self._characters = 0
        self._refused = False

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        for event in events:
            match event:
                case TextDelta(text=text) if text:
                    self._refused = self._refused or type(event) is RefusalDelta
                    self._continue("text", text)
                case ReasoningDelta(text=text) if text:
                    self._continue("thinking", text)
                case ReasoningBlock():
                    self._sealed(event)
                case ToolCallStarted(kind="function"):
                    self._end_text()
                    if event.signature:
                        signature = sealed_call(event.signature)
                        self._content.append({"type": "thinking", "thinking": "", "signature": signature})
                    block = {
                        "type": "tool_use",
                        "id": event.id or new_call_id(),
                        "name": event.name,
                        "input": {},
                    }
                    self._content.append(block)
                    self._calls[event.index] = (block, [])
                case ToolCallDelta(index=index, arguments=arguments) if index in self._calls:
                    self._calls[index][1].append(arguments)
                case Cited() if self._content and self._content[-1]["type"] == "text":
                    cited = citation_of(event.title, event.url, event.quote, event.start, event.end)
                    self._content[-1].setdefault("citations", []).append(cited)
                case Started(id=id, model=model):
                    self._id, self._model = id, model
                case Working(model=model) if model:
                    self._model = model
                case Finished():
                    return self._message(event)
                case _:
                    pass
        return b""

    def _continue(self, kind: str, text: str) -> None:
        if not self._content or self._content[-1]["type"] != kind or not self._pieces:
            self._end_text()
            self._content.append(
                {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}
            )
        self._pieces.append(text)

    def _end_text(self) -> None:
        if self._pieces:
            block = self._content[-1]
            block[block["type"]] = "".join(self._pieces)
            self._characters += len(block[block["type"]])
            self._pieces = []

    def _sealed(self, sealed: ReasoningBlock) -> None:
        thinking = bool(self._pieces) and self._content[-1]["type"] == "thinking"
        self._end_text()
        if sealed.redacted:
            self._content.append({"type": "redacted_thinking", "data": sealed.redacted})
        elif thinking:
            self._content[-1]["signature"] = sealed.signature
        else:
            self._content.append({"type": "thinking", "thinking": "", "signature": sealed.signature})

    def _message(self, finished: Finished) -> bytes:
        self._end_text()
        for block, arguments in self._calls.values():
            text = "".join(arguments)
            self._characters += len(text)
            block["input"] = input_of(text)
        usage = finished.usage or Usage(prompt_tokens(self._chat), max(self._characters // 4, 1))
        head = message_head(self._answer, self._id, self._model)
        return _json(
            {
                **head,
                "content": self._content,
                **stop_of(finished, refused=self._refused),
                "usage": usage_object(usage),
            }
        )


def input_of(arguments: str) -> Block:
    """Returns a call's arguments as the object that clients expect."""
    if not arguments.strip():
        return {}
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        value = None
    return value if type(value) is dict else {UNREADABLE: arguments}
