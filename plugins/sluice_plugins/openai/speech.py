"""`/audio/speech`: sends the caller's request with the target's model, and forwards the audio as it arrives.

Audio has no terminator of its own: it is complete when its HTTP body ends as framed.

Standard: https://platform.openai.com/docs/api-reference/audio/createSpeech
"""

from collections.abc import Mapping
from typing import ClassVar

from sluice.backends.protocol import Backend, Decoder, Headers, UpstreamRequest
from sluice.backends.transport import Transport
from sluice.errors import UpstreamError, UpstreamGarbled
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Verbatim
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.openai.operations import body_for

MAX_ERROR = 64 << 10
"""Most bytes of a JSON text that is sent in place of audio."""


class Speech:
    """Backend for audio from `url`; in everything else it behaves as its `backend`. `headers`: those of
    requests for whole answers."""

    dialect: ClassVar[str] = "openai"

    def __init__(self, backend: Backend, url: str, headers: Headers) -> None:
        self._backend = backend
        self._url = url
        self._headers = tuple([(name, "*/*" if name == "accept" else value) for name, value in headers])
        self.headers: Mapping[str, str] = getattr(backend, "headers", {})

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(self._url, self._headers, body_for(chat, model))

    whole_request = request

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        return SoundDecoder()

    def whole_decoder(self) -> Decoder:
        return SoundDecoder()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return self._backend.error(status, headers, body)

    def transport(self) -> Transport | None:
        return self._backend.transport()

    def credentials(self) -> Headers:
        return self._backend.credentials()


class SoundDecoder(Decoder):
    """Forwards each read of the body. A body that begins as a JSON object or an HTML page is not audio: it is
    collected and decoded as an error."""

    def __init__(self) -> None:
        self._begun = False
        self._other = bytearray()

    def feed(self, data: bytes) -> list[StreamEvent]:
        if not self._begun and (self._other or data[:1] in (b"{", b"<")):
            self._other += data
            if len(self._other) > MAX_ERROR:
                raise UpstreamGarbled("The upstream's answer is no sound")
            return []
        first: list[StreamEvent] = [] if self._begun else [Started()]
        self._begun = True
        return [*first, TextDelta(""), Verbatim(data)]

    def close(self) -> list[StreamEvent]:
        if not self._begun:
            raise reported_error(bytes(self._other)) or UpstreamGarbled("The upstream's answer has no sound")
        return [Finished("stop", None, "")]
