"""Changes to chunks (and whole answers) that are otherwise forwarded unmodified: edits at paths in the JSON,
names of calls, halves of surrogate pairs, finish reasons, and the frames themselves."""

from typing import Any

from sluice.wire.lenient import REPLACEMENT, Halves, encoded, parse, parse_again

FRAMING = len(b"data: \n\n")
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
"""The fields of a delta that hold pieces of text."""
_DROPPED: Any = object()


class Edits:
    """Changes to make in a chunk (or a whole answer) before it is forwarded, each at its path in the JSON."""

    __slots__ = ("_calls", "_changes")

    def __init__(self) -> None:
        self._changes: list[tuple[tuple[str | int, ...], Any]] = []
        self._calls: list[tuple[int, list[dict[str, Any]]]] = []

    def set(self, value: Any, *path: str | int) -> None:
        self._changes.append((path, value))

    def drop(self, *path: str | int) -> None:
        self._changes.append((path, _DROPPED))

    def set_or_drop(self, value: str, *path: str | int) -> None:
        self._changes.append((path, value or _DROPPED))

    def more_calls(self, calls: list[dict[str, Any]], choice: int) -> None:
        """Append entries to `tool_calls` in the delta of the choice at position `choice`."""
        self._calls.append((choice, calls))

    def apply(self, document: Any) -> None:
        thinned: list[list[Any]] = []
        for (*way, last), value in self._changes:
            at = document
            for step in way:
                at = at[step]
            if value is not _DROPPED:
                at[last] = value
            elif type(at) is dict:
                at.pop(last, None)
            else:
                at[last] = (
                    _DROPPED  # marked here and removed below, so that positions in other paths stay valid
                )
                thinned.append(at)
        for position, calls in self._calls:
            choice = document["choices"][position]
            delta = choice["delta"] = choice.get("delta") or {}
            delta["tool_calls"] = [*(delta.get("tool_calls") or ()), *calls]
        for entries in thinned:
            entries[:] = [entry for entry in entries if entry is not _DROPPED]


def renamed(payload: bytes, name: str, choice: int, call: int) -> bytes:
    """Returns the chunk with another name for the tool call at position `call` of the choice at `choice`."""
    values = parse_again(payload)
    values["choices"][choice]["delta"]["tool_calls"][call]["function"]["name"] = name
    return encoded(values)


def end_chunk(like: bytes, reasons: dict[int, str]) -> bytes:
    """Returns a chunk with these finish reasons by choice, and the head (id, model …) of the chunk `like`."""
    try:
        head = parse(like) if like else {}
    except ValueError:
        head = {}
    known = {
        key: head[key] for key in ("id", "object", "created", "model", "system_fingerprint") if key in head
    }
    choices = [{"index": index, "delta": {}, "finish_reason": reason} for index, reason in reasons.items()]
    return encoded({**known, "choices": choices})


def frames_of(passed: list[bytes], payloads: list[bytes], body: bytes | None) -> bytes:
    """Returns frames with the payloads `passed`. `body`, the frames of `payloads`, is reused as far as both
    lists are equal; the other frames are written anew."""
    if body is not None:
        if passed == payloads:
            return body
        if passed == payloads[: len(passed)]:
            return body[: sum(map(len, passed)) + FRAMING * len(passed)]
    return b"".join([b"data: %b\n\n" % payload.replace(b"\n", b"\ndata: ") for payload in passed])


def join_halves(values: dict[str, Any], halves: Halves) -> None:
    """Join surrogate pairs that are split over two chunks; a half left at the end of its choice becomes
    U+FFFD."""
    for choice in values.get("choices") or ():
        number, delta = choice.get("index") or 0, choice.get("delta")
        if type(delta) is dict:
            for name in TEXTS:
                _join_text(delta, name, halves, number, name)
            for call in delta.get("tool_calls") or ():
                _join_function(call.get("function"), halves, number, call.get("index"))
            _join_function(delta.get("function_call"), halves, number, "function_call")
        if choice.get("finish_reason"):
            _end_halves(choice, halves, number)


def _join_text(holder: dict[str, Any], field: str, halves: Halves, *text_id: Any) -> None:
    value = holder.get(field)
    if type(value) is str:
        holder[field] = halves.join(text_id, value)
    elif type(value) is list:
        for part in value:
            _join_text(part, "text", halves, *text_id)
            _join_text(part, "thinking", halves, *text_id, "thinking")


def _join_function(function: Any, halves: Halves, choice: int, call: Any) -> None:
    if type(function) is dict:
        for name in ("name", "arguments"):
            if type(function.get(name)) is str:
                function[name] = halves.join((choice, name, call), function[name])
        if function.get("arguments") and halves.pending.pop((choice, "name", call), ""):
            function["name"] = (function.get("name") or "") + REPLACEMENT  # the name is complete


def _end_halves(choice: dict[str, Any], halves: Halves, number: int) -> None:
    """Replace each half of a surrogate pair that is still pending at the end of a choice by U+FFFD."""
    delta = choice["delta"] if type(choice.get("delta")) is dict else {}
    choice["delta"] = delta
    for ended in [text_id for text_id in halves.pending if text_id[0] == number]:
        del halves.pending[ended]
        match ended:
            case (_, "arguments" | "name" as field, call) if call != "function_call":
                index = {} if call is None else {"index": call}
                delta["tool_calls"] = [
                    *(delta.get("tool_calls") or ()),
                    {**index, "function": {field: REPLACEMENT}},
                ]
            case (_, "content", *_):
                text = delta.get("content")
                delta["content"] = (text if type(text) is str else "") + REPLACEMENT
            case (_, str(field)) if field in TEXTS:
                delta[field] = (delta.get(field) or "") + REPLACEMENT
