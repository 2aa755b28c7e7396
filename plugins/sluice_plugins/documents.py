"""The common part of decoders of whole answers: a JSON document, or the stream that came in its place."""

from sluice.backends.protocol import Decoder, DecoderT, WrappedDecoder
from sluice.errors import UpstreamGarbled
from sluice.model.events import StreamEvent

MAX_DOCUMENT = 64 << 20
"""Bytes of a whole answer."""
BLANK = 1024
"""Bytes of white space that may stand before an answer."""
WHITE = b" \t\r\n\xef\xbb\xbf"
"""JSON's white space, and the bytes of a byte order mark."""


class BodyDecoder(Decoder):
    """Collects a whole body, which `_answer` decodes at its end. The relay bounds its length (an upstream's
    `max_answer`)."""

    skipped_fields = 0

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, data: bytes) -> list[StreamEvent]:
        self._body += data
        return []

    def close(self) -> list[StreamEvent]:
        return self._answer(bytes(self._body))

    def _answer(self, body: bytes) -> list[StreamEvent]:
        """Returns the events of the answer, its Verbatim at their end. Raises UpstreamError."""
        raise NotImplementedError


class WholeOrStream(WrappedDecoder[DecoderT]):
    """Collects a document for `_answer`; a body that begins otherwise than JSON goes to the stream's
    `decoder` as it comes."""

    def __init__(self, decoder: DecoderT) -> None:
        super().__init__(decoder)
        self._body = bytearray()
        self._is_document = False
        self._is_stream = False

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._is_stream:
            return self._decoder.feed(data)
        self._body += data
        if len(self._body) > MAX_DOCUMENT:
            raise UpstreamGarbled(f"The upstream sent a document longer than {MAX_DOCUMENT} bytes")
        if self._is_document:
            return []
        start = bytes(self._body[:BLANK]).lstrip(WHITE)[:1]
        if not start:
            self._is_document = len(self._body) >= BLANK
            return []
        if start in b"{[":
            self._is_document = True
            return []
        self._is_stream = True
        return self._decoder.feed(bytes(self._body))

    def close(self) -> list[StreamEvent]:
        return self._decoder.close() if self._is_stream else self._answer(bytes(self._body))

    def _answer(self, body: bytes) -> list[StreamEvent]:
        """The events of a complete document. Raises UpstreamError."""
        raise NotImplementedError
