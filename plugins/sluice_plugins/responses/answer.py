"""Converts output items of the Responses API into events: items streamed as deltas, and items sent only as a
whole.

Servers differ in what they send of an item: all deltas, or only the finished item, or only the Response at
the end. So the decoder records how much of each item was emitted, and emits the rest when the item or the
Response is complete.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.model.events import (
    Cited,
    ReasoningBlock,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Working,
)
from sluice.wire.seals import OPENAIS
from sluice_plugins.decoding import arguments_of
from sluice_plugins.responses.wire import Annotation, Item, ItemPart

FUNCTIONS = frozenset({"function_call", "custom_tool_call"})
MAX_SEALED = 4 << 20
"""Most characters of encrypted reasoning that are kept; longer ones make no events."""
MAX_PIECES = 4 << 20
"""Most characters of deltas that are kept, of items that may never be finished."""


class _ItemState(msgspec.Struct, eq=False):
    """The state of one received item. `call`: its position among the calls; -1 if it is not a call."""

    type: str
    begun: int = 0  # characters of the answer's text before this item
    text: int = 0
    last: str = ""  # the last delta
    kind: str = ""  # of a reasoning item: "summary" or "content", whichever came first
    cited: int = 0
    call: int = -1
    arguments: bool = False
    done: bool = False
    refused: bool = False
    pieces: list[str] = []  # the deltas of an unfinished item, if they are kept


class Answer:
    """The items of one answer. A call whose id is in `ids` already gets the id "", for which one is generated
    later. `keeps`: keep the deltas, to complete items that the server does not."""

    def __init__(self, ids: set[str], *, keeps: bool = False) -> None:
        self._ids = ids
        self._keeps = keeps
        self._kept = 0  # characters of the deltas that are kept
        self._items: dict[int, _ItemState] = {}
        self._calls = 0
        self._blocks = 0
        self._sealed = 0
        self._characters = 0
        self.called = False  # a tool of the caller was called
        self.content = False

    @property
    def begun(self) -> bool:
        """Whether any item has begun."""
        return bool(self._items)

    @property
    def unfinished(self) -> list[int]:
        """The positions of the items that have begun and are not complete."""
        return [index for index, state in self._items.items() if not state.done]

    @property
    def too_long(self) -> bool:
        """Whether there were more deltas than are kept."""
        return self._kept > MAX_PIECES

    def finished(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        """Returns an unfinished item, completed by its deltas. `item`: the item as its first event had it."""
        state = self._items[index]
        told = "".join(state.pieces)
        begun = {"id": f"item_{index}", "type": state.type, **item, "status": "completed"}
        match state.type:
            case "message":
                part = {"type": "refusal", "refusal": told} if state.refused else _output_text(told)
                return {"role": "assistant", **begun, "content": [part]}
            case "reasoning" if state.kind == "content":
                return {"summary": [], **begun, "content": [{"type": "reasoning_text", "text": told}]}
            case "reasoning":
                return {**begun, "summary": [{"type": "summary_text", "text": told}] if told else []}
            case "custom_tool_call":
                return {**begun, "input": told or begun.get("input") or ""}
            case "function_call":
                return {**begun, "arguments": told or begun.get("arguments") or "{}"}
        return begun

    def begin(self, index: int, item: Item, events: list[StreamEvent]) -> _ItemState:
        """Begin an item, if it has not begun yet. Returns its state."""
        state = self._items.get(index)
        if state is not None:
            return state
        state = self._items[index] = _ItemState(item.type, self._characters)
        if item.type in FUNCTIONS and not _is_xais(item):
            self._call(state, item.call_id or item.id or "", item.name or "", events)
        elif item.type.endswith("_call"):
            self._call(
                state,
                item.call_id or item.id or "",
                item.name or item.type.removesuffix("_call"),
                events,
                server=True,
            )
        else:
            events.append(Working())
        return state

    def _call(
        self, state: _ItemState, id: str, name: str, events: list[StreamEvent], *, server: bool = False
    ) -> None:
        state.call = self._calls
        self._calls += 1
        self.content = True
        self.called = self.called or not server
        if id in self._ids:
            id = ""
        self._ids.add(id)
        events.append(ToolCallStarted(state.call, id, name, "server" if server else "function"))

    def text(
        self, index: int, text: str, events: list[StreamEvent], kind: type[TextDelta] = TextDelta
    ) -> None:
        state = self._items.get(index) or self.begin(index, Item("message"), events)
        state.text += len(text)
        self._characters += len(text)
        if text:
            state.last = text
            self.content = True
            events.append(kind(text))
            if self._keeps:
                state.refused = kind is RefusalDelta
                self._keep(state, text)

    def think(self, index: int, text: str, kind: str, events: list[StreamEvent]) -> None:
        state = self._items.get(index) or self.begin(index, Item("reasoning"), events)
        state.kind = state.kind or kind
        if text and state.kind == kind:
            state.text += len(text)
            state.last = text
            self._keep(state, text)
            events.append(ReasoningDelta(text))

    def arguments(self, index: int, piece: str, events: list[StreamEvent]) -> None:
        state = self._items.get(index)
        if state is None or state.call < 0 or not piece:
            return
        self._keep(state, piece)
        if state.type == "custom_tool_call":
            piece = ("" if state.arguments else '{"input":"') + json.dumps(piece)[1:-1]
        state.arguments = True
        events.append(ToolCallDelta(state.call, piece))

    def _keep(self, state: _ItemState, piece: str) -> None:
        if self._keeps:
            self._kept += len(piece)
            state.pieces.append(piece)
            self._keeps = self._kept <= MAX_PIECES

    def cite(self, index: int, annotation: Annotation, events: list[StreamEvent]) -> None:
        state = self._items.get(index) or self.begin(index, Item("message"), events)
        state.cited += 1
        if (cited := _cited(annotation, state.begun)) is not None:
            events.append(cited)

    def done(self, index: int, item: Item, events: list[StreamEvent]) -> None:
        """Complete an item: emit what of it was not emitted as deltas."""
        state = self.begin(index, item, events)
        if state.done:
            return
        state.done = True
        if state.type == "message":
            self._end_message(index, state, item.content or (), events)
        elif state.type == "reasoning":
            self._end_reasoning(index, state, item, events)
        elif state.call >= 0:
            self._end_call(index, state, item, events)
        state.pieces.clear()

    def _end_message(
        self, index: int, state: _ItemState, parts: Sequence[ItemPart], events: list[StreamEvent]
    ) -> None:
        before = state.text  # characters that came as deltas
        for part in parts:
            whole = part.text or part.refusal or ""
            if len(whole) > before and _is_prefix(whole, before, state.last):
                self.text(index, whole[before:], events, TextDelta if part.text else RefusalDelta)
            before = max(before - len(whole), 0)
        for annotation in [entry for part in parts for entry in part.annotations or ()][state.cited :]:
            self.cite(index, annotation, events)

    def _end_reasoning(self, index: int, state: _ItemState, item: Item, events: list[StreamEvent]) -> None:
        summary = "".join([part.text or "" for part in item.summary or ()])
        content = "".join([part.text or "" for part in item.content or ()])
        kind = state.kind or ("summary" if summary else "content")
        whole = summary if kind == "summary" else content
        if len(whole) > state.text and _is_prefix(whole, state.text, state.last):
            self.think(index, whole[state.text :], kind, events)
        sealed = item.encrypted_content or ""
        self._sealed += len(sealed)
        if sealed and self._sealed <= MAX_SEALED:
            events.append(ReasoningBlock(self._blocks, whole, f"{OPENAIS}{item.id or ''}:{sealed}"))
            self._blocks += 1

    def _end_call(self, index: int, state: _ItemState, item: Item, events: list[StreamEvent]) -> None:
        if not state.arguments:
            self.arguments(index, _written(state.type, item), events)
        if state.type == "custom_tool_call":
            events.append(ToolCallDelta(state.call, '"}' if state.arguments else '{"input":""}'))
        elif state.type == "function_call" and not state.arguments:
            events.append(ToolCallDelta(state.call, "{}"))


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": []}


def _is_xais(item: Item) -> bool:
    """Returns whether xAI has run the tool of this call itself: its searches on X come as calls of custom
    tools."""
    return item.type == "custom_tool_call" and (item.call_id or "").startswith("xs_call_")


def _is_prefix(whole: str, told: int, last: str) -> bool:
    """Returns whether the deltas so far, whose last one is `last` and which have `told` characters, are the
    beginning of the whole text. They are not if the server has corrected the text meanwhile."""
    return whole[:told].endswith(last[-told:]) if told else True


def _written(kind: str, item: Item) -> str:
    """Returns the arguments of a call that came whole; for a tool of the provider, its action or queries."""
    if kind == "custom_tool_call":
        return item.input or ""
    if item.action is not None:
        return msgspec.json.encode(item.action).decode()
    raw = bytes(item.arguments)
    return arguments_of(item.arguments) if raw and raw != b"null" else ""


def _cited(annotation: Annotation, begun: int) -> Cited | None:
    start, end = annotation.start_index, annotation.end_index
    match annotation.type:
        case "url_citation" if annotation.url:
            return Cited(annotation.url, annotation.title or "", _place(start, begun), _place(end, begun))
        case "file_citation" | "container_file_citation" if annotation.filename:
            at = annotation.index if start is None else start
            return Cited(
                "", annotation.filename, _place(at, begun), _place(end if end is not None else at, begun)
            )
        case _:
            return None


def _place(index: Any, begun: int) -> int:
    return begun + index if type(index) is int and 0 <= index < 1 << 31 else -1
