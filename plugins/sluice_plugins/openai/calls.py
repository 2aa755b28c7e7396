"""Assembles the tool calls of one choice of a Chat Completions stream: finds the call that each delta belongs
to.

By the standard each call has an index; its first delta has an id and the full name, the others have pieces of
its arguments. Vendors deviate from that in many ways. The rules:

    a new index             a new call, whatever its id is (older vLLM invents an id for every delta). But a delta with
                            neither id nor name belongs to the last call while its arguments are incomplete
                            (vLLM, where one speculative step of several tokens spans two calls)
    the same index          a new call begins with a new id and a name; with a name alone if the arguments so far are
                            complete; and with arguments that start over after complete ones (it gets the last
                            call's name)
    no index                the call with this id, else the last call, until a new id or name comes
    a name in pieces        the pieces are joined until the first piece of arguments; only then is the call's event sent

A repeated name is the same name, and special tokens in a name are removed ("f<|channel|>commentary",
gpt-oss). An id that another call of this answer or conversation has is ignored.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from sluice.errors import UpstreamGarbled
from sluice.model.events import StreamEvent, ToolCallDelta, ToolCallStarted
from sluice.wire.lenient import encoded
from sluice_plugins.openai.chunk import Function, ToolCallPart

MAX_CALLS = 256
"""Most tool calls of one answer."""

_NO_FUNCTION = Function()
_AMBIGUOUS = frozenset(["", "{", "n", " ", "\t", "\r", "\n"])
"""First characters of arguments that may begin another call, or mean no arguments (`null`)."""
_OUTSIDE = re.compile(r'[{}\[\]"]')
_INSIDE = re.compile(r'["\\]')


class Arguments:
    """A JSON text received in pieces. It is scanned only when the property `complete` is read."""

    __slots__ = ("_begun", "_depth", "_inside", "_pieces", "_skip", "any")

    def __init__(self) -> None:
        self.any = False
        self._begun = False  # an object or an array has begun
        self._pieces: list[str] = []
        self._depth = 0
        self._inside = False  # within a string
        self._skip = False  # the next character is escaped

    def add(self, piece: str) -> None:
        self.any = True
        self._pieces.append(piece)

    @property
    def complete(self) -> bool:
        """Whether an object or an array has begun and all brackets are closed."""
        for piece in self._pieces:
            self._scan(piece)
        self._pieces.clear()
        return self._begun and self._depth == 0 and not self._inside

    def _scan(self, piece: str) -> None:
        at = int(self._skip)
        self._skip = False
        while found := (_INSIDE if self._inside else _OUTSIDE).search(piece, at):
            at = found.end()
            mark = found[0]
            if mark == "\\":
                self._skip = at == len(piece)
                at += 1
            elif mark == '"':
                self._inside = not self._inside
            else:
                self._begun = True
                self._depth += 1 if mark in "{[" else -1


class ReceivedCall:
    """One call being received. `started`: its ToolCallStarted was sent; `empty`: its arguments were an empty
    array or object; `worded`: they came as a string, perhaps an empty one. `place`: its position in a whole
    answer. `given` is the vendor's id, even if another call has the same."""

    __slots__ = ("arguments", "empty", "given", "id", "index", "name", "place", "started", "worded")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.given = ""
        self.name = ""
        self.place = index
        self.arguments = Arguments()
        self.started = False
        self.empty = False
        self.worded = False

    def is_named(self, id: str | None) -> bool:
        return bool(id) and id in (self.id, self.given)

    def is_another(self, delta: ToolCallPart, name: str, arguments: str, *, empty: bool) -> bool:
        """Returns whether this delta begins another call, though it has the same index or none."""
        same_id = self.is_named(delta.id)
        new_id = bool(delta.id) and bool(self.id or self.given) and not same_id
        begins_anew = empty or arguments.lstrip()[:1] == "{"
        if begins_anew and (
            self.arguments.complete or (self.empty and not self.arguments.any and name and not same_id)
        ):
            return True
        if not name or same_id or not self.name:
            return new_id and delta.index is None
        if delta.id:
            return self.started or new_id
        if self.arguments.any or self.empty:
            return name != self.name
        return name != self.name and (delta.index is None or bool(delta.type))


class NormalizedDelta(msgspec.Struct, frozen=True, gc=False):
    """A delta of a tool call in the standard's form: `id`, `name` and `arguments` are "" if it has none.

    `joined`: the name so far, if the delta continued the name of a call whose event was not sent yet.
    """

    call: "ReceivedCall"
    id: str = ""
    name: str = ""
    arguments: str = ""
    joined: str = ""


