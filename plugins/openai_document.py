"""An answer that was asked for in one piece: a chat completion -> events, and itself to be passed on as it came.

Whoever streams nevertheless, or answers with something that is no plain completion (an error, a vendor's own form), is
left to `openai_stream`, which reads both.

Standard: https://platform.openai.com/docs/api-reference/chat/object
"""

from typing import Any

import msgspec

from gateway.events import Started, StreamEvent, Verbatim
from plugins.openai_stream import MALFORMED, Choice, ChunkDecoder, Delta, ReportedUsage


class _Said(Choice, gc=False):
    message: Delta | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Said] | None = None
    usage: ReportedUsage | None = None
    error: Any = None
    id: str | None = None
    model: str | None = None


_decode = msgspec.json.Decoder(_Completion, strict=False).decode


class DocumentDecoder(ChunkDecoder):
    """Nothing is known before the body's end."""

    __slots__ = ()

    def close(self) -> list[StreamEvent]:
        if self._document is None or self._done:
            return super().close()
        body = bytes(self._document)
        completion = _plain(body)
        if completion is None or not completion.choices:
            return super().close()
        self._usage = completion.usage
        self._started = True
        events: list[StreamEvent] = [Started(completion.id or "", completion.model or "")]
        for choice in completion.choices:
            if not choice.index:
                choice.delta = choice.message
                self._choice(choice, events)
        self._finish(events)
        events.append(Verbatim(body, whole=True))
        return events


def _plain(body: bytes) -> _Completion | None:
    """The completion, its tool calls numbered; None for what is not just that."""
    try:
        completion = _decode(body)
    except MALFORMED:
        return None
    if completion.error:
        return None
    for choice in completion.choices or ():
        if choice.message is None:
            return None
        for index, call in enumerate(choice.message.tool_calls or ()):
            call.index = index
    return completion
