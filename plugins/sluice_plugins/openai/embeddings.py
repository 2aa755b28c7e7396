"""Embeddings: sends the caller's request with the target's model, and forwards the answer unmodified.

The vectors are not parsed, since a document may have megabytes: only its usage is read, or an error that was
sent in its place.

Standard: https://platform.openai.com/docs/api-reference/embeddings
"""

import msgspec

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.errors import UpstreamError, UpstreamGarbled
from sluice.model.chat import ChatRequest
from sluice.model.events import Started, StreamEvent, TextDelta, Verbatim
from sluice.wire.lenient import read
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.decoding import MALFORMED
from sluice_plugins.documents import BodyDecoder
from sluice_plugins.openai.chunk import ReportedUsage
from sluice_plugins.openai.ends import finished
from sluice_plugins.openai.operations import body_for

MAX_ERROR = 64 << 10
"""The longest document, in bytes, that is searched for an error."""
_NULL = msgspec.Raw(b"null")


class Embeddings:
    """Requests embeddings at `url`, with `headers` beside the upstream's credentials."""

    def __init__(self, url: str, headers: Headers) -> None:
        self._url = url
        self._headers = headers

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(self._url, self._headers, body_for(chat, model))

    def whole_decoder(self) -> Decoder:
        return EmbeddingsDecoder()


class _Document(msgspec.Struct, gc=False):
    """The fields that are read. Each is decoded by itself, so that one of a wrong type does not fail the
    others."""

    data: msgspec.Raw = _NULL
    usage: msgspec.Raw = _NULL
    model: msgspec.Raw = _NULL


class EmbeddingsDecoder(BodyDecoder):
    """Decodes a list of embeddings, and forwards its document."""

    def _answer(self, body: bytes) -> list[StreamEvent]:
        try:
            document = _decode(body)
        except MALFORMED:
            raise self._no_answer(body) from None
        if not _has_items(document.data):
            raise self._no_answer(body)
        usage = self._usage(bytes(document.usage))
        started = Started(model=_text(document.model))
        return [started, TextDelta(""), finished("", usage), Verbatim(body, whole=True)]

    def _usage(self, data: bytes) -> ReportedUsage | None:
        try:
            usage: ReportedUsage | None = _decode_usage(data)
            return usage
        except MALFORMED:
            pass
        try:
            usage, self.skipped_fields = read(data, ReportedUsage)
        except ValueError:
            usage, self.skipped_fields = None, 1
        return usage

    def _no_answer(self, body: bytes) -> UpstreamError:
        error = reported_error(body) if len(body) <= MAX_ERROR else None
        return error or UpstreamGarbled("The upstream's answer has no embeddings")


def _has_items(data: msgspec.Raw) -> bool:
    """Returns whether this JSON text is a non-empty array."""
    first = bytes(memoryview(data)[:64]).translate(None, b" \t\r\n")
    return first.startswith(b"[") and first != b"[" and not first.startswith(b"[]")


def _text(data: msgspec.Raw) -> str:
    try:
        return _decode_text(data)
    except MALFORMED:
        return ""


_decode = msgspec.json.Decoder(_Document).decode
_decode_usage = msgspec.json.Decoder(ReportedUsage | None).decode
_decode_text = msgspec.json.Decoder(str).decode
