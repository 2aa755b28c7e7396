"""OpenAI's legacy `/completions` at servers that have it (vLLM, llama.cpp, Ollama …): sends the caller's
request with the target's model, and forwards the answer unmodified.

Of a stream's frames only the terminator and a chunk with nothing but usage are not forwarded. A stream is
complete with a finish reason, or with [DONE] after content.

Standard: https://platform.openai.com/docs/api-reference/completions
"""

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from sluice.backends.protocol import Backend, Decoder, Headers, UpstreamRequest
from sluice.backends.transport import Transport
from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.chat import ChatRequest
from sluice.model.events import Started, StreamEvent, TextDelta, Verbatim
from sluice.wire.lenient import read
from sluice.wire.sse import Event, EventStream
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.decoding import MALFORMED, FrameDecoder, failure_of, is_last
from sluice_plugins.documents import BodyDecoder
from sluice_plugins.openai.chunk import ReportedUsage
from sluice_plugins.openai.ends import finished

DIALECT = "completions"
MAX_DOCUMENT = 32 << 20
"""Most bytes of a whole answer."""


class Completions:
    """Backend for completions at `url`, in which the target's model replaces {model}; in everything else it
    behaves as its `backend`.

    `headers` are those of a stream's request. `include_usage`: request the usage chunk. `max_event`: most
    bytes of one event.
    """

    dialect: ClassVar[str] = DIALECT

    def __init__(
        self, backend: Backend, url: str, headers: Headers, *, include_usage: bool, max_event: int
    ) -> None:
        self._backend = backend
        self._url = url
        self._headers = headers
        self._whole = tuple(
            [(name, "application/json" if name == "accept" else value) for name, value in headers]
        )
        self._include_usage = include_usage
        self._max_event = max_event
        self.headers: Mapping[str, str] = getattr(backend, "headers", {})

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        body = {**_wire(chat), "model": model, "stream": True}
        if self._include_usage:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return UpstreamRequest(self._url_of(model), self._headers, _encode(body))

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(self._url_of(model), self._whole, _encode({**_wire(chat), "model": model}))

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        return TextDecoder(EventStream(self._max_event), verbatim=verbatim)

    def whole_decoder(self) -> Decoder:
        return TextDocument()

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return self._backend.error(status, headers, body)

    def transport(self) -> Transport | None:
        return self._backend.transport()

    def credentials(self) -> Headers:
        return self._backend.credentials()

    def _url_of(self, model: str) -> str:
        return self._url.replace("{model}", quote(model, safe=""))


def _wire(chat: ChatRequest) -> dict[str, Any]:
    """Returns the caller's own object; with another prompt if an interceptor has changed it."""
    if chat.wire is not None:
        return chat.wire
    sampling = chat.sampling
    wire = {
        "prompt": "\n\n".join([message.text for message in chat.messages]),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stop": sampling.stop or None,
        "seed": sampling.seed,
    }
    return {name: value for name, value in wire.items() if value is not None}


class _Choice(msgspec.Struct):
    text: str | None = None
    index: int | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: ReportedUsage | None = None
    error: Any = None
    id: str | None = None
    model: str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode
_encode = msgspec.json.Encoder().encode


def _chunk_of(data: bytes) -> tuple[_Chunk | None, int]:
    """Returns the chunk, decoded field by field if fields have a wrong type, and the number of such fields;
    None if the data is not a JSON object."""
    try:
        return _decode(data), 0
    except MALFORMED:
        pass
    try:
        return read(data, _Chunk)
    except (ValueError, RecursionError):
        return None, 0


class TextDecoder(FrameDecoder[Event], Decoder):
    """Decodes one stream of completions."""

    __slots__ = (
        "_content",
        "_native",
        "_passed",
        "_started",
        "_stream",
        "_usage",
        "_verbatim",
        "skipped",
        "skipped_fields",
    )

    def __init__(self, stream: EventStream, *, verbatim: bool = False) -> None:
        super().__init__(stream)
        self._stream = stream
        self._verbatim = verbatim
        self._started = self._content = False
        self._native = ""
        self._usage: ReportedUsage | None = None
        self._passed: list[bytes] = []
        self.skipped = 0
        self.skipped_fields = 0

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self._with_frames(super().feed(data))

    def close(self) -> list[StreamEvent]:
        return self._with_frames(super().close())

    def _with_frames(self, events: list[StreamEvent]) -> list[StreamEvent]:
        passed, self._passed = self._passed, []
        if self._verbatim and passed:
            frames = [b"data: %b\n\n" % payload.replace(b"\n", b"\ndata: ") for payload in passed]
            events.append(Verbatim(b"".join(frames)))
        return events

    def _take(self, frame: Event, events: list[StreamEvent]) -> None:
        data = frame.data
        if data.strip() == b"[DONE]":
            return self._finish(events)
        chunk, odd = _chunk_of(data)
        self.skipped_fields += odd
        odd_one = chunk is None or chunk.error or chunk.choices is None
        if odd_one and (error := reported_error(data)) is not None:
            raise error
        if chunk is None:
            self.skipped += 1
            return
        if not self._started:
            self._started = True
            events.append(Started(chunk.id or "", chunk.model or ""))
        self._usage = chunk.usage or self._usage
        for choice in chunk.choices or ():
            if not choice.index:
                self._choice(choice, events)
        if chunk.choices:
            self._passed.append(data)

    def _choice(self, choice: _Choice, events: list[StreamEvent]) -> None:
        if choice.text:
            self._content = True
            events.append(TextDelta(choice.text))
        if choice.finish_reason:
            if (failure := failure_of(choice.finish_reason)) is not None:
                raise failure
            self._native = choice.finish_reason

    def _finish(self, events: list[StreamEvent]) -> None:
        if not (self._native or self._content):
            raise UpstreamTruncated
        self._done = True
        events.append(finished(self._native, self._usage))

    def _end(self, events: list[StreamEvent]) -> None:
        last = self._stream.event(self._stream.close().strip())
        if last is not None and is_last(last.data):
            self._take(last, events)
        if not self._done:
            if not self._native:
                raise UpstreamTruncated
            self._finish(events)


class TextDocument(BodyDecoder):
    """Decodes one whole completion."""

    def feed(self, data: bytes) -> list[StreamEvent]:
        super().feed(data)
        if len(self._body) > MAX_DOCUMENT:
            raise UpstreamGarbled("The upstream's answer is too long")
        return []

    def _answer(self, body: bytes) -> list[StreamEvent]:
        chunk, self.skipped_fields = _chunk_of(body)
        if chunk is None or not chunk.choices:
            raise self._no_answer(body)
        first = chunk.choices[0]
        native = first.finish_reason or ""
        if (failure := failure_of(native)) is not None:
            raise failure
        started = Started(chunk.id or "", chunk.model or "")
        return [
            started,
            TextDelta(first.text or ""),
            finished(native, chunk.usage),
            Verbatim(body, whole=True),
        ]

    def _no_answer(self, body: bytes) -> UpstreamError:
        return reported_error(body) or UpstreamGarbled("The upstream's answer has no completion")
