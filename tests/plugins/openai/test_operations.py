"""Moderations, images and reranking as OpenAI's dialect and Cohere carry them: requests, answers, what they
cost."""

import json
from typing import Any

import pytest

from sluice.errors import UpstreamError
from sluice.frontends import Head
from sluice.frontends.openai.operations import rerank
from sluice.model.events import Finished, Usage, Verbatim
from sluice_plugins.cohere.backend import Cohere
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.openai.operations import WholeDecoder

RESULTS = b'"results":[{"index":1,"relevance_score":0.9}]'
USAGE: list[tuple[str, bytes, Any]] = [
    ("results", b'"usage":{"total_tokens":37}', Usage(37, 0)),
    ("results", b'"usage":{"prompt_tokens":30,"total_tokens":30}', Usage(30, 0)),
    ("results", b'"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1}}', None),
    ("results", b'"meta":{"tokens":{"input_tokens":45,"output_tokens":0}}', Usage(45, 0)),
    ("results", b'"usage":[]', None), ("results", b'"usage":{"total_tokens":"x"}', None), ("results", b'"id":"modr-1"', None),
    ("data", b'"usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210}', Usage(50, 4160)),
    ("data", b'"created":7', None),
]  # fmt: skip


@pytest.mark.parametrize(("member", "more", "usage"), USAGE)
def test_an_answer_is_passed_on_and_counted_however_it_comes(
    member: str, more: bytes, usage: Usage | None
) -> None:
    body = b'{"model":"m",%b,%b}' % (
        RESULTS if member == "results" else b'"data":[{"b64_json":"AAAA"}]',
        more,
    )
    for size in (len(body), 1, 7):
        decoder = WholeDecoder(member)
        for at in range(0, len(body), size):
            assert decoder.feed(body[at : at + size]) == []
        events = decoder.close()
        assert events[-1] == Verbatim(body, whole=True)
        assert [event.usage for event in events if isinstance(event, Finished)] == [usage]


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b'{"results":{}}', b'{"results":null}', b'{"error":{"message":"no","type":"server_error"}}', b"<html>",
])  # fmt: skip
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    decoder = WholeDecoder("results")
    decoder.feed(body)
    with pytest.raises(UpstreamError):
        decoder.close()


@pytest.mark.parametrize(("backend", "name", "dialect", "url"), [
    (OpenAI(base_url="https://a.example/v1"), "moderations", "openai", "https://a.example/v1/moderations"),
    (OpenAI(base_url="https://a.example/v1"), "images", "openai", "https://a.example/v1/images/generations"),
    (OpenAI(base_url="https://a.example/v1?k=1"), "rerank", "rerank", "https://a.example/v1/rerank?k=1"),
    (Cohere(), "rerank", "rerank", "https://api.cohere.com/v2/rerank"),
    (Cohere(base_url="https://a.example/v2"), "rerank", "rerank", "https://a.example/v2/rerank"),
])  # fmt: skip
def test_it_is_asked_for_at_its_place_under_the_models_name(
    backend: Any, name: str, dialect: str, url: str
) -> None:
    chat = rerank(b'{"model":"a", "query":"q", "documents": ["d"],  "top_n":1}', Head())
    request = backend.operation(name, dialect).whole_request(chat, "m")
    assert (request.url, request.body) == (url, b'{"model":"m", "query":"q", "documents": ["d"],  "top_n":1}')
    assert ("accept", "application/json") in request.headers
    unnamed = rerank(json.dumps({"query": "q", "documents": ["d"]}).encode(), Head())
    assert json.loads(backend.operation(name, dialect).whole_request(unnamed, "m").body)["model"] == "m"


def test_what_is_not_carried_is_told() -> None:
    assert OpenAI().operation("rerank", "openai") is None
    assert OpenAI().operation("images", "ollama") is None
    assert Cohere().operation("moderations", "openai") is None