class ReceivedCalls:
    """The calls of one choice. `made` are all of them, by their index.

    `new_id` makes the id of a call for which the vendor sends none; without `new_id` such a call has no id.
    `taken` are ids of the conversation's other calls. `naming` is the call whose name the next delta may
    continue: its event was not sent yet.
    """

    __slots__ = ("_by_index", "_ids", "_latest", "_new_id", "made", "naming")

    def __init__(self, new_id: Callable[[], str] | None = None, taken: frozenset[str] = frozenset()) -> None:
        self._by_index: dict[int, ReceivedCall] = {}
        self._latest: ReceivedCall | None = None
        self._ids: set[str] = set(taken)
        self._new_id = new_id
        self.made: list[ReceivedCall] = []
        self.naming: ReceivedCall | None = None

    def goes_on(self, delta: ToolCallPart, events: list[StreamEvent]) -> bool:
        """Fast path: returns whether the delta is the next piece of a call's arguments in the standard's
        form, and if so appends its event."""
        call, function = self._by_index.get(delta.index), delta.function  # type: ignore[arg-type]
        if call is None or function is None or function.name or delta.id:
            return False
        arguments = function.arguments
        if type(arguments) is not str or arguments[:1] in _AMBIGUOUS or self.naming is not None:
            return False
        if not call.started or call.index != delta.index:
            return False
        self._latest = call
        call.arguments.add(arguments)
        events.append(ToolCallDelta(call.index, arguments))
        return True

    def take(self, delta: ToolCallPart, events: list[StreamEvent]) -> NormalizedDelta:
        """Append the delta's events. Raises UpstreamGarbled for more than MAX_CALLS calls."""
        function = delta.function or _NO_FUNCTION
        name = function.name or ""
        if "<|" in name:
            name = name.partition("<|")[0] or name
        if delta.index is None:
            call = self._of_id(delta.id) or self._latest
        else:
            call = self._by_index.get(delta.index) or self._unnumbered(delta, name)
        arguments, empty = _text(function.arguments, first=call is None or not call.arguments.any)
        if call is None:
            call = self._new_call(delta.index)
        elif call.is_another(delta, name, arguments, empty=empty):
            name = name or call.name if arguments else name
            call = self._new_call(delta.index)
        self._latest = call
        if self.naming is not None and self.naming is not call:
            self.announce(events)
        id_ = named = joined = ""
        if not call.started:
            id_ = self._identify(call, delta.id or "", wanted=bool(name or arguments or empty))
            if name and call.name:
                if name != call.name:
                    joined = call.name = call.name + name
            elif name:
                call.name = named = name
            self.naming = call if call.name else None
            if arguments or empty:
                self.announce(events, call)
        call.empty = call.empty or empty
        call.worded = call.worded or type(function.arguments) is str
        if arguments:
            call.arguments.add(arguments)
            events.append(ToolCallDelta(call.index, arguments))
        return NormalizedDelta(call, id_, named, arguments, joined)

    def announce(self, events: list[StreamEvent], call: ReceivedCall | None = None) -> None:
        """Append ToolCallStarted for `call` (else for the call whose name is complete now), unless it was
        sent."""
        call = call or self.naming
        self.naming = None
        if call is not None and not call.started:
            call.started = True
            events.append(ToolCallStarted(call.index, call.id, call.name))

    def without_arguments(self) -> list[ReceivedCall]:
        """Returns the calls whose arguments were null or an empty array or object until the end, which means
        `{}`."""
        return [
            call
            for call in self.made
            if call.started and not call.arguments.any and (call.empty or not call.worded)
        ]

    def _identify(self, call: ReceivedCall, given: str, *, wanted: bool) -> str:
        """Set the call's id once: the vendor's, or a generated one. Returns the id if it was set by this
        call, else ""."""
        if call.id:
            return ""
        call.given = call.given or given
        if given and given not in self._ids:
            call.id = given
        elif wanted and self._new_id is not None:
            call.id = self._new_id()
        self._ids.add(call.id)
        return call.id

    def _of_id(self, given: str | None) -> ReceivedCall | None:
        """Returns the last call with this id, if any."""
        if not given or given not in self._ids:
            return None
        return next((call for call in reversed(self.made) if call.is_named(given)), None)

    def _unnumbered(self, delta: ToolCallPart, name: str) -> ReceivedCall | None:
        """Returns the last call if it began without an index and this delta gives it one, or if the delta
        cannot belong to another call."""
        call = self._latest
        if delta.index is None or call is None or name or (delta.id and not call.is_named(delta.id)):
            return None
        if call in self._by_index.values() and (delta.id or not call.name or call.arguments.complete):
            return None
        self._by_index[delta.index] = call
        return call

    def _new_call(self, index: int | None) -> ReceivedCall:
        if len(self.made) >= MAX_CALLS:
            raise UpstreamGarbled(f"The upstream made more than {MAX_CALLS} tool calls")
        call = ReceivedCall(len(self.made))
        self.made.append(call)
        if index is not None:
            self._by_index[index] = call
        return call


def _text(given: Any, *, first: bool) -> tuple[str, bool]:
    """Returns the text of arguments of any type, and whether they are an empty array or object. (PHP servers
    write `{}` as `[]`, and a proxy may send the arguments' text after that.)"""
    kind = type(given)
    if kind is str:
        return ("", True) if first and given == "null" else (given, False)
    if kind is not dict and kind is not list:
        return "", False
    return (encoded(given).decode(), False) if given else ("", True)
