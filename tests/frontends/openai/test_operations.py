"""Requests of moderations, images and reranking: what is looked at, and about how large they are."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.openai.operations import images, moderations, rerank, speech

Parse = Callable[..., Any]
TEXT = "a" * 400


@pytest.mark.parametrize(("parse", "fields", "tokens", "longest"), [
    (moderations, {"input": TEXT}, 100, 100), (moderations, {"input": [TEXT, "b" * 40]}, 110, 100),
    (moderations, {"input": [{"type": "text", "text": TEXT}, {"type": "image_url", "image_url": {"url": "x"}}]}, 1100, 1000),
    (images, {"prompt": TEXT, "n": 2, "stream": False}, 100, 100),
    (rerank, {"query": "q" * 40, "documents": [TEXT, {"text": "c" * 80}]}, 140, 110),
    (rerank, {"query": {"text": "q" * 40}, "documents": [{"image": "https://a.example/a.png"}]}, 1010, 1010),
    (rerank, {"query": "q", "documents": [{"title": "b" * 40, "year": 1}]}, 10, 10),
])  # fmt: skip
def test_a_request_is_passed_on_with_its_size(parse: Parse, fields: Any, tokens: int, longest: int) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    asked = parse(body, Head())
    assert (asked.model, asked.tokens, asked.longest, asked.stream) == ("m", tokens, longest, False)
    assert asked.wire == json.loads(body)
    assert asked.body == body


@pytest.mark.parametrize(("parse", "fields", "param"), [
    (moderations, {}, "input"), (moderations, {"input": []}, "input"), (moderations, {"input": [1]}, "input"),
    (moderations, {"input": 7}, "input"), (moderations, {"input": "a", "model": 3}, "model"),
    (moderations, {"input": "a", "model": ""}, "model"),
    (images, {}, "prompt"), (images, {"prompt": ""}, "prompt"), (images, {"prompt": "a", "stream": True}, "stream"),
    (rerank, {"documents": ["a"]}, "query"), (rerank, {"query": "a", "documents": "b"}, "documents"),
    (rerank, {"query": "a", "documents": []}, "documents"), (rerank, {"query": "a", "documents": [None]}, "documents"),
])  # fmt: skip
def test_what_is_none_is_refused_by_its_field(parse: Parse, fields: Any, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(json.dumps(fields).encode(), Head())
    assert refused.value.param == param


@pytest.mark.parametrize("parse", [moderations, images, rerank])
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":"a","model":"b"}', b'"a"', b"\xff"])
def test_what_is_no_object_is_refused(parse: Parse, body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(body, Head())


@pytest.mark.parametrize(("parse", "fields"), [
    (moderations, {"input": "a"}), (images, {"prompt": "a"}), (speech, {"input": "a", "voice": "alloy"}),
    (rerank, {"query": "a", "documents": ["a"]}),
])  # fmt: skip
@pytest.mark.parametrize(("more", "param"), [({"Model": "other"}, "model"), ({"a_b": 1, "A_B": 2}, "body")])
def test_names_that_some_servers_take_for_others_are_refused(
    parse: Parse, fields: Any, more: Any, param: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(json.dumps({"model": "m", **fields, **more}).encode(), Head())
    assert refused.value.param == param
    assert (
        parse(json.dumps({"model": "m", "Vendors_own": 1, **fields}).encode(), Head()).wire["Vendors_own"]
        == 1
    )
