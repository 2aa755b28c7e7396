"""Events -> a stream of the Messages API: message_start, content blocks that open and close one after
another, message_delta, message_stop.

A block is open until another kind of content begins. Tool calls of other dialects may come side by side: a
call that begins before the arguments of the one before it are complete JSON waits until they are, or until
there is nothing more to come. Google's seal of a call is the signature of a thinking block before it
(`sluice.wire.seals`). Tools that a provider ran itself are not shown: their results are not known here. After
an error there is no message_stop.

Usage: in message_start the upstream's first count of the prompt, else an estimate; in message_delta the
final one.

Standard: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer, Encoder
from sluice.frontends.anthropic.errors import error_object
from sluice.frontends.anthropic.message import (
    UNREADABLE,
    citation_of,
    message_head,
    stop_of,
    usage_object,
)
from sluice.frontends.estimates import prompt_tokens
from sluice.model.chat import ChatRequest
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Working,
)
from sluice.wire.call_ids import new_call_id
from sluice.wire.seals import sealed_call
from sluice.wire.separators import without_separators

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_json = msgspec.json.Encoder().encode


def frame(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), without_separators(_json({"type": kind, **fields})))


class Stream:
    """The common part of the streams of forwarded frames and of frames made from events."""

    __slots__ = ("_answer",)

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def start(self) -> bytes:
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return b"event: error\ndata: %b\n\n" % without_separators(_json(error_object(error, self._answer.id)))

    def resume(self, started: Started) -> None:
        """Continues the message that has begun."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return PING


class Position(msgspec.Struct):
    """The position of a stream. `index`: that of the newest content block (-1: none). Its kind while it is
    open; "" if it is closed."""

    index: int = -1
    open: str = ""


