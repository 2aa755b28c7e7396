"""Events -> the chunks of a streamed chat completion, or the upstream's own chunks passed on.

Reasoning goes out as `reasoning_content`, the name that most servers and clients of this dialect know (it is
not OpenAI's). A block that its provider expects back (Anthropic's signatures) is written once, whole, at its
end: as `thinking_blocks` and `reasoning_details` (`reasoning`). With the model's name hidden, chunks are
passed on under the alias's. Tools that the provider ran itself are not shown: a client would try to run them.
After an error there is no `[DONE]`: the SDKs raise on the error's own frame and read no further, and a reader
that waits for `[DONE]` must not find one.

Standard: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.openai.annotations import annotations
from sluice.frontends.openai.errors import error_object
from sluice.frontends.openai.reasoning import reasoning_details, thinking_blocks
from sluice.frontends.openai.rename import Renaming
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
    Verbatim,
    Working,
)
from sluice.wire.call_ids import new_call_id
from sluice.wire.separators import without_separators

DONE = b"data: [DONE]\n\n"

_json = msgspec.json.Encoder().encode


def sealed(call: ToolCallStarted) -> dict[str, Any]:
    """Returns Google's signature of a call where Google's own OpenAI endpoint has it: clients send calls back
    unchanged.

    https://ai.google.dev/gemini-api/docs/thought-signatures
    """
    return {"extra_content": {"google": {"thought_signature": call.signature}}} if call.signature else {}


def usage_object(usage: Usage) -> dict[str, Any]:
    """Returns OpenAI's `usage`."""
    read = {"cached_tokens": usage.cached_input}
    if usage.written_input:
        read["cache_write_tokens"] = usage.written_input
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.tokens,
        "prompt_tokens_details": read,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


class _Events(msgspec.Struct, eq=False):
    """The common part of both streams. Until `Started` has named an id and a model (""), they are the
    answer's."""

    _answer: Answer
    include_usage: bool
    _id: str = ""
    _model: str = ""

    content_type: ClassVar[str] = "text/event-stream; charset=utf-8"

    def start(self) -> bytes:
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return b"data: %b\n\n" % without_separators(_json(error_object(error)))

    def resume(self, started: Started) -> None:
        self._model = started.model or self._model

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b": keep-alive\n\n"

    def _chunk(self, choices: list[Any], **fields: Any) -> bytes:
        answer = self._answer
        head = {
            "id": self._id or f"chatcmpl-{answer.id}",
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": self._model or answer.model,
        }
        return b"data: %b\n\n" % without_separators(_json({**head, "choices": choices, **fields}))

    def _end(self, usage: Usage | None) -> bytes:
        if self.include_usage and usage is not None:
            return self._chunk([], usage=usage_object(usage)) + DONE
        return DONE


class PassedOn(_Events, eq=False):
    """Forwards the upstream's own frames, except its usage and terminator, which are written as this caller
    requested.
    """

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        if len(events) == 2:  # most reads
            text, frame = events
            if type(text) is TextDelta and type(frame) is Verbatim:
                return frame.data
        frames: list[bytes] = []
        finished: Finished | None = None
        for event in events:
            kind = type(event)
            if kind is TextDelta:
                continue
            if kind is Verbatim:
                frames.append(event.data)  # type: ignore[union-attr]
            elif kind is Finished:  # its own frames may follow it in the batch
                finished = event  # type: ignore[assignment]
            elif kind is Started:
                self._id = event.id or self._id  # type: ignore[union-attr]
                self._model = event.model or self._model  # type: ignore[union-attr]
        if finished is not None:
            frames.append(self._end(finished.usage))
        return frames[0] if len(frames) == 1 else b"".join(frames)


class Renamed(PassedOn, eq=False):
    """Forwards the upstream's own frames with the alias's name instead of the model's."""

    _renaming: Renaming | None = None

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        return super().encode([self._renamed(event) for event in events])

    def _renamed(self, event: StreamEvent) -> StreamEvent:
        match event:
            case Verbatim(data=data):
                renaming = self._renaming = self._renaming or Renaming(self._answer.model)
                return Verbatim(renaming.frames(data))
            case Started(id=id):
                return Started(id)
            case _:
                return event


class Chunks(_Events, eq=False):
    """Writes chunks from events. The common part of one answer's chunks is made once; a text costs its own
    encoding."""

    _calls: dict[int, int] = {}
    _prefix: bytes = b""
    _suffix: bytes = b""
    _between: bytes = b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        frames: list[bytes] = []
        texts: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                if event.text:
                    texts.append(event.text)
                continue
            if texts:
                frames.append(self._texts(texts))
                texts = []
            frames.append(self._frame(event))
        if texts:
            frames.append(self._texts(texts))
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _texts(self, texts: list[str]) -> bytes:
        opening = b"" if self._prefix else self._open("")
        return b"%b%b%b%b" % (
            opening,
            self._prefix,
            without_separators(self._between.join(map(_json, texts))),
            self._suffix,
        )

    def resume(self, started: Started) -> None:
        """Continues a cut answer: the role has been written, only the form of the texts follows."""
        self._open(started.model)

    def _frame(self, event: StreamEvent) -> bytes:
        match event:
            case Started(model=model):
                return self._open(model)
            case ReasoningDelta(text=text) if text:
                return self._delta({"reasoning_content": text})
            case RefusalDelta(text=text) if text:
                return self._delta({"refusal": text})
            case ReasoningBlock():
                blocks = [event]
                fields = {
                    "thinking_blocks": thinking_blocks(blocks, indexed=True),
                    "reasoning_details": reasoning_details(blocks),
                }
                return self._delta(fields)
            case Cited() if event.url:
                return self._delta({"annotations": annotations([event])})
            case Working(model=model) if model:
                self._open(model)
                return b""
            case ToolCallStarted(kind="function"):
                return self._call(event)
            case ToolCallDelta(index=index, arguments=arguments) if arguments and index in self._calls:
                return self._delta(
                    {"tool_calls": [{"index": self._calls[index], "function": {"arguments": arguments}}]}
                )
            case Finished(reason=reason, usage=usage):
                return self._delta({}, reason) + self._end(usage)
            case _:
                return b""

    def _open(self, model: str) -> bytes:
        """Writes the first chunk, with the role; its form determines the bytes around each text."""
        if self._answer.reveal and model:
            self._model = model
        probe = self._delta({"content": ""})
        at = probe.rindex(b'""')
        self._prefix, self._suffix = probe[:at], probe[at + 2 :]
        self._between = self._suffix + self._prefix
        return self._delta({"role": "assistant", "content": ""})

    def _call(self, event: ToolCallStarted) -> bytes:
        index = self._calls[event.index] = len(self._calls)
        function = {"name": event.name, "arguments": ""}
        call = {
            "index": index,
            "id": event.id or new_call_id(),
            "type": "function",
            "function": function,
            **sealed(event),
        }
        return self._delta({"tool_calls": [call]})

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        usage: dict[str, Any] = {"usage": None} if self.include_usage else {}
        return self._chunk([{"index": 0, "delta": delta, "finish_reason": reason}], **usage)
