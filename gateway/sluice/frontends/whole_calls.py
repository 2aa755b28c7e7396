"""Assembles tool calls, for dialects that write a call once, whole, with its arguments as a JSON object."""

from typing import Any

import msgspec

from sluice.model.events import ToolCallDelta, ToolCallStarted
from sluice.wire.call_ids import new_call_id


class WholeCall(msgspec.Struct, frozen=True):
    """`arguments` is a JSON object in one line. `number` counts the calls that were written, from 0."""

    number: int
    id: str
    name: str
    arguments: msgspec.Raw
    signature: str


class WholeCalls:
    """The calls of one answer in their order, without tools that the provider ran itself: a client would run
    them."""

    __slots__ = ("_open", "returned", "unreadable")

    def __init__(self) -> None:
        self._open: dict[int, tuple[ToolCallStarted, list[str]]] = {}
        self.returned = 0
        self.unreadable = False

    def take(self, event: ToolCallStarted | ToolCallDelta) -> list[WholeCall]:
        """Returns the calls that are known to be complete: another one has begun, and their arguments are an
        object."""
        if isinstance(event, ToolCallDelta):
            if event.index in self._open:
                self._open[event.index][1].append(event.arguments)
            return []
        if event.kind != "function":
            return []
        complete = self._complete(last=False)
        self._open[event.index] = (event, [])
        return complete

    def rest(self) -> list[WholeCall]:
        """Returns the remaining calls, at the end of the answer. `unreadable` is then whether a call is left
        out, because its arguments are not a JSON object.
        """
        return self._complete(last=True) if self._open else []

    def _complete(self, *, last: bool) -> list[WholeCall]:
        found = []
        for index, (event, pieces) in list(self._open.items()):
            text = "".join(pieces).strip()
            arguments = _object(text or "{}") if text or last else None
            if arguments is None and not last:
                break  # those after it wait: providers may send the pieces of several calls by turns
            del self._open[index]
            if arguments is None:
                self.unreadable = True
                continue
            found.append(
                WholeCall(self.returned, event.id or new_call_id(), event.name, arguments, event.signature)
            )
            self.returned += 1
        return found


def _object(text: str) -> msgspec.Raw | None:
    """Returns the text of a JSON object in one line (it has line ends only between values); None for anything
    else."""
    try:
        msgspec.json.decode(text, type=dict[str, Any])
        return msgspec.Raw(text.replace("\r", " ").replace("\n", " ").encode())
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
