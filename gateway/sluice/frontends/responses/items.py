"""Converts the items of a Responses request to messages.

An assistant's items of one turn become one message. Items of kinds that only OpenAI runs (mcp_call,
computer_call, image_generation_call …) cannot be expressed for another vendor; they are reported, and stay in
a request that is forwarded unchanged. Calls of its web search are left out elsewhere, because they contain no
results. Standard: https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from sluice.frontends.checks import cache_of_breakpoint, check_names, refused
from sluice.model.chat import Cache, Image, Message, Other, Part, Role, Text, Thought, ToolCall
from sluice.wire.seals import SEAL_PREFIX, call_signature, thought_of

Value = dict[str, Any]
_ROLES: Mapping[str, Role] = {
    "user": "user",
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
}
_ITEM = frozenset(
    {"type", "id", "role", "content", "call_id", "name", "arguments", "input", "output", "summary", "status"}
)
_PART = frozenset(
    {"type", "text", "refusal", "image_url", "file_id", "file_data", "file_url", "filename", "detail"}
)
LEFT_OUT = frozenset({"web_search_call", "compaction_trigger"})
"""Items that may be left out for other vendors."""
MAX_PARTS = 4096
"""Maximum parts of a summary that are read."""


class _Turn:
    """Collects the assistant's items since the last message of another role."""

    __slots__ = ("calls", "parts", "seal", "thoughts")

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.calls: list[ToolCall] = []
        self.thoughts: list[Thought] = []
        self.seal = ""  # for the next call

    def message(self) -> Message | None:
        if not (self.parts or self.calls or self.thoughts):
            return None
        return Message("assistant", tuple(self.parts), tuple(self.calls), "", tuple(self.thoughts))


