"""A backend for a made-up dialect: `POST /play`, answered with lines of JSON."""

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from sluice.backends.protocol import Decoder
from sluice.backends.transport import Headers, Transport, UpstreamRequest
from sluice.config.types import Secret
from sluice.errors import UpstreamError, UpstreamErrorKind, UpstreamGarbled, UpstreamTruncated
from sluice.model.chat import ChatRequest, Text
from sluice.model.events import Finished, FinishReason, Started, StreamEvent, TextDelta, Usage
from sluice.wire.baseurl import endpoint
from sluice.wire.ndjson import JSONLines
from sluice.wire.upstream_errors import upstream_error

SPEAKERS = {"system": "rule", "developer": "rule", "user": "human", "assistant": "machine"}
STOPS: Mapping[str, FinishReason] = {"end": "stop", "full": "length"}
FAULTS: Mapping[str, UpstreamErrorKind] = {"busy": "overloaded", "too long": "context_length"}
HEADERS = (("content-type", "application/json"), ("accept", "application/x-ndjson"))


class Tape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The backend. Its fields are its options: unknown ones are refused, and each is described by the comment
    behind it."""

    dialect: ClassVar[str] = ""  # no client speaks it
    takes: ClassVar[frozenset[str]] = frozenset({"temperature"})  # all else is refused, or left out

    base_url: str = "http://localhost:7007"  # where its server is
    api_key: Secret | None = None  # sent as a Bearer token

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        lines = []
        for message in chat.messages:
            text = "".join([part.text for part in message.parts if isinstance(part, Text)])
            lines.append({"by": SPEAKERS[message.role], "text": text})
        body = {
            "voice": model,
            "lines": lines,
            "most": chat.sampling.max_tokens,
            "heat": chat.sampling.temperature,
        }
        given = {name: value for name, value in body.items() if value is not None}
        return UpstreamRequest(endpoint(self.base_url, "/play"), HEADERS, msgspec.json.encode(given))

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        return TapeDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)  # by the status, the headers, and words that vendors use

    def transport(self) -> Transport | None:
        return None  # over HTTP

    def credentials(self) -> Headers:
        return (("authorization", f"Bearer {self.api_key.reveal()}"),) if self.api_key else ()


class Line(msgspec.Struct):
    """Any line: the first names the tape, the last says why it stopped."""

    tape: str = ""
    voice: str = ""
    text: str = ""
    stop: str = ""
    heard: int = 0
    spoken: int = 0
    fault: str = ""


class TapeDecoder(Decoder):
    """Bytes -> events. It is fed whatever the socket read, and has no other way to the world."""

    def __init__(self) -> None:
        self._lines = JSONLines()
        self._line = msgspec.json.Decoder(Line)
        self._started = False
        self._done = False
        self._error: UpstreamError | None = None

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        return self._events(self._lines.feed(data))

    def close(self) -> list[StreamEvent]:
        if self._error is not None:
            raise self._error
        events = self._events(self._lines.close())
        if not self._done and self._error is None:
            self._error = UpstreamTruncated()  # no line reported the end
            if not events:
                raise self._error
        return events

    def _events(self, lines: list[bytes]) -> list[StreamEvent]:
        """Returns the events of these lines. If an error follows events, the next call raises it."""
        events: list[StreamEvent] = []
        try:
            for line in lines:
                if not self._done:
                    self._take(line, events)
        except UpstreamError as error:
            self._error = error
            if not events:
                raise
        return events

    def _take(self, line: bytes, events: list[StreamEvent]) -> None:
        try:
            found = self._line.decode(line)
        except msgspec.DecodeError:
            raise UpstreamGarbled from None
        if found.fault:
            raise UpstreamError(FAULTS.get(found.fault, "stream_error"), found.fault)
        if not self._started:
            self._started = True
            events.append(Started(found.tape, found.voice))
        if found.text:
            events.append(TextDelta(found.text))
        if found.stop:
            self._done = True
            events.append(Finished(STOPS.get(found.stop, "stop"), Usage(found.heard, found.spoken)))
