"""Answers of `/v1/completions`: made from events, or the upstream's own, forwarded under the alias's name if
the model's name is hidden.

Standard: https://platform.openai.com/docs/api-reference/completions/object
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError
from sluice.frontends import Answer
from sluice.frontends.openai.chunks import DONE, usage_object
from sluice.frontends.openai.errors import error_object
from sluice.frontends.openai.rename import Renaming
from sluice.model.events import (
    Finished,
    FinishReason,
    Started,
    StreamEvent,
    TextDelta,
    Usage,
    Verbatim,
    Working,
)
from sluice.wire.separators import without_separators

REASONS: dict[FinishReason, str] = {
    "stop": "stop", "length": "length", "tool_calls": "stop", "content_filter": "content_filter",
}  # fmt: skip
_json = msgspec.json.Encoder().encode


class _Objects:
    __slots__ = ("_answer", "_id", "_include_usage", "_model", "_passes", "_renaming")

    def __init__(self, answer: Answer, *, include_usage: bool) -> None:
        self._answer = answer
        self._include_usage = include_usage
        self._id = ""
        self._passes = False  # the upstream's own frames
        self._model = answer.model
        self._renaming = None if answer.reveal else Renaming(answer.model)

    def start(self) -> bytes:
        return b""

    def resume(self, started: Started) -> None:
        self._named(started)

    def restart(self) -> bytes:
        return b""

    def _named(self, event: Started | Working) -> None:
        if self._answer.reveal and event.model:
            self._model = event.model

    def _object(self, choices: list[Any], **more: Any) -> dict[str, Any]:
        head = {
            "id": self._id or f"cmpl-{self._answer.id}",
            "object": "text_completion",
            "created": self._answer.created,
        }
        return {**head, "model": self._model, "choices": choices, **more}


def _choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


class TextChunks(_Objects):
    """Writes the stream. An upstream's own frames are forwarded; its usage and its end are written as this
    caller requested.
    """

    __slots__ = ()

    content_type = "text/event-stream; charset=utf-8"

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        passed = [event.data for event in events if type(event) is Verbatim]
        self._passes = self._passes or bool(passed)
        out = [data if self._renaming is None else self._renaming.frames(data) for data in passed]
        for event in events:
            match event:
                case TextDelta(text=text) if text and not self._passes:
                    out.append(self._chunk([_choice(text, None)]))
                case Started():
                    self._id = event.id if self._passes else ""
                    self._named(event)
                case Working():
                    self._named(event)
                case Finished():
                    last = b"" if self._passes else self._chunk([_choice("", REASONS[event.reason])])
                    out.append(last + self._end(event.usage))
                case _:
                    pass
        return b"".join(out)

    def fail(self, error: GatewayError) -> bytes:
        return b"data: %b\n\n" % without_separators(_json(error_object(error)))

    def heartbeat(self) -> bytes:
        return b": keep-alive\n\n"

    def _chunk(self, choices: list[Any], **more: Any) -> bytes:
        return b"data: %b\n\n" % without_separators(_json(self._object(choices, **more)))

    def _end(self, usage: Usage | None) -> bytes:
        if self._include_usage and usage is not None:
            return self._chunk([], usage=usage_object(usage)) + DONE
        return DONE


class WholeText(_Objects):
    """Writes the whole answer at its end."""

    __slots__ = ("_pieces",)

    content_type = "application/json"

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer, include_usage=True)
        self._pieces: list[str] = []

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        last = events[-1] if events else None
        if type(last) is Verbatim and last.whole:
            return last.data if self._renaming is None else self._renaming.document(last.data)
        for event in events:
            match event:
                case TextDelta(text=text):
                    self._pieces.append(text)
                case Started() | Working():
                    self._named(event)
                case Finished(reason=reason, usage=usage):
                    fields = usage_object(usage) if usage is not None else None
                    return _json(
                        self._object([_choice("".join(self._pieces), REASONS[reason])], usage=fields)
                    )
                case _:
                    pass
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def heartbeat(self) -> bytes:
        return b""