class InputMessages:
    """The messages of a request's `input`. `unsaid`: "input[3]: an item of …", the first item that only
    OpenAI understands; "" if there is none."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.unsaid = ""
        self.references: list[str] = []
        self._turn = _Turn()

    def add(self, items: Sequence[Any]) -> None:
        """Adds an item. Raises BadRequest, whose `param` names the field: "input[0].content"."""
        for index, item in enumerate(items):
            at = f"input[{index}]"
            if type(item) is not dict:
                raise refused(at, "must be an object")
            if not item.keys() <= _ITEM:
                check_names(item, _ITEM, f"{at}.")
            self._item(item, at)
        self._end_turn()

    def _item(self, item: Value, at: str) -> None:
        kind = item.get("type")
        if kind is None:
            kind = "message" if "role" in item else "item_reference" if "id" in item else None
        if not isinstance(kind, str):
            raise refused(f"{at}.type", "must be a string")
        take = _ITEMS.get(kind)
        if take is not None:
            take(self, item, at)
        elif kind not in LEFT_OUT:
            self.unsaid = self.unsaid or f"{at}: an item of type {shown(kind)}"

    def _end_turn(self) -> None:
        if message := self._turn.message():
            self.messages.append(message)
            self._turn = _Turn()

    def _say(self, role: Role, parts: tuple[Part, ...], call: str = "") -> None:
        self._end_turn()
        self.messages.append(Message(role, parts, tool_call_id=call))

    def message(self, item: Value, at: str) -> None:
        role = _ROLES.get(_text(item, "role", at))
        if role is None:
            raise refused(f"{at}.role", "must be user, assistant, system or developer")
        parts = self._content(item.get("content"), f"{at}.content")
        if role == "assistant":
            self._turn.parts += parts
        else:
            self._say(role, parts)

    def call(self, item: Value, at: str) -> None:
        arguments = item.get("arguments", "")
        self._call(
            item, arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode(), at
        )

    def custom_call(self, item: Value, at: str) -> None:
        self._call(item, msgspec.json.encode({"input": _text(item, "input", at)}).decode(), at)

    def _call(self, item: Value, arguments: str, at: str) -> None:
        turn = self._turn
        id, name = _text(item, "call_id", at), _text(item, "name", at)
        if isinstance(namespace := item.get("namespace"), str) and namespace:
            name = f"{namespace}__{name}"
        turn.calls.append(ToolCall(id, name, arguments or "{}", turn.seal))
        turn.seal = ""

    def result(self, item: Value, at: str) -> None:
        parts = self._content(item.get("output"), f"{at}.output")
        self._say("tool", parts, _text(item, "call_id", at))

    def reasoning(self, item: Value, at: str) -> None:
        """Returns earlier reasoning, sealed if its content is encrypted."""
        sealed = item.get("encrypted_content")
        content = sealed if isinstance(sealed, str) else ""
        id = item.get("id")
        text = ("" if content.startswith(SEAL_PREFIX) else "\n\n").join(
            [*_texts(item.get("summary")), *_texts(item.get("content"))]
        )
        if signature := call_signature(content):
            self._turn.seal, content = signature, ""
        if thought := thought_of(id if isinstance(id, str) else "", text, content):
            self._turn.thoughts.append(thought)

    def reference(self, item: Value, at: str) -> None:
        self.references.append(_text(item, "id", at))

    def _content(self, content: Any, at: str) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (Text(content),)
        if type(content) is not list:
            raise refused(at, "must be a string or a list of parts")
        return tuple(
            [part for index, value in enumerate(content) if (part := self._part(value, f"{at}[{index}]"))]
        )

    def _part(self, part: Any, at: str) -> Part | None:
        if type(part) is not dict:
            raise refused(at, "must be an object")
        if not part.keys() <= _PART:
            check_names(part, _PART, f"{at}.")
        match part:
            case {
                "type": "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text",
                "text": str(text),
            }:
                return Text(text, cache_of_breakpoint(part))
            case {"type": "refusal", "refusal": str(text)}:
                return Text(text, refusal=True)
            case {"type": "input_image" | "computer_screenshot", "image_url": str(url)}:
                return _image(url, part.get("detail"), cache_of_breakpoint(part), at)
            case {"type": "input_file"} if file := _file(part):
                cache = cache_of_breakpoint(part)
                return Other(
                    "file", {"type": "file", "file": file, **({"cache_control": cache} if cache else {})}
                )
            case {"type": "input_audio", "input_audio": dict(audio)}:
                return Other("input_audio", {"type": "input_audio", "input_audio": audio})
            case {"type": "input_image" | "input_file", "file_id": str()}:
                self.unsaid = self.unsaid or f"{at}: a file by its id"
                return None
            case {
                "type": "input_image"
                | "input_file"
                | "input_audio"
                | "input_text"
                | "output_text"
                | "refusal" as kind
            }:
                raise refused(f"{at}", f"is not a complete part of type {kind}")
            case {"type": str(kind)} if kind:
                self.unsaid = self.unsaid or f"{at}: content of type {shown(kind)}"
                return None
            case _:
                raise refused(f"{at}.type", "must be a string")


_ITEMS: Mapping[str, Callable[[InputMessages, Value, str], None]] = {
    "message": InputMessages.message,
    "function_call": InputMessages.call,
    "function_call_output": InputMessages.result,
    "custom_tool_call": InputMessages.custom_call,
    "custom_tool_call_output": InputMessages.result,
    "reasoning": InputMessages.reasoning,
    "item_reference": InputMessages.reference,
}


def shown(kind: str) -> str:
    """Returns a type's name if it may be repeated in an error; otherwise another word."""
    return (
        kind if len(kind) <= 64 and kind.replace("_", "").isalnum() and kind.isascii() else "an unknown name"
    )


def _text(item: Value, name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise refused(f"{at}.{name}", "must be a string")
    return value


def _texts(parts: Any) -> list[str]:
    entries = parts[:MAX_PARTS] if type(parts) is list else ()
    return [part["text"] for part in entries if type(part) is dict and isinstance(part.get("text"), str)]


def _image(url: str, detail: Any, cache: Cache | None, at: str) -> Image:
    if not url[:8].lower().startswith(("https://", "http://", "data:")):
        raise refused(f"{at}.image_url", "must be an http(s) or data: URL")
    return Image(url, cache, detail if isinstance(detail, str) else "")


def _file(part: Value) -> Value | None:
    """Returns a file in the vocabulary's form; None if only its id is known."""
    data = part.get("file_data") or part.get("file_url")
    if not isinstance(data, str) or not data:
        return None
    name = part.get("filename")
    return {"file_data": data, **({"filename": name} if isinstance(name, str) and name else {})}
