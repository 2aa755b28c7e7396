"""Forwards answers of generateContent to callers of the same dialect: chunks unmodified, and the events that
they mean.

A chunk is rewritten only where a client would misread it: a field has a wrong type, or a surrogate pair is
split over two chunks. Not forwarded are errors, finish reasons that mean failure and refused prompts (the
gateway reports them in its own words), and malformed data. Each frame is `data: ` with a chunk and two line
ends, as Google writes it.
"""

from typing import Any

from sluice.errors import UpstreamError
from sluice.model.events import ReasoningDelta, StreamEvent, TextDelta, Verbatim
from sluice.wire.jsontext import value_of
from sluice.wire.lenient import encoded, parse_again
from sluice.wire.separators import without_separators
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.documents import MAX_DOCUMENT, WHITE, WholeOrStream
from sluice_plugins.gemini.stream import GenerateDecoder

NUMBERED = {
    "1": "STOP", "2": "MAX_TOKENS", "3": "SAFETY", "4": "RECITATION", "5": "OTHER", "6": "BLOCKLIST", "7": "PROHIBITED_CONTENT",
    "8": "SPII",
}  # fmt: skip
"""https://ai.google.dev/api/generate-content#FinishReason, by its numbers in Protocol Buffers."""


class PassingDecoder(GenerateDecoder):
    """Decodes one answer, and returns its chunks after the events of each read. `mended`: whether a chunk of
    the read had to be rewritten."""

    __slots__ = ("_passed", "mended")

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        super().__init__(strict=strict, max_event=max_event, keep_stop=keep_stop)
        self._passed: list[bytes] = []
        self.mended = False

    def _walk(self, data: bytes, events: list[StreamEvent]) -> None:
        try:
            super()._walk(data, events)
        finally:
            self._flush(events)

    def _end(self, events: list[StreamEvent]) -> None:
        try:
            super()._end(events)
        finally:
            self._flush(events)

    def _flush(self, events: list[StreamEvent]) -> None:
        if self._passed:
            events.append(Verbatim(b"".join(self._passed)))
            self._passed.clear()

    def _chunk(self, chunk: Any, data: bytes, events: list[StreamEvent]) -> None:
        payload = data
        try:
            super()._chunk(chunk, data, events)
        except UpstreamError:
            self._pass_content(self._parsed if self._parsed is not None else parse_again(payload))
            raise
        if (values := self._parsed) is not None:
            self.mended = True
            if values.get("candidates"):
                values = {**values, "candidates": [_named(one) for one in values["candidates"]]}
            payload = encoded(values)
        self._pass(payload if b"\n" not in payload else payload.replace(b"\n", b" "))

    def _pass(self, payload: bytes) -> None:
        self._passed.append(b"data: %b\r\n\r\n" % without_separators(payload))

    def _pass_content(self, values: dict[str, Any]) -> None:
        """Forward the content of a chunk that ends in an error."""
        candidates = values.get("candidates")
        content = [
            {name: value for name, value in candidate.items() if name in ("content", "index")}
            for candidate in (candidates if type(candidates) is list else ())
            if type(candidate) is dict and candidate.get("content")
        ]
        if content:
            self._pass(encoded({**values, "candidates": content}))

    def _finish(self, events: list[StreamEvent]) -> None:
        before = len(events)
        super()._finish(events)
        for event in events[before:]:
            if isinstance(event, TextDelta | ReasoningDelta):  # U+FFFD in place of half a surrogate pair
                thought = {"thought": True} if isinstance(event, ReasoningDelta) else {}
                content = {"role": "model", "parts": [{"text": event.text, **thought}]}
                self._pass(encoded({"candidates": [{"content": content, "index": 0}]}))


def _is_plain(document: bytes) -> bool:
    """Returns whether clients can parse the document: JSON without NaN or half a surrogate pair."""
    try:
        value_of(document)
    except ValueError:
        return False
    return True


def _named(candidate: Any) -> Any:
    """Returns the candidate with the name of its finish reason, if the server sent the number of the
    enumeration."""
    reason = NUMBERED.get(str(candidate.get("finishReason"))) if type(candidate) is dict else None
    return candidate if reason is None else {**candidate, "finishReason": reason}


class WholeAnswerDecoder(WholeOrStream[PassingDecoder]):
    """Decodes one whole answer, or a stream that was sent in its place."""

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        super().__init__(
            PassingDecoder(strict=strict, max_event=max(max_event, MAX_DOCUMENT), keep_stop=keep_stop)
        )

    def _answer(self, body: bytes) -> list[StreamEvent]:
        self._decoder.feed(body)
        events = self._decoder.close()
        if not self._decoder.mended and _is_plain(body) and body.lstrip(WHITE).startswith(b"{"):
            events = [event for event in events if type(event) is not Verbatim]
            events.append(Verbatim(body, whole=True))
        return events
