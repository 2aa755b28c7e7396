"""Sources that Gemini names of its answers."""

import json
from typing import Any

import pytest

from sluice.model.events import Cited, Finished
from sluice_plugins.gemini.backend import Gemini
from tests.wire import cuts

PAGE = {"web": {"uri": "https://a", "title": "A"}}
DOCUMENT = {"retrievedContext": {"uri": "gs://b", "title": "B", "text": "says"}}
A, B = Cited("https://a", "A"), Cited("gs://b", "B", quote="says")


def support(start: Any, end: int, text: str = "", *indices: Any) -> dict[str, Any]:
    return {
        "segment": {"startIndex": start, "endIndex": end, "text": text},
        "groundingChunkIndices": list(indices or (0,)),
    }


def grounding(*supports: Any, chunks: Any = (PAGE, DOCUMENT)) -> dict[str, Any]:
    return {"groundingMetadata": {"groundingChunks": list(chunks), "groundingSupports": list(supports)}}


def at(cited: Cited, start: int, end: int) -> Cited:
    return Cited(cited.url, cited.title, start, end, cited.quote)


CASES: dict[str, tuple[dict[str, Any], list[Cited]]] = {
    "places in bytes": (grounding(support(None, 3, "Üx", 0, 1), support(4, 9, "zwölf"[:4], 1)),
                        [at(A, 0, 2), at(B, 0, 2), at(B, 3, 7)]),
    "a place that does not fit is looked for": (grounding(support(1, 2, "zwölf")), [at(A, 3, 8), B]),
    "a place that is nowhere": (grounding(support(90, 99, "nowhere"), support(5, 1)), [A, B]),
    "an index that is none": (grounding(support(0, 3, "", 7, -1), support(0, 3, "", "x"), support(0, 2**70)), [A, B]),
    "chunks alone": ({"groundingMetadata": {"groundingChunks": [PAGE, {"new": {}}, {"maps": {"uri": "m"}}]}}, [A, Cited("m")]),
    "fields of other types": ({"groundingMetadata": {"groundingChunks": PAGE, "groundingSupports": 7}}, [A]),
    "no object": ({"groundingMetadata": "x", "citationMetadata": [1]}, []),
    "citations": ({"citationMetadata": {"citationSources": [{"startIndex": 4, "endIndex": 10, "uri": "https://c"}]}},
                  [Cited("https://c", "", 3, 8)]),
    "Vertex AI's citations": ({"citationMetadata": {"citations": [{"endIndex": 3, "title": "T"}, {"license": "mit"}]}},
                              [Cited("", "T", 0, 2)]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_sources_are_told_at_the_end_with_their_places_in_characters(case: str) -> None:
    metadata, expected = CASES[case]
    chunks = [{"content": {"parts": [{"text": text}]}} for text in ("Ü", "x ", "zwölf")]
    last = {"finishReason": "STOP", **metadata}
    again = {**metadata, "finishReason": 1}
    wire = b"".join(
        [b"data: %b\n\n" % json.dumps({"candidates": [one]}).encode() for one in (*chunks, last, again)]
    )
    for reads in ([wire], cuts.bytewise(wire)):
        decoder = Gemini().decoder()
        events = [event for read in reads for event in decoder.feed(read)] + decoder.close()
        assert [event for event in events if isinstance(event, Cited)] == expected
        assert isinstance(events[-1], Finished)
