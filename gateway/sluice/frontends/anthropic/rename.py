"""Replaces the model's name in the upstream's own frames and messages (`report_model: alias`), and changes
nothing else.

A model is named in message_start, in blocks of type `fallback` (the model that answered first, and the one
that answers now) and in the usage of single steps (`iterations`).
"""

from typing import Any

import msgspec

from sluice.wire.lenient import encoded, value_again
from sluice.wire.sse import END

_encode = msgspec.json.Encoder().encode
_KEY = b'"model"'
_DATA = b"\ndata: "
_PLACES = ("message", "content_block", "from", "to", "usage", "iterations", "content")
"""Members that lead to where a model may be named; texts, inputs of tools and their results are not among
them."""


class Renaming:
    """`name` replaces the model's name. If no model is named, none is added."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def frames(self, data: bytes) -> bytes:
        """Complete frames, each of one `event:` and one `data:` line."""
        if _KEY not in data:
            return data
        return END.join([self._frame(frame) for frame in data.split(END)])

    def document(self, data: bytes) -> bytes:
        """Renames one JSON object. Anything else is returned unchanged."""
        value = value_again(data)
        if not self._rename(value):
            return data
        return encoded(value)

    def _frame(self, frame: bytes) -> bytes:
        if _KEY not in frame:
            return frame
        event, mark, payload = frame.partition(_DATA)
        return b"%b%b%b" % (event, mark, self.document(payload))

    def _rename(self, value: Any) -> bool:
        """Renames the model in the object. Returns whether any name was replaced."""
        if type(value) is list:
            return any([self._rename(inner) for inner in value])
        if type(value) is not dict or value.get("type") in ("text", "tool_use", "tool_result"):
            return False
        found = type(value.get("model")) is str
        if found:
            value["model"] = self._name
        return any([self._rename(value[name]) for name in _PLACES if name in value]) or found
