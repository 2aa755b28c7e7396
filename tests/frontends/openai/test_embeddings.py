"""The request of embeddings: what is counted, what is refused, and what goes on as it came."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.errors import BadRequest
from sluice.frontends import Answer, Head
from sluice.frontends.openai import embeddings as module
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.openai.embeddings import embeddings
from sluice.model.events import Finished, Started, Verbatim
from sluice.model.operations import OperationRequest


def ask(wire: object) -> OperationRequest:
    return embeddings(json.dumps(wire).encode(), Head())


@pytest.mark.parametrize(("value", "tokens", "longest"), [
    ("a" * 40, 10, 10), ("", 0, 0), ("ä" * 20, 10, 10), (["a" * 40, "b" * 8], 12, 10), ([1, 2, 3], 3, 3),
    ([[1, 2, 3], [4]], 4, 3), ([{"text": "a" * 8}, {"image": "data:image/png;base64,AAAA"}], 1002, 1000),
])  # fmt: skip
def test_every_form_of_input_is_counted(value: Any, tokens: int, longest: int) -> None:
    request = ask({"model": "m", "input": value})
    assert (request.estimated_tokens(), request.longest, request.model, request.stream) == (
        tokens,
        longest,
        "m",
        False,
    )
    assert (request.operation, request.dialect, request.generates) == ("embeddings", "openai", False)


@pytest.mark.parametrize(("wire", "param", "reason"), [
    ({"model": "m"}, "input", "input: is required"),
    ({"model": "m", "input": None}, "input", "input: must be a string, "),
    ({"model": "m", "input": []}, "input", "input: must not be empty"),
    ({"model": "m", "input": [[]]}, "input", "input: must not be empty"),
    ({"model": "m", "input": 5}, "input", "input: must be a string, "),
    ({"model": "m", "input": True}, "input", "input: must be a string, "),
    ({"model": "m", "input": [1, "a"]}, "input", "input: must be a string, "),
    ({"model": "m", "input": [1.5]}, "input", "input: must be a string, "),
    ({"model": "m", "input": [-1]}, "input", "input: must be a string, "),
    ({"model": "m", "input": [[1], [True]]}, "input", "input: must be a string, "),
    ({"model": "m", "input": [[[1]]]}, "input", "input: must be a string, "),
    ({"model": "", "input": "a"}, "model", "model: must be a string that names a model"),
    ({"model": 5, "input": "a"}, "model", "model: must be a string that names a model"),
])  # fmt: skip
def test_what_is_no_request_is_refused_by_its_field(wire: Any, param: str, reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ask(wire)
    assert refused.value.param == param
    assert refused.value.message.startswith(reason)


@pytest.mark.parametrize("value", ["a", [1] * 20_000])
@pytest.mark.parametrize("name", ["Model", "INPUT", "Dimensions", "encodinG_format"])
def test_names_that_some_servers_take_for_others_are_refused(name: str, value: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        ask({"model": "m", "input": value, name: "other"})
    assert refused.value.param == name.lower()


def test_a_model_may_be_left_to_the_key() -> None:
    assert ask({"input": "a"}).model is None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"input":"a","input":"b"}', b'{"input":"\\ud800"}', b"\xff"]
)
def test_a_body_that_is_no_plain_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        embeddings(body, Head())


# --- long lists of tokens


def long(lists: object, **more: Any) -> bytes:
    return json.dumps({"model": "m", **more, "input": lists}).encode()


def test_more_tokens_than_any_body_may_have_values_are_counted() -> None:
    lists = [list(range(100, 350)) for _ in range(1000)]
    request = embeddings(long(lists), Head())
    assert (request.tokens, request.longest) == (250_000, 250)
    assert request.body
    assert isinstance(request.wire, dict)
    assert json.loads(msgspec.json.encode(request.wire)) == {"model": "m", "input": lists}
    assert embeddings(long(list(range(200_000))), Head()).tokens == 200_000


MANY = [1] * 20_000


@pytest.mark.parametrize(
    "lists", [[MANY, []], [MANY, 5], [MANY, [[2]]], [[]] * 20_000, [*MANY, [2]], [*MANY, []]]
)
def test_long_lists_that_are_none_are_refused(lists: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        embeddings(long(lists), Head())
    assert refused.value.param == "input"


@pytest.mark.parametrize("body", [
    b'{"input":%b,"input":[1]}', b'{"input":[1],"input":%b}', b'{"input":%b,"a":1,"a":2}', b'{"input":%b,"a":NaN}',
    b'[{"input":%b}]', b'{"input":%b',
])  # fmt: skip
def test_all_but_a_long_input_is_judged_as_any_body_is(body: bytes) -> None:
    with pytest.raises(BadRequest):
        embeddings(body % json.dumps([7] * 20_000).encode(), Head())


def test_what_stands_elsewhere_too_is_read_the_long_way() -> None:
    lists = [7] * 20_000
    request = embeddings(long(lists, user=json.dumps(lists)), Head())
    assert (request.tokens, request.wire) == (
        20_000,
        {"model": "m", "user": json.dumps(lists), "input": lists},
    )


@given(
    st.lists(st.integers(0, 300_000), min_size=1)
    | st.lists(st.lists(st.integers(0, 9), min_size=1), min_size=1),
    st.booleans(),
)
def test_both_ways_count_the_same(lists: Any, spaced: bool) -> None:
    body = json.dumps({"model": "m", "input": lists}, indent=1 if spaced else None).encode()
    short, long = module._any(body), module._long_lists(body)
    assert long is not None
    assert long[1] == short[1]
    assert json.loads(msgspec.json.encode(long[0])) == short[0]


def test_vectors_are_told_in_base64_where_the_caller_wants_them_so() -> None:
    chat = embeddings(b'{"input":"a","model":"m","encoding_format":"base64"}', Head())
    encoder = OpenAI().encoder(chat, Answer("r", "m", 1), verbatim=True)
    told = b'{"data":[{"embedding": [1.0,0.5],"index":0}],"new":1}'
    events = [Started(), Finished("stop")]
    read = json.loads(encoder.encode([*events, Verbatim(told, whole=True, made=True)]))
    assert read == {"data": [{"embedding": "AACAPwAAAD8=", "index": 0}], "new": 1}
    assert encoder.encode([*events, Verbatim(told, whole=True)]) == told
