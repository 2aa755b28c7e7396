"""Base classes for decoders of whole answers: a JSON document, or a stream that was sent in its place."""

from sluice.backends.protocol import Decoder, DecoderT, WrappedDecoder
from sluice.errors import UpstreamGarbled
from sluice.model.events import StreamEvent

MAX_DOCUMENT = 64 << 20
"""Most bytes of a whole answer."""
BLANK = 1024
"""Most bytes of white space before an answer."""
WHITE = b" \t\r\n\xef\xbb\xbf"
"""JSON's white space, and the bytes of a byte order mark."""


class BodyDecoder(Decoder):
    """Collects the body, and decodes it with `_answer` when it has ended. The relay bounds its length (the
    upstream's option `max_answer`)."""

    skipped_fields = 0

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, data: bytes) -> list[StreamEvent]:
        self._body += data
        return []

    def close(self) -> list[StreamEvent]:
        return self._answer(bytes(self._body))

    def _answer(self, body: bytes) -> list[StreamEvent]:
        """Returns the events of the answer; the last one is its Verbatim. Raises UpstreamError."""
        raise NotImplementedError


class WholeOrStream(WrappedDecoder[DecoderT]):
    """Collects a JSON document and decodes it with `_answer`. A body that does not begin with { or [ is a
    stream, which is passed to `decoder` read by read."""

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
        """Returns the events of a complete document. Raises UpstreamError."""
        raise NotImplementedError
