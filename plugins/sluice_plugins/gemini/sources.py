"""Sources of an answer: converts `groundingMetadata` and `citationMetadata` into Cited events.

Google gives positions in bytes of UTF-8 from the beginning of the answer's text, in streams and whole answers
alike; events have positions in characters. So the text is kept until the end, where sources are converted.
Google repeats the text of each position, which is compared with the answer. If it differs, the text is
searched for, and if it is not found the source gets no position.

Standard: https://ai.google.dev/api/generate-content#GroundingMetadata and #CitationMetadata; Vertex AI's
names for the same: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest/v1/GroundingMetadata
"""

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from sluice.model.events import Cited
from sluice.wire.lenient import read

MAX_SOURCES = 1000
"""Most sources of one answer, and most chunks whose sources are kept."""
MAX_TEXT = 8 << 20
"""Most characters of an answer in which sources get positions."""
MAX_PIECES = 1024
"""Most pieces of text before they are joined into one."""


class _Source(msgspec.Struct):
    """A web page, a place on the map, a document of a data store, or an image."""

    uri: str | None = None
    title: str | None = None
    text: str | None = None
    sourceUri: str | None = None


class _Chunk(msgspec.Struct):
    web: _Source | None = None
    retrievedContext: _Source | None = None
    maps: _Source | None = None
    image: _Source | None = None


class _Segment(msgspec.Struct):
    startIndex: int | None = None
    endIndex: int | None = None
    text: str | None = None


class _Support(msgspec.Struct):
    segment: _Segment | None = None
    groundingChunkIndices: Raw = Raw(b"")


class _Grounding(msgspec.Struct):
    groundingChunks: list[_Chunk] | None = None
    groundingSupports: list[_Support] | None = None


class _Citation(msgspec.Struct):
    startIndex: int | None = None
    endIndex: int | None = None
    uri: str | None = None
    title: str | None = None


class _Citations(msgspec.Struct):
    citationSources: list[_Citation] | None = None  # the Gemini API
    citations: list[_Citation] | None = None  # Vertex AI


_indices_of = msgspec.json.Decoder(list[int]).decode


class Sources:
    """Collects the sources of one answer."""

    __slots__ = ("_citations", "_groundings", "_is_truncated", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._is_truncated = False  # the answer is longer than the text that was kept
        self._groundings: list[bytes] = []
        self._citations: list[bytes] = []

    def add_text(self, text: str) -> None:
        self._size += len(text)
        if self._size > MAX_TEXT:
            self._is_truncated = True
            return
        self._pieces.append(text)
        if len(self._pieces) > MAX_PIECES:
            self._pieces = ["".join(self._pieces)]

    def shown(self, text: str) -> None:
        """Note a text that the gateway inserted (an image as Markdown): Google does not count it, so sources
        get no positions."""
        self._is_truncated = True

    def take(self, grounding: Raw, citations: Raw) -> None:
        """Read a chunk's sources. Each chunk may repeat all of them."""
        if (
            grounding
            and len(self._groundings) < MAX_SOURCES
            and (source := bytes(grounding)) not in self._groundings[-1:]
        ):
            self._groundings.append(source)
        if (
            citations
            and len(self._citations) < MAX_SOURCES
            and (source := bytes(citations)) not in self._citations[-1:]
        ):
            self._citations.append(source)

    def cited(self) -> list[Cited]:
        """Returns all sources, each once: those with positions, if it has any, without the one that has
        none."""
        if not self._groundings and not self._citations:
            return []
        text = _Text("" if self._is_truncated else "".join(self._pieces))
        found: dict[Cited, None] = {}
        for source in self._groundings:
            found |= dict.fromkeys(_grounded(_decoded(source, _Grounding), text))
        for source in self._citations:
            found |= dict.fromkeys(_quoted(_decoded(source, _Citations), text))
        placed = {(cited.url, cited.title) for cited in found if cited.start >= 0}
        return [cited for cited in found if cited.start >= 0 or (cited.url, cited.title) not in placed][
            :MAX_SOURCES
        ]


class _Text:
    """The answer's text, as characters and as UTF-8."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._bytes = text.encode("utf-8", "surrogatepass")

    def place(self, start: int, end: int, says: str) -> tuple[int, int]:
        """Returns the start and end in characters of a position in bytes; -1, -1 if it is invalid."""
        if 0 <= start < end <= len(self._bytes):
            within = self._bytes[start:end].decode("utf-8", "replace")
            if not says or within == says:
                before = len(self._bytes[:start].decode("utf-8", "replace"))
                return before, before + len(within)
        at = self._text.find(says) if says else -1
        return (at, at + len(says)) if at >= 0 else (-1, -1)


def _decoded(source: bytes, kind: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.json.decode(source, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return read(source, kind)[0]
    except (ValueError, RecursionError):
        return kind()


def _grounded(grounding: msgspec.Struct, text: _Text) -> Iterator[Cited]:
    if not isinstance(grounding, _Grounding):
        return
    sources = [_source(chunk) for chunk in (grounding.groundingChunks or ())[:MAX_SOURCES]]
    for support in (grounding.groundingSupports or ())[:MAX_SOURCES]:
        segment = support.segment or _Segment()
        start, end = text.place(segment.startIndex or 0, segment.endIndex or 0, segment.text or "")
        for index in _indices(support.groundingChunkIndices):
            if 0 <= index < len(sources) and start >= 0 and (source := sources[index]) is not None:
                yield msgspec.structs.replace(source, start=start, end=end)
    for source in sources:
        if source is not None:
            yield source


def _source(chunk: _Chunk) -> Cited | None:
    given = chunk.web or chunk.retrievedContext or chunk.maps or chunk.image
    if given is None:
        return None
    quote = given.text or "" if chunk.retrievedContext is not None else ""
    url = (given.sourceUri if chunk.image is given else None) or given.uri or ""
    return Cited(url, given.title or "", quote=quote)


def _indices(value: Raw) -> list[int]:
    try:
        return _indices_of(value)[:MAX_SOURCES]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def _quoted(citations: msgspec.Struct, text: _Text) -> Iterator[Cited]:
    if not isinstance(citations, _Citations):
        return
    for citation in (citations.citationSources or citations.citations or ())[:MAX_SOURCES]:
        if citation.uri or citation.title:
            start, end = text.place(citation.startIndex or 0, citation.endIndex or 0, "")
            yield Cited(citation.uri or "", citation.title or "", start, end)
