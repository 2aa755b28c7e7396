"""Converts events to the items of an answer, with an event for each step; for streams and for whole answers.

An item is opened by the first event that belongs to it and closed by the first that does not. Tool calls may
be open at the same time, because some vendors write several at once. Seals of reasoning are put into the
reasoning items (`sluice.wire.seals`); that of a call (Google's) into one that precedes the call. Of tools
that the provider ran itself, web searches are shown as completed calls; clients have no use for others.
Standard: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sluice.frontends.responses.custom import InputText
from sluice.model.chat import Tool
from sluice.model.events import (
    Cited,
    ReasoningBlock,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
)
from sluice.wire.call_ids import new_call_id
from sluice.wire.seals import GOOGLES, sealed, sealed_call

Value = dict[str, Any]
Tell = Callable[[str, Value], None]
"""Called with each step: the event's name after "response.", and its fields."""


class MessageItem(msgspec.Struct, eq=False):
    id: str
    index: int
    begun: int  # characters of the answer's text before this item
    pieces: list[str] = []
    annotations: list[Value] = []

    __repr__ = object.__repr__  # it holds content


class _Refusal(msgspec.Struct, eq=False):
    """A message that ends in a refusal. `parts`: its complete parts."""

    id: str
    index: int
    parts: list[Value]
    pieces: list[str] = []

    __repr__ = object.__repr__


class _Reasoning(msgspec.Struct, eq=False):
    id: str
    index: int
    pieces: list[str] = []

    __repr__ = object.__repr__


class _Call(msgspec.Struct, eq=False):
    """A tool call. `named`: the fields of its item that describe the tool. `input`: that of a custom tool.
    `search`: it is a web search by the provider."""

    id: str
    index: int
    call_id: str
    named: Value
    input: InputText | None = None
    search: bool = False
    pieces: list[str] = []

    __repr__ = object.__repr__