class Blocks(Stream):
    """Writes a stream from events."""

    __slots__ = (
        "_at",
        "_call",
        "_characters",
        "_chat",
        "_held",
        "_model",
        "_prefix",
        "_refused",
        "_started",
        "_suffix",
        "_waiting",
        "_written",
    )

    def __init__(self, chat: ChatRequest, answer: Answer) -> None:
        super().__init__(answer)
        self._chat = chat
        self._at = Position()
        self._model = ""
        self._started = False
        self._refused = False
        self._characters = 0  # characters
        self._prefix = self._suffix = b""  # around a text
        self._call = -1  # the open block's call
        self._written: list[str] = []  # its arguments
        self._held = ""  # arguments that have arrived but are not yet an object
        self._waiting: dict[int, tuple[ToolCallStarted, list[str]]] = {}

    def go_on_from(self, other: Encoder) -> None:
        """Continues from another encoder's position in this stream: an attempt continues an answer whose
        frames were forwarded.
        """
        self._started = True
        position = getattr(other, "position", None)
        if isinstance(position, Position):
            self._at = position
            self._form()

    @property
    def position(self) -> Position:
        return self._at

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        frames: list[bytes] = []
        texts: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                if event.text:
                    texts.append(event.text)
                continue
            if texts:
                self._texts(texts, frames)
                texts = []
            self._take(event, frames)
        if texts:
            self._texts(texts, frames)
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def resume(self, started: Started) -> None:
        self._started = True

    # --- content

    def _texts(self, texts: list[str], frames: list[bytes]) -> None:
        if self._at.open != "text":
            self._enter("text", {"type": "text", "text": ""}, frames)
        self._characters += sum(map(len, texts))
        between = self._suffix + self._prefix
        frames.append(
            b"%b%b%b" % (self._prefix, without_separators(between.join(map(_json, texts))), self._suffix)
        )

    def _take(self, event: StreamEvent, frames: list[bytes]) -> None:
        match event:
            case Started():
                self._start(event, frames)
            case RefusalDelta(text=text):
                self._refused = True
                if text:
                    self._texts([text], frames)
            case ReasoningDelta(text=text) if text:
                self._characters += len(text)
                if self._at.open != "thinking":
                    self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""}, frames)
                frames.append(self._delta({"type": "thinking_delta", "thinking": text}))
            case ReasoningBlock():
                self._sealed(event, frames)
            case ToolCallStarted(kind="function"):
                self._begin_call(event, frames)
            case ToolCallDelta(index=index, arguments=arguments) if arguments:
                self._characters += len(arguments)
                self._continue_call(index, arguments, frames)
            case Cited() if self._at.open == "text":
                citation = citation_of(event.title, event.url, event.quote, event.start, event.end)
                frames.append(self._delta({"type": "citations_delta", "citation": citation}))
            case Working(model=model) if model:
                self._model = model
            case Finished():
                self._finish(event, frames)
            case _:
                pass

    def _start(self, started: Started, frames: list[bytes]) -> None:
        self._started = True
        usage = started.usage or Usage(prompt_tokens(self._chat))
        reported = {**usage_object(usage), "output_tokens": usage.output or 1}
        head = message_head(self._answer, started.id, self._model or started.model)
        message = {**head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": reported}
        frames.append(frame("message_start", message=message))

    def _enter(self, kind: str, block: dict[str, Any], frames: list[bytes]) -> None:
        """Opens a block. Closes the open one, and writes waiting calls first."""
        if not self._started:
            self._start(Started(), frames)
        self._leave(frames)
        self._open(kind, block, frames)

    def _open(self, kind: str, block: dict[str, Any], frames: list[bytes]) -> None:
        self._at = Position(self._at.index + 1, kind)
        frames.append(frame("content_block_start", index=self._at.index, content_block=block))
        self._form()

    def _form(self) -> None:
        probe = self._delta({"type": "text_delta", "text": ""})
        at = probe.rindex(b'""')
        self._prefix, self._suffix = probe[:at], probe[at + 2 :]

    def _leave(self, frames: list[bytes]) -> None:
        """Closes the open block, and writes the calls that waited."""
        self._close(frames)
        while self._waiting:
            self._next_call(frames)
            self._close(frames)

    def _close(self, frames: list[bytes]) -> None:
        if self._held.strip():
            frames.append(
                self._delta(
                    {"type": "input_json_delta", "partial_json": _json({UNREADABLE: self._held}).decode()}
                )
            )
        self._held = ""
        if self._at.open:
            frames.append(frame("content_block_stop", index=self._at.index))
            self._at = Position(self._at.index)
            self._call = -1

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return frame("content_block_delta", index=self._at.index, delta=delta)

    def _sealed(self, block: ReasoningBlock, frames: list[bytes]) -> None:
        """Writes the end of a block of reasoning after its text; also one without visible text, or
        encrypted."""
        if block.redacted:
            self._enter("redacted_thinking", {"type": "redacted_thinking", "data": block.redacted}, frames)
        else:
            if self._at.open != "thinking":
                self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""}, frames)
            frames.append(self._delta({"type": "signature_delta", "signature": block.signature}))
        self._close(frames)

    # --- tool calls

    def _begin_call(self, event: ToolCallStarted, frames: list[bytes]) -> None:
        if self._call >= 0 and (self._waiting or not _complete(self._written)):
            self._waiting[event.index] = (event, [])
            return
        if not self._started:
            self._start(Started(), frames)
        self._close(frames)
        self._open_call(event, frames)

    def _open_call(self, event: ToolCallStarted, frames: list[bytes]) -> None:
        if event.signature:  # clients send thinking blocks back, but of a call only its own fields
            self._open("thinking", {"type": "thinking", "thinking": "", "signature": ""}, frames)
            frames.append(self._delta({"type": "signature_delta", "signature": sealed_call(event.signature)}))
            self._close(frames)
        block = {"type": "tool_use", "id": event.id or new_call_id(), "name": event.name, "input": {}}
        self._open("tool_use", block, frames)
        self._call = event.index
        self._written = []

    def _next_call(self, frames: list[bytes]) -> None:
        index = next(iter(self._waiting))
        event, arguments = self._waiting.pop(index)
        self._open_call(event, frames)
        if arguments:
            self._write("".join(arguments), frames)

    def _continue_call(self, index: int, arguments: str, frames: list[bytes]) -> None:
        if index in self._waiting:
            self._waiting[index][1].append(arguments)
        elif index == self._call:
            self._write(arguments, frames)
            while self._waiting and _complete(self._written):
                self._close(frames)
                self._next_call(frames)

    def _write(self, arguments: str, frames: list[bytes]) -> None:
        """Writes arguments as they arrive, once they have begun as an object. Anything else makes SDKs fail,
        so it is written at the block's end, as an object."""
        written = self._written
        if not written and not arguments.lstrip().startswith("{"):
            self._held += arguments
            if not self._held.lstrip().startswith("{"):
                return
            arguments, self._held = self._held, ""
        written.append(arguments)
        frames.append(self._delta({"type": "input_json_delta", "partial_json": arguments}))

    # --- the end

    def _finish(self, finished: Finished, frames: list[bytes]) -> None:
        if not self._started:
            self._start(Started(), frames)
        self._leave(frames)
        usage = finished.usage or Usage(prompt_tokens(self._chat), max(self._characters // 4, 1))
        frames.append(
            frame("message_delta", delta=stop_of(finished, refused=self._refused), usage=usage_object(usage))
        )
        frames.append(STOP)


def _complete(pieces: list[str]) -> bool:
    """Returns whether these pieces are a whole JSON object, so that nothing can follow."""
    text = "".join(pieces)
    if not text.rstrip().endswith("}"):
        return False
    try:
        return type(msgspec.json.decode(text)) is dict
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return False
