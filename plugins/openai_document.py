"""An answer that was asked for in one piece: a chat completion -> events, and itself to be passed on as it came.

Whoever streams nevertheless, or answers with something that is no plain completion (an error, a vendor's own form), is
left to `openai_stream`, which reads both.

Standard: https://platform.openai.com/docs/api-reference/chat/object
"""

import msgspec

from gateway.errors import UpstreamGarbled
from gateway.events import Started, StreamEvent, TextDelta, Verbatim
from plugins.openai_chunk import MALFORMED, Choice, Delta, ReportedUsage
from plugins.openai_stream import MAX_DOCUMENT, WHITE, ChunkDecoder, check_size, finished


class _Said(Choice, gc=False):
    message: Delta | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Said] | None = None
    usage: ReportedUsage | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")  # not read here: it may be anything
    id: str | None = None
    model: str | None = None


_NO_ERROR = (b"null", b"false", b"{}", b'""', b"[]", b"0")
_decode = msgspec.json.Decoder(_Completion, strict=False).decode


class DocumentDecoder:
    """Nothing is known before the body's end. `skipped` counts as `ChunkDecoder`'s does."""

    __slots__ = ("_body", "_document", "_other", "_strict")

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._body: bytes | bytearray = b""
        self._document = False  # it begins like one
        self._other: ChunkDecoder | None = None  # reads what is none

    @property
    def skipped(self) -> int:
        return self._other.skipped if self._other is not None else 0

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._other is not None:
            return self._other.feed(data)
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        if len(self._body) > MAX_DOCUMENT:
            raise UpstreamGarbled(f"The upstream sent a document longer than {MAX_DOCUMENT} bytes")
        if not self._document:
            first = data.lstrip(WHITE)[:1]
            if first and first not in b"{[":
                return self._by_another()
            self._document = bool(first)
        return []

    def close(self) -> list[StreamEvent]:
        if self._other is not None:
            return self._other.close()
        body = bytes(self._body)
        check_size(body)
        completion = _plain(body)
        choices = completion.choices if completion is not None else None
        if completion is None or not choices:
            return self._by_another() + self.close()
        events: list[StreamEvent] = [Started(completion.id or "", completion.model or "")]
        text = _only_text(choices)
        if text:
            events += (TextDelta(text), finished(choices[0].finish_reason or "", completion.usage))
        elif _as_deltas(choices):
            ChunkDecoder().take(choices, completion.usage, events)
        else:
            return self._by_another() + self.close()
        events.append(Verbatim(body, whole=True))
        return events

    def _by_another(self) -> list[StreamEvent]:
        self._other = ChunkDecoder(verbatim=True, strict=self._strict)
        body, self._body = bytes(self._body), b""
        return self._other.feed(body)


def _only_text(choices: list[_Said]) -> str:
    """What most answers are: one choice, a text and nothing else; "" for others."""
    choice = choices[0]
    message, native = choice.message, choice.finish_reason
    if message is None or not native or native == "error" or choice.index or choice.usage is not None or len(choices) > 1:
        return ""
    text = message.content
    return text if type(text) is str and message == Delta(text) else ""


def _as_deltas(choices: list[_Said]) -> bool:
    """Read each message as a delta, its tool calls numbered. False where there is none to be read."""
    for choice in choices:
        if choice.message is None:
            return False
        for index, call in enumerate(choice.message.tool_calls or ()):
            call.index = index
        choice.delta = choice.message
    return True


def _plain(body: bytes) -> _Completion | None:
    """The completion; None for what is not just that."""
    try:
        completion = _decode(body)
    except MALFORMED:
        return None
    return completion if bytes(completion.error) in _NO_ERROR else None