class ResponseOutput:
    """The items of one answer. `ids`: the prefix of their ids. `tools`: the tools that are more than a
    function, by name."""

    def __init__(self, ids: str, tools: Mapping[str, Tool], tell: Tell) -> None:
        self._ids = ids
        self._tools = tools
        self._tell = tell
        self._items: list[Value | None] = []
        self.message: MessageItem | None = None
        self._refusal: _Refusal | None = None
        self._reasoning: _Reasoning | None = None
        self._calls: dict[int, _Call] = {}
        self._characters = 0  # of the text in items that are closed
        self._uncited: list[Cited] = []  # sources that came before any text

    @property
    def items(self) -> list[Value]:
        """Returns the complete items."""
        return [item for item in self._items if item is not None]

    def take(self, event: StreamEvent) -> None:
        """Takes any event except the answer's beginning and end."""
        match event:
            case RefusalDelta(text=text):
                self._refuse(text)
            case TextDelta(text=text):
                self.text(text)
            case ReasoningDelta(text=text) if text:
                self._think(text)
            case ReasoningBlock():
                self._seal(event)
            case ToolCallStarted():
                self._call(event)
            case ToolCallDelta(index=index, arguments=arguments) if arguments and index in self._calls:
                self._arguments(self._calls[index], arguments)
            case Cited():
                self._cite(event)
            case _:
                pass

    def close(self, status: str) -> None:
        """Ends the answer. `status`: that of the items that are still open: "completed" or "incomplete"."""
        self._close(status)

    # --- text

    def text(self, text: str) -> None:
        if not text:
            return
        message = self.message or self.open_message()
        message.pieces.append(text)
        self._tell("output_text.delta", {**_at(message), "content_index": 0, "delta": text, "logprobs": []})

    def open_message(self) -> MessageItem:
        self._close("completed")
        message = self.message = MessageItem(self._id("msg"), self._place(), self._characters)
        item = _message_item(message.id, [], "in_progress")
        self._tell("output_item.added", {"output_index": message.index, "item": item})
        self._tell("content_part.added", {**_at(message), "content_index": 0, "part": _part("", [])})
        for cited in self._uncited:
            self._annotate(message, cited)
        self._uncited = []
        return message

    def _close_message(self, message: MessageItem, status: str) -> None:
        part = self._close_part(message)
        self._done(message.index, _message_item(message.id, [part], status))

    def _close_part(self, message: MessageItem) -> Value:
        """Ends the message's text. Returns its part."""
        text = "".join(message.pieces)
        self._characters += len(text)
        part = _part(text, message.annotations)
        at = {**_at(message), "content_index": 0}
        self._tell("output_text.done", {**at, "text": text, "logprobs": []})
        self._tell("content_part.done", {**at, "part": part})
        return part

    # --- a refusal: a part of its own after the text, if there is one

    def _refuse(self, text: str) -> None:
        if not text:
            return
        refusal = self._refusal or self._open_refusal()
        refusal.pieces.append(text)
        self._tell("refusal.delta", {**_at(refusal), "content_index": len(refusal.parts), "delta": text})

    def _open_refusal(self) -> _Refusal:
        message, self.message = self.message, None
        if message is not None:
            refusal = _Refusal(message.id, message.index, [self._close_part(message)])
        else:
            self._close("completed")
            refusal = _Refusal(self._id("msg"), self._place(), [])
            item = _message_item(refusal.id, [], "in_progress")
            self._tell("output_item.added", {"output_index": refusal.index, "item": item})
        self._refusal = refusal
        at = {**_at(refusal), "content_index": len(refusal.parts)}
        self._tell("content_part.added", {**at, "part": {"type": "refusal", "refusal": ""}})
        return refusal

    def _close_refusal(self, status: str) -> None:
        refusal, self._refusal = self._refusal, None
        if refusal is None:
            return
        text = "".join(refusal.pieces)
        self._characters += len(text)
        at = {**_at(refusal), "content_index": len(refusal.parts)}
        part = {"type": "refusal", "refusal": text}
        self._tell("refusal.done", {**at, "refusal": text})
        self._tell("content_part.done", {**at, "part": part})
        self._done(refusal.index, _message_item(refusal.id, [*refusal.parts, part], status))

    def _cite(self, cited: Cited) -> None:
        if self.message is not None:
            self._annotate(self.message, cited)
        elif not self._items:
            self._uncited.append(cited)

    def _annotate(self, message: MessageItem, cited: Cited) -> None:
        fields = sum(map(len, message.pieces))
        start = max(cited.start - message.begun, 0) if cited.start >= 0 else fields
        end = max(cited.end - message.begun, start) if cited.end >= 0 else max(start, fields)
        annotation: Value
        if cited.url:
            annotation = {
                "type": "url_citation", "start_index": start, "end_index": end, "url": cited.url, "title": cited.title,
            }  # fmt: skip
        else:
            annotation = {"type": "file_citation", "file_id": "", "filename": cited.title, "index": start}
        at = {**_at(message), "content_index": 0, "annotation_index": len(message.annotations)}
        message.annotations.append(annotation)
        self._tell("output_text.annotation.added", {**at, "annotation": annotation})

    # --- reasoning

    def _think(self, text: str) -> None:
        reasoning = self._reasoning
        if reasoning is None:
            reasoning = self._open_reasoning()
        at = {**_at(reasoning), "summary_index": 0}
        if not reasoning.pieces:
            self._tell("reasoning_summary_part.added", {**at, "part": _summary("")})
        reasoning.pieces.append(text)
        self._tell("reasoning_summary_text.delta", {**at, "delta": text})

    def _open_reasoning(self) -> _Reasoning:
        self._close("completed")
        reasoning = self._reasoning = _Reasoning(self._id("rs"), self._place())
        item = {"id": reasoning.id, "type": "reasoning", "summary": []}
        self._tell("output_item.added", {"output_index": reasoning.index, "item": item})
        return reasoning

    def _seal(self, block: ReasoningBlock) -> None:
        if self._reasoning is None:
            self._open_reasoning()
            if block.text and not block.signature.startswith(GOOGLES):
                self._think(block.text)
        self._close_reasoning(sealed(block.signature, block.redacted))

    def _close_reasoning(self, content: str = "") -> None:
        reasoning, self._reasoning = self._reasoning, None
        if reasoning is None:
            return
        text = "".join(reasoning.pieces)
        summary = [_summary(text)] if text else []
        if text:
            at = {**_at(reasoning), "summary_index": 0}
            self._tell("reasoning_summary_text.done", {**at, "text": text})
            self._tell("reasoning_summary_part.done", {**at, "part": summary[0]})
        item: Value = {"id": reasoning.id, "type": "reasoning", "summary": summary}
        self._done(reasoning.index, item | ({"encrypted_content": content} if content else {}))

    # --- calls

    def _call(self, event: ToolCallStarted) -> None:
        search = event.kind == "server"
        if search and "web_search" not in event.name:
            return
        if event.signature:
            self._seal_call(event.signature)
        self._close_text()
        tool = self._tools.get(event.name)
        custom = tool is not None and tool.custom and not search
        prefix = "ws" if search else "ctc" if custom else "fc"
        call_id = event.id or new_call_id()
        input = InputText() if custom else None
        call = _Call(self._id(prefix), self._place(), call_id, _named(event.name, tool), input, search)
        self._calls[event.index] = call
        self._tell(
            "output_item.added", {"output_index": call.index, "item": _call_item(call, "", "in_progress")}
        )
        if search:
            self._tell("web_search_call.in_progress", _at(call))

    def _seal_call(self, signature: str) -> None:
        if self._reasoning is None:
            self._open_reasoning()
        self._close_reasoning(sealed_call(signature))

    def _arguments(self, call: _Call, piece: str) -> None:
        if call.input is not None:
            piece = call.input.feed(piece)
        if not piece:
            return
        call.pieces.append(piece)
        if not call.search:
            name = (
                "custom_tool_call_input.delta" if call.input is not None else "function_call_arguments.delta"
            )
            self._tell(name, {**_at(call), "delta": piece})

    def _close_call(self, call: _Call, status: str) -> None:
        if call.input is not None and (rest := call.input.close()):
            call.pieces.append(rest)
            self._tell("custom_tool_call_input.delta", {**_at(call), "delta": rest})
        written = "".join(call.pieces)
        if call.search:
            self._tell("web_search_call.completed", _at(call))
        elif call.input is not None:
            self._tell("custom_tool_call_input.done", {**_at(call), "input": written})
        else:
            written = written or "{}"  # clients parse it as JSON
            self._tell(
                "function_call_arguments.done",
                {**_at(call), "name": call.named["name"], "arguments": written},
            )
        self._done(call.index, _call_item(call, written, status))

    # --- all items

    def _close_text(self) -> None:
        self._close_reasoning()
        self._close_refusal("completed")
        if self.message is not None:
            message, self.message = self.message, None
            self._close_message(message, "completed")

    def _close(self, status: str) -> None:
        """Closes the open items; only the last one has this status."""
        if self.message is not None:
            message, self.message = self.message, None
            self._close_message(message, status)
        self._close_refusal(status)
        self._close_reasoning()
        calls, self._calls = [*self._calls.values()], {}
        for call in calls:
            self._close_call(call, status if call is calls[-1] else "completed")

    def _place(self) -> int:
        self._items.append(None)
        return len(self._items) - 1

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._ids}_{len(self._items)}"

    def _done(self, index: int, item: Value) -> None:
        self._items[index] = item
        self._tell("output_item.done", {"output_index": index, "item": item})


