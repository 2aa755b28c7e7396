"""Moderations, images and reranking: sends the caller's request with the target's model, and forwards the
answer unmodified.

Of an answer only its usage is read, and whether it is an answer at all or an error.

Standards: https://platform.openai.com/docs/api-reference/moderations,
https://platform.openai.com/docs/api-reference/images, https://jina.ai/reranker (`usage`),
https://docs.cohere.com/reference/rerank (`meta`)
"""

from typing import Any

import msgspec

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.errors import UpstreamError, UpstreamGarbled
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice.wire.jsonedit import with_known_string
from sluice.wire.lenient import read
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.decoding import MALFORMED
from sluice_plugins.documents import BodyDecoder

MAX_ERROR = 64 << 10
"""The longest document, in bytes, that is searched for an error."""
PATHS = {
    ("moderations", "openai"): "/moderations",
    ("images", "openai"): "/images/generations",
    ("rerank", "rerank"): "/rerank",
}
"""Paths of operations that an API of OpenAI's dialect may have, by name and the caller's dialect."""
_NULL = msgspec.Raw(b"null")


class Whole:
    """An operation at `url`; `headers` are sent beside the upstream's credentials. An answer must have a list:
    `data` (images) or `results` (the others)."""

    def __init__(self, url: str, headers: Headers, operation: str) -> None:
        self._url = url
        self._headers = headers
        self._member = "data" if operation == "images" else "results"

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(self._url, self._headers, body_for(chat, model))

    def whole_decoder(self) -> Decoder:
        return WholeDecoder(self._member)


def body_for(chat: ChatRequest, model: str) -> bytes:
    """Returns the caller's body with the target's model."""
    wire = chat.wire or {}
    body = chat.body if wire.get("model") == model else b""
    if not body and chat.body and "model" in wire:
        body = with_known_string(chat.body, b'"model"', _encode(model)) or b""
    return body or _encode({**wire, "model": model})


class _Document(msgspec.Struct, gc=False):
    """The fields that are read, each decoded by itself."""

    data: msgspec.Raw = _NULL
    results: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL
    usage: msgspec.Raw = _NULL
    meta: msgspec.Raw = _NULL
    model: msgspec.Raw = _NULL


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Meta(msgspec.Struct):
    tokens: _Usage | None = None


class WholeDecoder(BodyDecoder):
    """Decodes an answer that must have the field `member`, and forwards its document."""

    def __init__(self, member: str) -> None:
        super().__init__()
        self._member = member

    def _answer(self, body: bytes) -> list[StreamEvent]:
        try:
            document = _decode(body)
        except MALFORMED:
            raise self._no_answer(body) from None
        begins = b'"' if self._member == "text" else b"["
        if not bytes(memoryview(getattr(document, self._member))[:64]).lstrip().startswith(begins):
            raise self._no_answer(body)
        usage = self._part(document.usage, _Usage) or (self._part(document.meta, _Meta) or _Meta()).tokens
        started = Started(model=_text(document.model))
        return [started, TextDelta(""), Finished("stop", _counted(usage), ""), Verbatim(body, whole=True)]

    def _part(self, data: msgspec.Raw, kind: type[Any]) -> Any:
        text = bytes(data)
        if text == b"null":
            return None
        try:
            found, odd = read(text, kind)
        except (ValueError, RecursionError):
            found, odd = None, 1
        self.skipped_fields += odd
        return found

    def _no_answer(self, body: bytes) -> UpstreamError:
        error = reported_error(body) if len(body) <= MAX_ERROR else None
        return error or UpstreamGarbled(f"The upstream's answer has no {self._member}")


def _counted(usage: _Usage | None) -> Usage | None:
    """Returns the usage in tokens; None if it is billed in other units (Cohere's search units, most
    moderations)."""
    if usage is None:
        return None
    total = usage.total_tokens or 0
    read_tokens = usage.input_tokens if usage.input_tokens is not None else usage.prompt_tokens
    if read_tokens is None and not total:
        return None
    written = usage.output_tokens or 0
    return Usage(input=read_tokens if read_tokens is not None else max(0, total - written), output=written)


def _text(data: msgspec.Raw) -> str:
    try:
        return _decode_text(data)
    except MALFORMED:
        return ""


_decode = msgspec.json.Decoder(_Document).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode
