"""Tags that callers give a call, by which usage is counted, such as a project or a feature.

Values come from callers, so for each tag the number of values that are counted separately is bounded per day;
further ones are counted under OTHER.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from sluice.config.types import Tag
from sluice.model.chat import ChatRequest
from sluice.wire.fields import as_text

MAX_VALUE_LENGTH = 64
"""Maximum characters of a value; a longer one is counted under OTHER."""
OTHER = "other"

Apart = Callable[[str, str, int], str]
"""Returns the value that a call with this tag and value is counted under, if at most this many are counted
separately."""


class Tags:
    """Reads the tags of calls. `apart` bounds the number of values."""

    def __init__(self, tags: Mapping[str, Tag], apart: Apart) -> None:
        self._apart = apart
        self._tags = [(name, tag, frozenset(tag.values)) for name, tag in tags.items()]

    def of(self, chat: ChatRequest, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        """Returns each tag with the value that the call is counted under; "" if the call has none."""
        return [
            (name, self._value(name, tag, allowed, _given(tag, chat, headers)))
            for name, tag, allowed in self._tags
        ]

    def _value(self, name: str, tag: Tag, allowed: frozenset[str], given: str) -> str:
        if not given:
            return ""
        if allowed:
            return given if given in allowed else OTHER
        return (
            self._apart(name, given, tag.most)
            if len(given) <= MAX_VALUE_LENGTH and given.isprintable()
            else OTHER
        )


def _given(tag: Tag, chat: ChatRequest, headers: Mapping[str, str]) -> str:
    """The header decides if it is sent; otherwise the request's metadata does."""
    value = as_text(headers.get(tag.header.lower(), "")).strip() if tag.header is not None else ""
    return value or (metadata_of(chat, tag.metadata) if tag.metadata is not None else "")


def metadata_of(chat: ChatRequest, name: str) -> str:
    """Returns a field of the request's `metadata` if it is a text or a whole number; else ""."""
    metadata: Any = chat.wire.get("metadata") if chat.wire is not None else None
    value = metadata.get(name) if isinstance(metadata, dict) else None
    if type(value) is int:
        return str(value) if abs(value) < 10**MAX_VALUE_LENGTH else OTHER
    return value.strip() if isinstance(value, str) else ""


class Values(msgspec.Struct):
    """The values of each tag that are counted separately on a day."""

    day: str = ""
    known: dict[str, set[str]] = {}

    def apart(self, day: str, name: str, value: str, most: int) -> str:
        """Returns this value, or OTHER if `most` other values are counted separately already."""
        if day != self.day:
            self.day, self.known = day, {}
        known = self.known.setdefault(name, set())
        if value in known:
            return value
        if len(known) >= most:
            return OTHER
        known.add(value)
        return value