def _at(item: MessageItem | _Refusal | _Reasoning | _Call) -> Value:
    return {"item_id": item.id, "output_index": item.index}


def _message_item(id: str, parts: list[Value], status: str) -> Value:
    return {"id": id, "type": "message", "status": status, "content": parts, "role": "assistant"}


def _part(text: str, annotations: list[Value]) -> Value:
    return {"type": "output_text", "annotations": annotations, "logprobs": [], "text": text}


def _summary(text: str) -> Value:
    return {"type": "summary_text", "text": text}


def _call_item(call: _Call, written: str, status: str) -> Value:
    if call.search:
        action = {"type": "search", "query": _query(written)}
        return {"id": call.id, "type": "web_search_call", "status": status, "action": action}
    named = {"call_id": call.call_id, **call.named}
    if call.input is not None:
        return {"id": call.id, "type": "custom_tool_call", "status": status, **named, "input": written}
    return {"id": call.id, "type": "function_call", "status": status, "arguments": written, **named}


def _named(name: str, tool: Tool | None) -> Value:
    if tool is None or not tool.namespace:
        return {"name": name}
    return {"name": name.removeprefix(f"{tool.namespace}__"), "namespace": tool.namespace}


def _query(arguments: str) -> str:
    """Returns the search query, if the provider reports it."""
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return ""
    match value:
        case {"query": str(query)} | {"queries": [str(query), *_]}:
            return query
        case _:
            return ""
