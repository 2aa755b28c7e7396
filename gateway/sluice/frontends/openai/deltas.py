"""Joins the deltas of a streamed message without knowing the meaning of their fields.

Strings are continued, objects merged, lists continued by their entries' `index`; a number or a boolean is
replaced, a null is ignored. Names, ids and other identifiers are not continued, because vendors repeat them
in every chunk. Entries without an index are entries of their own, except for pieces of text (Mistral's
content is sometimes a list of them).
"""

from typing import Any

IDENTIFYING = frozenset(
    {"role", "type", "id", "index", "name", "object", "format", "mime_type", "tool_call_id"}
)
_PIECES = ("text", "thinking")


class _Growing(list[str]):
    """A string that is being continued: joined once, at the end."""


def merge(kept: dict[str, Any], delta: dict[str, Any]) -> None:
    """Continues `kept` with the content of `delta`; `joined` returns the result."""
    for key, value in delta.items():
        kind = type(value)
        if value is None:
            continue
        if kind is str and key not in IDENTIFYING:
            _continue_text(kept, key, value)
        elif kind is dict:
            merge(_held(kept, key, dict), value)
        elif kind is list:
            _continue_list(_held(kept, key, list), value)
        elif value != "" or key not in kept:
            kept[key] = value


def joined(value: Any) -> Any:
    """Returns the value with its continued strings joined."""
    kind = type(value)
    if kind is _Growing:
        return "".join(value)
    if kind is dict:
        return {key: joined(inner) for key, inner in value.items()}
    if kind is list:
        return [joined(inner) for inner in value]
    return value


def _continue_text(kept: dict[str, Any], key: str, text: str) -> None:
    held = kept.get(key)
    if type(held) is _Growing:
        held.append(text)
    elif type(held) is list:  # a list of parts stays a list
        if text:
            _continue_list(held, [{"type": "text", "text": text}])
    else:
        kept[key] = _Growing([text])


def _held(kept: dict[str, Any], key: str, kind: type[dict[str, Any]] | type[list[Any]]) -> Any:
    """Returns the object or list that is being continued; a text that becomes a list of parts is its first
    part."""
    held = kept.get(key)
    if type(held) is kind:
        return held
    fresh: Any = (
        [{"type": "text", "text": held}] if type(held) is _Growing and kind is list and any(held) else kind()
    )
    kept[key] = fresh
    return fresh


def _continue_list(kept: list[Any], entries: list[Any]) -> None:
    for entry in entries:
        if type(entry) is not dict:
            kept.append(entry)
            continue
        held = _continued(kept, entry)
        if held is None:
            held = {}
            kept.append(held)
        merge(held, entry)


def _continued(kept: list[Any], entry: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the entry that this one continues: the last with its index, unless this one is clearly another
    tool call.
    """
    index = entry.get("index")
    if type(index) is not int:
        last = kept[-1] if kept else None
        goes_on = type(last) is dict and entry.get("type") in _PIECES and last.get("type") == entry["type"]
        return last if goes_on else None
    for held in reversed(kept):
        if type(held) is dict and held.get("index") == index:
            function = entry.get("function")
            named = type(function) is dict and function.get("name")
            another = named and entry.get("id") and held.get("id") and entry["id"] != held["id"]
            return None if another else held
    return None
