"""Matches tool results to their calls, in dialects whose results may name only the tool, or nothing."""

from collections.abc import Sequence

from sluice.model.chat import ToolCall


class OpenCalls:
    """The calls of the latest message with calls that have no result yet."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []

    def begin(self, calls: Sequence[ToolCall]) -> None:
        self._calls = [*calls]

    def answered(self, id: str | None, name: str | None) -> str:
        """Returns the id of the call that a result belongs to: by its id, else the first of its tool, else
        the first of all.
        """
        found = [call for call in self._calls if call.id == id] if id else []
        found = (
            found
            or [call for call in self._calls if call.name == name]
            or ([] if name or id else self._calls[:1])
        )
        if not found:
            return id or name or "call"
        self._calls.remove(found[0])
        return found[0].id
