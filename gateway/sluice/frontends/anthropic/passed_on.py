"""Forwards the upstream's own frames, and its own whole messages, to callers of its dialect.

Missing parts of an answer are added: a message_start, and at the end a stop reason and message_stop. If an
attempt yields events without frames (a whole message instead of a stream), they are written as a stream. The
position in the stream is tracked, so that another attempt can continue it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.frontends import Answer
from sluice.frontends.anthropic.blocks import STOP, Blocks, Position, Stream, frame
from sluice.frontends.anthropic.message import stop_of, usage_object
from sluice.frontends.anthropic.rename import Renaming
from sluice.frontends.anthropic.whole import Message, Whole, input_of
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice.wire.lenient import encoded, value_again
from sluice.wire.sse import END

Value = dict[str, Any]
_BLOCK = b"event: content_block_st"
_STARTED, _STOPPED = _BLOCK + b"art\ndata: ", _BLOCK + b"op\n"
_FIRST, _LAST = b"event: message_start\n", b"event: message_stop"
_LINE_END = 10


class _Block(msgspec.Struct, gc=False):
    type: str = "text"


class _Begun(msgspec.Struct, gc=False):
    """The start of a content block."""

    content_block: _Block


_decode = msgspec.json.Decoder(_Begun).decode


class PassedOn(Stream):
    """A stream of the upstream's frames."""

    __slots__ = ("_at", "_blocks", "_chat", "_renaming", "_started")

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        super().__init__(answer)
        self._chat = chat
        self._at = Position()
        self._started = False
        self._blocks: Blocks | None = None
        self._renaming = None if answer.reveal else Renaming(answer.model)

    @property
    def position(self) -> Position:
        return self._at if self._blocks is None else self._blocks.position

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        if len(events) == 2:  # most reads
            text, passed = events
            if (
                type(text) is TextDelta
                and type(passed) is Verbatim
                and passed.data.find(_BLOCK) < 0
                and self._started
            ):
                return passed.data
        data = b"".join([event.data for event in events if type(event) is Verbatim])
        if not data:
            return self._own(events)
        self._follow(data)
        if self._renaming is not None:
            data = self._renaming.frames(data)
        if not self._started:
            self._started = True
            if data.find(_FIRST) < 0:
                data = self._blocks_of().encode([Started()]) + data
        ends = [event for event in events if type(event) is Finished]
        return data + self._closing_frames(ends[0]) if ends and data.find(_LAST) < 0 else data

    def _own(self, events: Sequence[StreamEvent]) -> bytes:
        """Events without frames."""
        fields = [event for event in events if not (type(event) is Started and self._started)]
        self._started = True
        if len(fields) == 1 and type(fields[0]) is Finished and self._blocks is None:
            return self._closing_frames(fields[0])
        self._blocks = self._blocks_of()
        return self._blocks.encode(fields)

    def _blocks_of(self) -> Blocks:
        if self._blocks is not None:
            return self._blocks
        blocks = Blocks(self._chat, self._answer)
        if self._started:
            blocks.go_on_from(self)
        return blocks

    def _closing_frames(self, finished: Finished) -> bytes:
        """The end of an answer whose frames lack it."""
        out = b"" if not self._at.open else frame("content_block_stop", index=self._at.index)
        if not finished.native:
            out += frame(
                "message_delta", delta=stop_of(finished), usage=usage_object(finished.usage or Usage())
            )
        return out + STOP

    def _follow(self, data: bytes) -> None:
        at = data.find(_BLOCK)
        while at >= 0:
            end = data.find(END, at)
            if at == 0 or data[at - 1] == _LINE_END:  # and not within a text
                if data.startswith(_STOPPED, at):
                    self._at = Position(self._at.index)
                elif data.startswith(_STARTED, at):
                    self._at = Position(self._at.index + 1, _kind_of(data[at + len(_STARTED) : end]))
            at = data.find(_BLOCK, end)


def _kind_of(payload: bytes) -> str:
    """The type of the block that this frame begins."""
    try:
        return _decode(payload).content_block.type
    except msgspec.DecodeError:
        return "text"


class WholePassedOn(Message):
    """The upstream's own message, or one made from its frames."""

    __slots__ = ("_blocks", "_inputs", "_message", "_renaming", "_whole")

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        super().__init__(answer)
        self._renaming = None if answer.reveal else Renaming(answer.model)
        self._whole = Whole(chat, answer)  # of events without frames
        self._message: Value | None = None
        self._blocks: list[Value] = []
        self._inputs: dict[int, list[str]] = {}

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        last = events[-1]
        if type(last) is Verbatim and last.whole:
            return last.data if self._renaming is None else self._renaming.document(last.data)
        for event in events:
            if type(event) is Verbatim:
                for passed in event.data.split(END):
                    self._take(_object(passed.partition(b"\ndata: ")[2]))
        if self._message is None:
            return self._whole.encode(events)
        finished = next((event for event in events if type(event) is Finished), None)
        return b"" if finished is None else self._completed(finished)

    def _take(self, event: Value) -> None:
        match event:
            case {"type": "message_start", "message": dict(message)}:
                self._message = message
            case {"type": "content_block_start", "content_block": dict(block)}:
                self._blocks.append(block)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)} if (
                0 <= index < len(self._blocks)
            ):
                self._continue(index, self._blocks[index], delta)
            case {"type": "message_delta", "delta": dict(delta)} if self._message is not None:
                self._message.update(delta)
                more = {
                    name: value for name, value in event.items() if name not in ("type", "delta", "usage")
                }
                self._message.update(more)
                if type(usage := event.get("usage")) is dict:
                    reported = {name: value for name, value in usage.items() if value is not None}
                    self._message["usage"] = {**(self._message.get("usage") or {}), **reported}

    def _continue(self, index: int, block: Value, delta: Value) -> None:
        match delta:
            case {"type": "input_json_delta", "partial_json": str(piece)}:
                self._inputs.setdefault(index, []).append(piece)
            case {"type": "citations_delta", "citation": citation}:
                block["citations"] = [*(block.get("citations") or ()), citation]
            case {"type": "signature_delta", "signature": signature}:
                block["signature"] = signature
            case _:
                for name, value in delta.items():
                    if name != "type":
                        held = block.get(name)
                        block[name] = (
                            held + value if isinstance(held, str) and isinstance(value, str) else value
                        )

    def _completed(self, finished: Finished) -> bytes:
        for index, pieces in self._inputs.items():
            if "".join(pieces):
                self._blocks[index]["input"] = input_of("".join(pieces))
        message = {**(self._message or {}), "content": self._blocks}
        if not message.get("stop_reason"):
            message |= stop_of(finished)
        data = encoded(message)
        return data if self._renaming is None else self._renaming.document(data)


def _object(payload: bytes) -> Value:
    value = value_again(payload)
    return value if type(value) is dict else {}
