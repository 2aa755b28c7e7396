"""Sources of an answer in Gemini's form: `groundingMetadata`.

Google counts places in bytes of UTF-8, and we in characters: so the text is kept, as the pieces that it came
in.

Standard: https://ai.google.dev/api/generate-content#GroundingMetadata
"""

from typing import Any

from sluice.model.events import Cited

FOLD = 256
"""Pieces of text that are kept apart; beyond it they are joined."""
MAX_SOURCES = 1000
"""Maximum sources per answer."""


class Sources:
    """The sources of one answer; true if there are any."""

    __slots__ = ("_chunks", "_pieces", "_supports")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._chunks: dict[tuple[str, str], dict[str, Any]] = {}
        self._supports: list[tuple[int, int, int]] = []

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def text_passed(self, text: str) -> None:
        self._pieces.append(text)
        if len(self._pieces) > FOLD:
            self._pieces = ["".join(self._pieces)]

    def cite(self, cited: Cited) -> None:
        name = (cited.url, cited.title)
        if name not in self._chunks and len(self._chunks) < MAX_SOURCES:
            self._chunks[name] = _chunk(cited)
        if 0 <= cited.start < cited.end and name in self._chunks and len(self._supports) < MAX_SOURCES:
            self._supports.append((cited.start, cited.end, [*self._chunks].index(name)))

    def metadata(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"groundingChunks": [*self._chunks.values()]}
        if self._supports:
            text = "".join(self._pieces)
            fields["groundingSupports"] = [_support(text, *support) for support in self._supports]
        return fields


def _chunk(cited: Cited) -> dict[str, Any]:
    if cited.url:
        return {"web": {"uri": cited.url, "title": cited.title}}
    return {"retrievedContext": {"title": cited.title, "text": cited.quote}}


def _support(text: str, start: int, end: int, index: int) -> dict[str, Any]:
    before, within = _bytes(text[:start]), text[start:end]
    segment = {"startIndex": before, "endIndex": before + _bytes(within), "text": within}
    return {"segment": segment, "groundingChunkIndices": [index]}


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
