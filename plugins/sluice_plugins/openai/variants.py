"""Rewrites chunks and whole answers of servers that deviate from the dialect in their form, not only in a field:

    choices[].text                      the text is in the field of /completions, not in a delta or message
    tool_calls[] without `function`     the call's name and arguments are in the call itself
    finish_reason of another type       a list becomes its text, anything else null: SDKs require the field
    {"data": {"choices": …}}            the answer is wrapped in another object

Ordinary chunks do not come here: only those that the typed decoding refuses, or that have a choice without content.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sluice.wire.lenient import encoded, parse, text_of
from sluice_plugins.openai.chunk import Choice

Values = dict[str, Any]


def in_standard_form(value: Any, key: str = "delta") -> tuple[Any, int]:
    """Returns the parsed chunk (or whole answer: `key` is "message" then) in the standard's form, and how many of its
    finish reasons had another type. A value that is not a JSON object is returned unmodified."""
    if type(value) is not dict or "choices" not in value:
        return value, 0
    odd = 0

    def rewritten(choice: Values) -> Values:
        nonlocal odd
        choice = dict(choice)
        finish = choice.get("finish_reason")
        if finish is not None and type(finish) is not str:
            choice["finish_reason"] = text_of(finish) if type(finish) is list else None
            odd += 1
        _move_text(choice, key)
        for place in ("delta", "message"):
            said = choice.get(place)
            if type(said) is dict and said.get("tool_calls"):
                choice[place] = {**said, "tool_calls": _each(said["tool_calls"], _nested)}
        return choice

    value = {**value, "choices": _each(value["choices"], rewritten)}
    if value.get("object") == "text_completion":
        value["object"] = "chat.completion" if key == "message" else "chat.completion.chunk"
    return value, odd


def has_only_text(choices: Iterable[Choice], key: str = "delta") -> bool:
    """Returns whether a choice has its text in the field of /completions."""
    for choice in choices:
        said = getattr(choice, key)
        if choice.text is not None and (said is None or (choice.text and not said.content)):
            return True
    return False


def unwrapped(payload: bytes | bytearray) -> bytes:
    """Returns the answer in the field `data` of a JSON object; b"" if there is none."""
    match value_with(payload, b'"data"', b'"choices"'):
        case {"data": {"choices": list() | dict()} as inner, **beside} if "choices" not in beside:
            return encoded(inner)
        case _:
            return b""


def value_with(payload: bytes | bytearray, *names: bytes) -> Any:
    """Returns the parsed payload; None if it is not JSON, or does not contain all of these quoted names."""
    if not all(name in payload for name in names):
        return None
    try:
        return parse(payload)
    except ValueError:
        return None


def _move_text(choice: Values, key: str) -> None:
    text, said = choice.get("text"), choice.get(key)
    if type(text) is not str or not (said is None or type(said) is dict) or (said or {}).get("content"):
        return
    if key == "delta" and choice.get("message"):
        return
    del choice["text"]
    role = {"role": "assistant"} if key == "message" else {}
    choice[key] = {**role, **(said or {}), "content": text}


def _nested(call: Values) -> Values:
    """Returns the call with its name and arguments moved into `function`."""
    if call.get("function") is not None or not ("name" in call or "arguments" in call):
        return call
    function = {name: call[name] for name in ("name", "arguments") if call.get(name) is not None}
    rest = {name: value for name, value in call.items() if name not in ("name", "arguments")}
    kind = {"type": "function"} if call.get("name") and not call.get("type") else {}
    return {**rest, **kind, "function": function}


def _each(value: Any, rewritten: Callable[[Values], Values]) -> Any:
    """Returns the list with each of its objects rewritten; a single object in place of a list is rewritten, too."""
    if type(value) is dict:
        return rewritten(value)
    if type(value) is not list:
        return value
    return [rewritten(entry) if type(entry) is dict else entry for entry in value]
