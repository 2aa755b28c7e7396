"""OpenAI's document of embeddings, and what is written of it in other dialects."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from sluice.errors import UpstreamGarbled
from sluice.frontends.gemini import operations as gemini
from sluice.frontends.ollama import embeddings as ollama
from sluice.frontends.vectors import vectors_in
from sluice.model.events import Finished, Started, Verbatim

NONE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"data": null}',
    b'{"data": []}',
    b'{"data": [{}]}',
    b"\xff",
    b"[" * 100_000,
]


def test_vectors_come_in_the_order_of_their_inputs_as_they_were_written() -> None:
    document = b'{"data": [{"index": 1, "embedding": [1.50, 2e0]}, {"index": 0, "embedding": "AAAA"}]}'
    assert [bytes(vector) for vector in vectors_in(document)] == [b'"AAAA"', b"[1.50, 2e0]"]


@pytest.mark.parametrize("document", NONE)
def test_a_document_without_vectors_is_a_broken_answer(document: bytes) -> None:
    with pytest.raises(UpstreamGarbled):
        vectors_in(document)


def encoders() -> list[Any]:
    answer: Any = SimpleNamespace(reveal=False, model="alias", clock=lambda: 2.0, received=1.0)
    profiles = (gemini.ONE, gemini.PREDICTED, "")
    return [*map(gemini.Vectors, profiles), *(ollama.Vectors(answer, one=one) for one in (True, False))]


@pytest.mark.parametrize("document", NONE[1:])
def test_callers_of_other_dialects_are_told_so(document: bytes) -> None:
    for encoder in encoders():
        written = encoder.encode([Started("", "m"), Verbatim(document, whole=True), Finished("stop")])
        assert "error" in json.loads(written), written
