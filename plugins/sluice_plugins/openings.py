"""Recognizes, by a body's first bytes, answers that have another format than the requested one.

Some servers answer with one JSON document in place of a stream, and some proxies send server-sent events in
place of lines of JSON. Each class here is a framing that checks the first bytes and then passes all data to
the framing that fits; once its stream has begun, a decoder uses that framing directly.
"""

from sluice.errors import UpstreamGarbled
from sluice.wire.lines import LIMIT
from sluice.wire.ndjson import JSONLines
from sluice.wire.sse import Event, EventStream

_SPACE = b" \t\r\n\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
"""How lines of server-sent events begin."""


class _Document:
    """Collects a body that is one JSON document, `limit` bytes at most."""

    __slots__ = ("_body", "_limit")

    def __init__(self, limit: int) -> None:
        self._body = bytearray()
        self._limit = limit

    def add(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._limit:
            raise UpstreamGarbled("The upstream's answer is too long")

    @property
    def body(self) -> bytes:
        return bytes(self._body)


class EventsOrDocument:
    """Server-sent events, or a JSON document in their place: then `document` is the body so far, else
    None."""

    __slots__ = ("_document", "_kept", "_known", "_stream")

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._kept = b""
        self._known = False
        self._document: _Document | None = None

    @property
    def document(self) -> bytes | None:
        return self._document.body if self._document is not None else None

    def feed(self, data: bytes) -> list[Event]:
        """Returns the complete events, none for a document. Raises UpstreamGarbled for a body that is too
        long."""
        return self._stream.events(self.complete(data))

    def complete(self, data: bytes) -> bytes:
        """Returns the bytes of the frames that `data` completes, as `EventStream.complete` does; b"" for a
        document. Raises UpstreamGarbled for a body that is too long."""
        if not self._known:
            self._kept += data
            start = self._kept.lstrip(_SPACE)
            if not start and len(self._kept) < LIMIT:
                return b""
            data, self._kept, self._known = self._kept, b"", True
            if start.startswith((b"{", b"[")):
                self._document = _Document(self._stream.limit)
                data = start
        if self._document is None:
            return self._stream.complete(data)
        self._document.add(data)
        return b""


class LinesOrDocument:
    """Lines of JSON, or a JSON document over several lines, or server-sent events in their place."""

    __slots__ = ("_document", "_events", "_kept", "_known", "_limit", "_lines")

    def __init__(self, lines: JSONLines, limit: int) -> None:
        self._lines = lines
        self._limit = limit
        self._kept = bytearray()
        self._known = False
        self._document: _Document | None = None
        self._events: EventStream | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Returns the texts of complete JSON values; of a document only `close` returns any. Raises
        UpstreamGarbled for a body that is too long."""
        if not self._known:
            self._kept += data
            if (
                b"\n" not in data and len(self._kept) < self._limit
            ):  # search a first line of megabytes for its end only once
                return []
            start = bytes(self._kept).lstrip(_SPACE)
            line, end, _ = start.partition(b"\n")
            if not end and len(self._kept) < self._limit:
                return []
            data, self._kept, self._known = start, bytearray(), True
            if start.startswith(_FIELDS):
                self._events = EventStream(self._limit)
            elif start.startswith((b"{", b"[")) and not line.rstrip().endswith((b"}", b"]")):
                self._document = _Document(self._limit)
        if self._events is not None:
            return [event.data for event in self._events.feed(data) if event.data != b"[DONE]"]
        if self._document is None:
            return self._lines.feed(data)
        self._document.add(data)
        return []

    @property
    def is_lines(self) -> bool:
        """Whether the body was recognized as the requested lines of JSON."""
        return self._known and self._document is None and self._events is None

    def close(self) -> list[bytes]:
        """Returns the document, or a last line that has no line end."""
        if self._document is not None:
            return [self._document.body]
        if self._events is not None:
            last = self._events.event(self._events.close())
            return [last.data] if last is not None and last.data != b"[DONE]" else []
        kept, self._kept = bytes(self._kept), bytearray()
        return [*(self._lines.feed(kept) if kept else ()), *self._lines.close()]
