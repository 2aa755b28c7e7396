"""Forwards the upstream's own chunks, and its own whole answers, to callers of its dialect.

Chunks are forwarded unchanged, each as a server-sent event or as an element of a list. Other events of the
decoder (sources, the end) are already in them. If an attempt yields events without chunks, they are written
as for any other upstream. `modelVersion` is the alias if the model's name is hidden.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.gemini.answer import Events, JsonListEvents, Whole
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Verbatim
from sluice.wire.jsonedit import with_string
from sluice.wire.lenient import encoded, parse_again

_DATA = b"data: "
_END = b"\r\n\r\n"
_KEY = b'"modelVersion"'
Value = dict[str, Any]


class PassedOn:
    """A stream of the upstream's chunks. `own` writes events without chunks; `begun`: a chunk has been
    written."""

    __slots__ = ("_lists", "_name", "_own", "_translates", "begun", "content_type", "continues")

    def __init__(self, answer: Answer, own: Events, *, continues: bool = True) -> None:
        self.content_type = own.content_type
        self.continues = continues
        self.begun = False
        self._own = own
        self._lists = isinstance(own, JsonListEvents)
        self._name = b"" if answer.reveal else msgspec.json.encode(answer.model)
        self._translates = False

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        if len(events) == 2:  # most reads
            text, passed = events
            if type(text) is TextDelta and type(passed) is Verbatim:
                return self._chunks(passed.data)
        data = b"".join([event.data for event in events if type(event) is Verbatim])
        if not data and (self._translates or not self.begun):
            self._translates = self.begun = True
            return self._own.encode(events)
        out = self._chunks(data) if data else b""
        return out + self._own.end() if any([type(event) is Finished for event in events]) else out

    def fail(self, error: GatewayError) -> bytes:
        return self._own.fail(error)

    def resume(self, started: Started) -> None:
        self._own.resume(started)

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return self._own.heartbeat()

    def _chunks(self, data: bytes) -> bytes:
        self.begun = True
        hides = self._name and _KEY in data
        if not (self._lists or hides):
            return data
        chunks = [chunk.removeprefix(_DATA) for chunk in data.split(_END) if chunk]
        return b"".join([self._own.frame(renamed(chunk, self._name) if hides else chunk) for chunk in chunks])


class WholePassedOn:
    """The upstream's own answer, or one built from its chunks. `own` writes events that come with neither."""

    __slots__ = ("_chunks", "_name", "_own")

    content_type = Whole.content_type

    def __init__(self, answer: Answer, own: Whole) -> None:
        self._own = own
        self._name = b"" if answer.reveal else msgspec.json.encode(answer.model)
        self._chunks: list[bytes] = []

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        document = b""
        for event in events:
            if type(event) is Verbatim and event.whole:
                document = event.data
            elif type(event) is Verbatim:
                self._chunks += [chunk.removeprefix(_DATA) for chunk in event.data.split(_END) if chunk]
        if not document and self._chunks and any([type(event) is Finished for event in events]):
            document = encoded(joined([parse_again(chunk) for chunk in self._chunks]))
        if not document:
            return b"" if self._chunks else self._own.encode(events)
        return renamed(document, self._name) if self._name and _KEY in document else document

    def fail(self, error: GatewayError) -> bytes:
        return self._own.fail(error)

    def resume(self, started: Started) -> None:
        """Does nothing: nothing is written before the end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""


def renamed(chunk: bytes, name: bytes) -> bytes:
    """Returns the response with this name (JSON) as its `modelVersion`, if it has one."""
    edited = with_string(chunk, _KEY, name)
    if edited is not None:
        return edited
    value = parse_again(chunk)
    if type(value) is not dict or "modelVersion" not in value:
        return chunk
    return encoded({**value, "modelVersion": msgspec.json.decode(name)})


def joined(chunks: Sequence[Any]) -> Value:
    """Joins the chunks of a stream into one response: parts in order with neighbouring texts of one kind
    joined, and the last value of every other field.
    """
    whole: Value = {}
    candidates: dict[Any, Value] = {}
    for chunk in chunks:
        if type(chunk) is not dict:
            continue
        whole |= {name: value for name, value in chunk.items() if value is not None}
        for candidate in chunk.get("candidates") or ():
            if type(candidate) is dict:
                _add(candidates.setdefault(candidate.get("index") or 0, {}), candidate)
    for held in candidates.values():
        if content := held.get("content"):
            content["parts"] = [_finished(part) for part in content["parts"]]
    return {**whole, "candidates": [*candidates.values()]} if candidates else whole


class _Text(msgspec.Struct):
    """A part whose text is still growing: adding to a str would copy the whole text with each piece."""

    part: Value
    pieces: list[str]


def _add(held: Value, candidate: Mapping[str, Any]) -> None:
    content = candidate.get("content")
    given = content.get("parts") if type(content) is dict else None
    parts = (held.get("content") or {}).get("parts") or []
    for part in given if type(given) is list else ():
        last = parts[-1] if parts else None
        if not _is_text(part):
            parts.append(part)
        elif type(last) is _Text and last.part.get("thought") == part.get("thought"):
            last.pieces.append(part["text"])
        else:
            parts.append(_Text(part, [part["text"]]))
    held |= {name: value for name, value in candidate.items() if name != "content" and value is not None}
    if parts:
        held["content"] = {"role": "model", **(content if type(content) is dict else {}), "parts": parts}


def _finished(part: Any) -> Any:
    return {**part.part, "text": "".join(part.pieces)} if type(part) is _Text else part


def _is_text(part: Any) -> bool:
    return type(part) is dict and type(part.get("text")) is str and part.keys() <= {"text", "thought"}
