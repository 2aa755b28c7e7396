"""Forwards the upstream's own Responses, in frames or whole; under the alias's name if the model's name is
hidden.

An answer that breaks is ended in its own terms: with its id, and the next sequence number. Another model
cannot continue it, because its events would belong to another Response.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.openai.errors import error_object
from sluice.frontends.openai.rename import Renaming
from sluice.frontends.responses.response import failure
from sluice.frontends.responses.stream import Stream
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Verbatim
from sluice.wire.lenient import encoded, value_again
from sluice.wire.sse import END, EventStream

MAX_FRAMES = 64 << 20
"""Maximum bytes of frames that are parsed as one: more than any upstream may send in one event."""
_json = msgspec.json.Encoder().encode


class PassedOn:
    """A stream. The first and the last read of its frames are kept, to write an end that the upstream
    omits."""

    __slots__ = ("_answer", "_chat", "_first", "_last")

    content_type = "text/event-stream; charset=utf-8"
    continues: ClassVar[bool] = False

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        self._chat = chat
        self._answer = answer
        self._first = b""
        self._last = b""

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        if len(events) == 2:  # most reads
            text, frame = events
            if type(text) is TextDelta and type(frame) is Verbatim and self._first:
                self._last = frame.data
                return frame.data
        frames = b"".join([event.data for event in events if type(event) is Verbatim])
        if frames:
            self._first = self._first or frames
            self._last = frames
            if (
                (keep := self._chat.keep) is not None
                and keep.kept
                and any([type(event) is Finished for event in events])
            ):
                keep.response = _last_response(frames)
        return frames

    def fail(self, error: GatewayError) -> bytes:
        begun = next(
            (value["response"] for value in _values(self._first) if type(value.get("response")) is dict), None
        )
        if begun is None:
            return Stream(self._chat, self._answer).fail(error)
        numbers = [
            value["sequence_number"]
            for value in _values(self._last)
            if type(value.get("sequence_number")) is int
        ]
        number = numbers[-1] + 1 if numbers else 0
        detail = error_object(error)["error"]
        named = {name: detail[name] for name in ("code", "message", "param")}
        failed = {**begun, "status": "failed", "error": failure(error)}
        return _frame("error", number, {**named, "error": detail}) + _frame(
            "response.failed", number + 1, {"response": failed}
        )

    def resume(self, started: Started) -> None:
        """Does nothing: the answer is never continued."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b": keep-alive\n\n"


class Renamed(PassedOn):
    """Forwards a stream with the alias's name instead of the model's."""

    __slots__ = ()

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        return super().encode([self._renamed(event) for event in events])

    def _renamed(self, event: StreamEvent) -> StreamEvent:
        if type(event) is not Verbatim or b'"model"' not in event.data:
            return event
        return Verbatim(b"".join([self._frame(frame) for frame in event.data.split(END) if frame]))

    def _frame(self, frame: bytes) -> bytes:
        if b'"model"' not in frame:
            return frame + END
        event = EventStream(limit=MAX_FRAMES).event(frame)
        value = value_again(event.data) if event is not None else None
        if event is None or type(value) is not dict or type(value.get("response")) is not dict:
            return frame + END
        if "model" in value["response"]:
            value["response"]["model"] = self._answer.model
        name = b"" if event.event == "message" else b"event: %b\n" % event.event.encode()
        return b"%bdata: %b\n\n" % (name, encoded(value))


class PassedOnWhole:
    """Forwards a whole answer. If the upstream sent a stream instead, the Response at the stream's end is the
    answer.
    """

    content_type = "application/json"

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        self._chat = chat
        self._renaming = None if answer.reveal else Renaming(answer.model)

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        last = events[-1]
        if type(last) is not Verbatim or not (last.whole or any(type(event) is Finished for event in events)):
            return b""
        document = last.data if last.whole else encoded(_last_response(last.data))
        if self._renaming is not None:
            document = self._renaming.document(document)
        if (keep := self._chat.keep) is not None and keep.kept:
            keep.response = value_again(document)
        return document

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def resume(self, started: Started) -> None:
        """Does nothing: nothing of a whole answer is written before its end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""


def _last_response(frames: bytes) -> dict[str, Any]:
    found = [value["response"] for value in _values(frames) if type(value.get("response")) is dict]
    return found[-1] if found else {}


def _values(frames: bytes) -> list[dict[str, Any]]:
    events = EventStream(limit=MAX_FRAMES).feed(frames)
    return [value for event in events if type(value := value_again(event.data)) is dict]


def _frame(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    data = encoded({"type": kind, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)
