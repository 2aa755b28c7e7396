"""Embeddings as an upstream of OpenAI's dialect is asked for them, and answers."""

import json
from typing import Any

import pytest

from sluice.backends.protocol import CarriesOperations, Operation
from sluice.errors import UpstreamError, UpstreamGarbled
from sluice.frontends import Head
from sluice.frontends.openai.embeddings import embeddings
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice_plugins.openai.backend import OpenAI

ITEM = {"object": "embedding", "index": 0, "embedding": [0.25, -1.5e-3]}
ANSWER = {"object": "list", "data": [ITEM], "model": "te-3", "usage": {"prompt_tokens": 7, "total_tokens": 7}}


def operation(**options: Any) -> Operation:
    found = OpenAI(base_url="https://api.example.com/v1", **options).operation("embeddings", "openai")
    assert found is not None
    return found


def sent(body: bytes, model: str = "te-3", **options: Any) -> bytes:
    return operation(**options).whole_request(embeddings(body, Head()), model).body


def test_only_what_is_carried_is_carried() -> None:
    backend = OpenAI()
    assert isinstance(backend, CarriesOperations)
    assert backend.operation("rerank", "openai") is None
    assert backend.operation("embeddings", "cohere") is None


@pytest.mark.parametrize(("base", "url"), [
    ("https://x.example/v1", "https://x.example/v1/embeddings"),
    ("https://x.example/v1/chat/completions", "https://x.example/v1/embeddings"),
    ("https://x.example/openai/deployments/d?api-version=1", "https://x.example/openai/deployments/d/embeddings?api-version=1"),
])  # fmt: skip
def test_its_address_is_beside_that_of_chats(base: str, url: str) -> None:
    found = OpenAI(base_url=base, organization="o").operation("embeddings", "openai")
    assert found is not None
    request = found.whole_request(embeddings(b'{"input":"a"}', Head()), "m")
    assert request.url == url
    assert {("accept", "application/json"), ("openai-organization", "o")} <= {*request.headers}


def test_a_body_goes_on_as_it_came_but_for_the_model() -> None:
    body = b'{ "input": ["a",  "b"],\n"model":"alias", "encoding_format":"base64", "dimensions": 2.50, "x": {"y": null} }'
    assert sent(body) == body.replace(b'"alias"', b'"te-3"')
    assert sent(body.replace(b"alias", b"te-3")) == body.replace(b"alias", b"te-3")


@pytest.mark.parametrize("body", [
    b'{"input":"a"}', b'{"input":"\\"model\\"","model":"m"}', b'{"input":"a","mod\\u0065l":"m"}',
    b'{"input":["\\"model\\":\\"x\\""],"model":"m"}',
    b'{"input" : {"text":"a","model":"z"},"model":"m"}',
])  # fmt: skip
def test_where_the_place_is_not_plain_the_object_is_written_anew(body: bytes) -> None:
    assert json.loads(sent(body)) == {**json.loads(body), "model": "te-3"}


def test_long_lists_go_on_to_the_letter() -> None:
    body = b'{"model":"alias", "input": %b }' % json.dumps([[7] * 30_000, [8]]).encode()
    assert sent(body) == body.replace(b'"alias"', b'"te-3"')
    without = json.dumps({"input": [7] * 30_000}).encode()
    assert json.loads(sent(without)) == {"input": [7] * 30_000, "model": "te-3"}


def read(body: bytes, size: int = 0) -> tuple[list[StreamEvent], Any]:
    decoder = operation().whole_decoder()
    pieces = [body[at : at + size] for at in range(0, len(body), size)] if size else [body]
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events + decoder.close(), decoder


@pytest.mark.parametrize("size", [0, 1, 7])
def test_an_answer_is_its_usage_and_itself(size: int) -> None:
    body = json.dumps(ANSWER).encode()
    events, _ = read(body, size)
    assert events == [
        Started(model="te-3"),
        TextDelta(""),
        Finished("stop", Usage(7, 0)),
        Verbatim(body, whole=True),
    ]


@pytest.mark.parametrize(("more", "usage"), [
    ({"usage": {"prompt_tokens": 7}}, Usage(7, 0)),
    ({"usage": {"total_tokens": 7}}, None),
    ({"usage": None}, None),
    ({"usage": {"prompt_tokens": "7", "total_tokens": 7}}, Usage(7, 0)),
    ({"usage": []}, None),
    ({"usage": "none", "model": 5}, None),
    ({"data": "AAAA"}, UpstreamGarbled),
    ({"data": []}, UpstreamGarbled),
    ({"data": None}, UpstreamGarbled),
    ({"data": None, "error": {"message": "Too slow", "code": "rate_limit_exceeded"}}, "rate_limited"),
])  # fmt: skip
def test_fields_of_another_type_spoil_nothing_else(more: dict[str, Any], usage: Any) -> None:
    body = json.dumps({**ANSWER, **more}).encode()
    if isinstance(usage, Usage | None):
        events, _ = read(body)
        [finished] = [event for event in events if isinstance(event, Finished)]
        assert finished.usage == usage
        assert events[-1] == Verbatim(body, whole=True)
    else:
        with pytest.raises(UpstreamError) as failed:
            read(body)
        assert failed.value.kind == usage if isinstance(usage, str) else isinstance(failed.value, usage)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"data":[', b"[]", b"{}", b'{"data":[NaN]}', b"null", b"\xff\xfe"]
)
def test_what_is_no_answer_is_none(body: bytes) -> None:
    with pytest.raises(UpstreamGarbled):
        read(body)


def test_vectors_of_megabytes_are_not_made_into_numbers() -> None:
    body = (
        b'{"data":[{"embedding":['
        + b"0.12345678," * 300_000
        + b'1]}],"usage":{"prompt_tokens":3,"total_tokens":3}}'
    )
    events, _ = read(body)
    assert events[-1] == Verbatim(body, whole=True)
