"""Embeddings and counts of tokens by Gemini's API and Vertex AI."""

import json
from typing import Any

import pytest

from sluice.errors import BadRequest, UpstreamError
from sluice.frontends.gemini import operations as frontend
from sluice.frontends.openai.embeddings import embeddings
from sluice.model.events import Finished, StreamEvent, Usage, Verbatim
from sluice_plugins.gemini.backend import Gemini
from tests.plugins.gemini.test_passing import head

VERTEX = Gemini(project="p", location="us-central1")
CONTENT = {"parts": [{"text": "a"}, {"text": "b"}]}


def sent(backend: Gemini, name: str, dialect: str, chat: Any, model: str) -> tuple[str, Any]:
    operation = backend.operation(name, dialect)
    assert operation is not None
    request = operation.whole_request(chat, model)
    return request.url.partition("/v1")[2], json.loads(request.body)


def of_openai(**fields: Any) -> Any:
    return embeddings(json.dumps({"model": "chat", **fields}).encode(), head())


def of_gemini(*requests: Any) -> Any:
    return frontend.embed_all(json.dumps({"requests": requests}).encode(), head())


def test_texts_of_openais_callers() -> None:
    url, body = sent(Gemini(), "embeddings", "openai", of_openai(input=["a", "b"], dimensions=8), "models/e")
    assert url == "beta/models/e:batchEmbedContents"
    one, other = body["requests"]
    assert one == {"model": "models/e", "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 8}
    assert other["content"] == {"parts": [{"text": "b"}]}
    with pytest.raises(BadRequest):
        sent(Gemini(), "embeddings", "openai", of_openai(input=[1, 2]), "e")


def test_requests_of_geminis_callers_keep_their_fields() -> None:
    own = {
        "model": "models/chat",
        "content": CONTENT,
        "task_type": "CLUSTERING",
        "embedContentConfig": {"new": 1},
    }
    _, body = sent(Gemini(), "embeddings", "openai", of_gemini(own), "e")
    [request] = body["requests"]
    assert request == {
        "model": "models/e", "content": CONTENT, "taskType": "CLUSTERING", "embedContentConfig": {"new": 1}
    }  # fmt: skip


def test_vertex_embeds_by_two_methods() -> None:
    chat = of_gemini({"content": CONTENT, "taskType": "CLUSTERING", "title": "t", "outputDimensionality": 3})
    url, body = sent(VERTEX, "embeddings", "openai", chat, "text-embedding-005")
    assert url == "/projects/p/locations/us-central1/publishers/google/models/text-embedding-005:predict"
    assert body == {
        "instances": [{"content": "ab", "task_type": "CLUSTERING", "title": "t"}],
        "parameters": {"outputDimensionality": 3},
    }
    url, body = sent(VERTEX, "embeddings", "openai", of_openai(input="a"), "gemini-embedding-2")
    assert url.endswith("/gemini-embedding-2:embedContent")
    assert body == {"content": {"parts": [{"text": "a"}]}}
    with pytest.raises(BadRequest):
        sent(VERTEX, "embeddings", "openai", of_openai(input=["a", "b"]), "gemini-embedding-2")


ANSWERS: list[tuple[Any, list[Any], Usage | None]] = [
    ({"embeddings": [{"values": [1, 0.5]}, {"values": [2]}]}, [[1, 0.5], [2]], None),
    ({"embedding": {"values": [1]}, "usageMetadata": {"promptTokenCount": 7}}, [[1]], Usage(7)),
    ({"predictions": [{"embeddings": {"values": [1], "statistics": {"token_count": 4.0}}}]}, [[1]], Usage(4)),
]


def answered(decoder: Any, body: bytes) -> list[StreamEvent]:
    events = [event for byte in body for event in decoder.feed(bytes([byte]))]
    return [*events, *decoder.close()]


@pytest.mark.parametrize(("answer", "vectors", "usage"), ANSWERS)
def test_answers_become_openais(answer: Any, vectors: list[Any], usage: Usage | None) -> None:
    operation = Gemini().operation("embeddings", "openai")
    assert operation is not None
    *_, finished, passed = answered(operation.whole_decoder(), json.dumps(answer).encode())
    assert isinstance(finished, Finished)
    assert finished.usage == usage
    assert isinstance(passed, Verbatim)
    told = json.loads(passed.data)
    assert [item["embedding"] for item in told["data"]] == vectors
    assert [item["index"] for item in told["data"]] == list(range(len(vectors)))


BROKEN = [b"", b"[]", b"<html>", b'{"error":{"code":429,"message":"x"}}', b'{"totalTokens":"x"}']


@pytest.mark.parametrize("body", [*BROKEN, b"{}", b'{"embeddings":[{"values":null}]}', b'{"embeddings":[]}'])
def test_what_has_no_embeddings_is_an_error(body: bytes) -> None:
    operation = Gemini().operation("embeddings", "openai")
    assert operation is not None
    with pytest.raises(UpstreamError):
        answered(operation.whole_decoder(), body)


@pytest.mark.parametrize("body", BROKEN)
def test_what_is_no_count_is_an_error(body: bytes) -> None:
    operation = Gemini().operation("count_tokens", "gemini")
    assert operation is not None
    with pytest.raises(UpstreamError):
        answered(operation.whole_decoder(), body)


def counted(**body: Any) -> Any:
    return frontend.count(json.dumps(body).encode(), head())


def test_counts() -> None:
    contents = [{"parts": [{"text": "?"}]}]
    assert sent(Gemini(), "count_tokens", "gemini", counted(contents=contents), "m") == (
        "beta/models/m:countTokens",
        {"contents": contents},
    )
    whole = {"contents": contents, "systemInstruction": CONTENT}
    for given in (whole, {"generate_content_request": {**whole, "model": "models/chat"}}):
        _, body = sent(Gemini(), "count_tokens", "gemini", counted(**given), "m")
        assert body == {"generateContentRequest": {**whole, "model": "models/m"}}
        _, body = sent(VERTEX, "count_tokens", "gemini", counted(**given), "m")
        assert body == whole
    answer = b'{"totalTokens": 5, "cachedContentTokenCount": 2}'
    operation = Gemini().operation("count_tokens", "gemini")
    assert operation is not None
    *_, finished, passed = answered(operation.whole_decoder(), answer)
    assert passed == Verbatim(answer, whole=True)
    assert isinstance(finished, Finished)
    assert finished.usage == Usage()
