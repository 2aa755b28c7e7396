"""Forwards the upstream's own lines, and its own whole answers, to callers of its dialect.

Lines are forwarded unchanged, except that `model` is the alias if the model's name is hidden. If an attempt
yields events without lines, or lines of another endpoint than the caller's (a request to /api/generate that
was rewritten as a chat), they are written as for any other upstream.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.ollama.answer import OllamaLines, Whole
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Verbatim
from sluice.wire.jsonedit import with_string
from sluice.wire.lenient import encoded, parse_again

Value = dict[str, Any]
_NAMES = ("model", "remote_model")
"""Members that name an answer's model; `remote_model` is that of an Ollama which asks another one."""
_KEYS = tuple([b'"%b"' % name.encode() for name in _NAMES])
_JOINED = ("content", "thinking", "response")


class PassedOn:
    """A stream of the upstream's lines. `own` writes events that come without lines. `first`: when the first
    line came."""

    __slots__ = ("_answer", "_generates", "_name", "_own", "_passes", "first")

    content_type = OllamaLines.content_type

    def __init__(self, answer: Answer, own: OllamaLines, *, generates: bool) -> None:
        self.first = 0.0
        self._answer = answer
        self._own = own
        self._generates = generates
        self._name = b"" if answer.reveal else msgspec.json.encode(answer.model)
        self._passes: bool | None = None  # lines are passed on; None: nothing has come yet

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        if len(events) == 2 and self._passes:  # most reads
            text, passed = events
            if type(text) is TextDelta and type(passed) is Verbatim:
                return passed.data if not self._name else self._renamed(passed.data)
        data = b"".join([event.data for event in events if type(event) is Verbatim])
        if self._passes is None:
            self.first = self._answer.clock()
            self._passes = bool(data) and is_of(data, generates=self._generates)
        if not self._passes:
            return self._own.encode([event for event in events if type(event) is not Verbatim])
        return data if not self._name else self._renamed(data)

    def fail(self, error: GatewayError) -> bytes:
        return self._own.fail(error)

    def resume(self, started: Started) -> None:
        self._own.resume(started)

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return self._own.heartbeat()

    def _renamed(self, data: bytes) -> bytes:
        return b"".join([renamed(line, self._name) + b"\n" for line in data.split(b"\n") if line])


class WholePassedOn:
    """The upstream's own answer, or one made from its lines. `own` writes events that come with neither."""

    __slots__ = ("_generates", "_lines", "_name", "_own")

    content_type = Whole.content_type

    def __init__(self, answer: Answer, own: Whole, *, generates: bool) -> None:
        self._own = own
        self._generates = generates
        self._name = b"" if answer.reveal else msgspec.json.encode(answer.model)
        self._lines: list[bytes] = []

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        """Collects both forms until the end, because an answer in lines may turn out to be another
        endpoint's."""
        document = b""
        for event in events:
            if type(event) is Verbatim and event.whole:
                document = event.data
            elif type(event) is Verbatim:
                self._lines += [line for line in event.data.split(b"\n") if line]
        own = self._own.encode([event for event in events if type(event) is not Verbatim])
        if not any([type(event) is Finished for event in events]):
            return own
        if not document and self._lines:
            document = encoded(joined([parse_again(line) for line in self._lines]))
        if not document or not is_of(document, generates=self._generates):
            return own
        return renamed(document, self._name) if self._name else document

    def fail(self, error: GatewayError) -> bytes:
        return self._own.fail(error)

    def resume(self, started: Started) -> None:
        """Does nothing: nothing is written before the end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""


def is_of(lines: bytes, *, generates: bool) -> bool:
    """Returns whether an answer that begins with these lines is of /api/generate instead of /api/chat."""
    value = parse_again(lines.partition(b"\n")[0] if lines.endswith(b"\n") else lines)
    return type(value) is dict and (("response" in value and "message" not in value) is generates)


def renamed(line: bytes, name: bytes) -> bytes:
    """Returns the answer with this name (JSON) as its model's."""
    for key in _KEYS:
        if key in line:
            edited = with_string(line, key, name)
            if edited is None:
                value = parse_again(line)
                shown = msgspec.json.decode(name)
                return encoded({**value, **{member: shown for member in _NAMES if member in value}})
            line = edited
    return line


def joined(lines: Sequence[Any]) -> Value:
    """Joins the lines of a stream into one answer: texts in order, all calls and log probabilities, and the
    last value of every other field."""
    whole: Value = {}
    for line in lines:
        if type(line) is dict:
            _add(whole, line)
    return _finished(whole)


class _Pieces(list[str]):
    """A text that is still growing: `+=` would copy the whole text with each piece."""


def _add(held: Value, value: Mapping[str, Any]) -> None:
    """Adds a line to the collected answer, which owns its lists and mappings."""
    for name, given in value.items():
        before = held.get(name)
        match given:
            case dict():
                inner = held[name] = before if type(before) is dict else {}
                _add(inner, given)
            case str() if name in _JOINED and type(before) is _Pieces:
                before.append(given)
            case str() if name in _JOINED:
                held[name] = _Pieces([given])
            case list() if type(before) is list:
                before += given
            case list():
                held[name] = [*given]
            case None:
                pass
            case _:
                held[name] = given


def _finished(held: Value) -> Value:
    for name, value in held.items():
        if type(value) is dict:
            _finished(value)
        elif type(value) is _Pieces:
            held[name] = "".join(value)
    return held
