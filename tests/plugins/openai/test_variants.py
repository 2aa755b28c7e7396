"""Chunks and whole answers of servers whose form deviates from the dialect are read, and passed on in its form."""

import json
from typing import Any

import pytest

from sluice_plugins.openai.backend import OpenAI
from tests.plugins.lanes import DONE, LANES, PASSED_ON, Value, call, chunk, document, heard, openai, sse
from tests.wire import cuts

lanes = pytest.mark.parametrize("name", LANES)
HEAD = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}


def choice(**fields: Any) -> Value:
    return {**HEAD, "choices": [{"index": 0, **fields}]}


def flat(**call: Any) -> Value:
    return choice(delta={"tool_calls": [call]})


def whole(message: Value | None = None, **fields: Any) -> Value:
    said = {} if message is None else {"message": {"role": "assistant", **message}}
    return {**HEAD, "object": "chat.completion", "choices": [{"index": 0, **said, **fields}]}


CALLS = [("f", '{"x":1}'), ("g", "{}")]
FLAT: dict[str, list[Value]] = {
    "whole calls": [
        flat(index=0, id="a", name="f", arguments='{"x":1}'),
        flat(index=1, id="b", name="g", arguments="{}"),
    ],
    "in pieces": [
        flat(index=0, id="a", type="function", name="f", arguments=""),
        flat(index=0, arguments='{"x"'),
        flat(index=0, arguments=":1}"),
        flat(index=1, id="b", name="g"),
    ],
    "arguments that are objects, and no index": [
        flat(id="a", name="f", arguments={"x": 1}),
        flat(id="b", name="g", arguments={}),
    ],
    "among ones in form": [
        flat(index=0, id="a", name="f", function=None, arguments='{"x":1}'),
        choice(delta=call("{}", name="g", index=1, id="b", type="function")),
    ],
    "both at once": [
        choice(delta={"tool_calls": [
            {"index": 0, "id": "a", "name": "f", "arguments": '{"x":1}'}, {"index": 1, "id": "b", "name": "g"},
        ]}),
    ],
    "one that stands alone": [
        choice(delta={"tool_calls": {"id": "a", "name": "f", "arguments": '{"x":1}'}}),
        choice(delta={"tool_calls": {"id": "b", "name": "g", "arguments": None}}),
    ],
}  # fmt: skip


@lanes
@pytest.mark.parametrize("chunks", FLAT.values(), ids=FLAT)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_calls_without_a_function_are_calls(name: str, chunks: list[Value], finish: str) -> None:
    body = sse(*chunks, chunk({}, finish), DONE)
    for reads in ([body], *cuts.single(body, 61)):
        found = openai(LANES[name], reads)
        assert found.said == ("", "", CALLS, "tool_calls", "")
        assert found.ids == ["a", "b"]


def test_flat_calls_of_a_whole_answer_are_calls() -> None:
    calls = [{"id": "a", "name": "f", "arguments": {"x": 1}}, {"id": "b", "name": "g", "arguments": "{}"}]
    for finish in ("stop", None, "tool_calls"):
        found = document(whole({"content": None, "tool_calls": calls}, finish_reason=finish))
        assert (found.calls, found.ids, found.finish) == (CALLS, ["a", "b"], "tool_calls")


def test_a_half_of_a_pair_in_flat_arguments_meets_the_other() -> None:
    body = b"".join(
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,%b}]}}]}\n\n' % piece
        for piece in (rb'"id":"a","name":"f","arguments":"{\"x\":\"\ud83d"', rb'"arguments":"\ude00\"}"')
    ) + sse(chunk({}, "tool_calls"), DONE)
    for lane in LANES.values():
        assert openai(lane, [body]).calls == [("f", '{"x":"\N{GRINNING FACE}"}')]


TEXTS: dict[str, list[Value]] = {
    "no delta": [choice(text="Hel"), choice(text="lo"), choice(text="", finish_reason="stop")],
    "a delta that is null": [choice(delta=None, text="Hello"), choice(delta=None, text="", finish_reason="stop")],
    "a delta of nothing": [
        choice(delta={"role": "assistant"}, text="Hello", finish_reason=None), choice(delta={}, finish_reason="stop"),
    ],
    "a delta of an empty text": [choice(delta={"content": ""}, text="Hello"), choice(delta={}, finish_reason="stop")],
    "all at once": [choice(text="Hello", finish_reason="stop")],
    "no index": [{**HEAD, "choices": [{"text": "Hello", "finish_reason": "stop"}]}],
    "of /completions by name": [
        {**choice(text="Hello"), "object": "text_completion"}, choice(text="", finish_reason="stop"),
    ],
    "beside the same content": [
        choice(delta={"content": "Hel"}, text="Hel"), choice(delta={"content": "lo"}, text="lo"),
        choice(delta={"content": ""}, text="", finish_reason="stop"),
    ],
}  # fmt: skip


@lanes
@pytest.mark.parametrize("chunks", TEXTS.values(), ids=TEXTS)
def test_chunks_that_have_their_text_as_completions_have_it(name: str, chunks: list[Value]) -> None:
    body = sse(*chunks, DONE)
    for reads in ([body], *cuts.single(body, 61)):
        assert openai(LANES[name], reads).said == ("Hello", "", [], "stop", "")


def test_every_chunk_with_a_text_is_passed_on_with_a_delta() -> None:
    body = sse(*TEXTS["of /completions by name"], DONE)
    [passed] = [event for event in OpenAI().decoder(verbatim=True).feed(body) if hasattr(event, "data")]
    chunks = [json.loads(frame[6:]) for frame in passed.data.decode().split("\n\n")[:-1]]
    assert [chunk["object"] for chunk in chunks] == ["chat.completion.chunk"] * 2
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"content": "Hello"}, {"content": ""}]


def test_text_beside_content_leaves_frames_as_they_are() -> None:
    body = sse(*TEXTS["beside the same content"])
    [passed] = [event for event in OpenAI().decoder(verbatim=True).feed(body) if hasattr(event, "data")]
    assert passed.data == body


def test_a_whole_answer_may_have_its_text_as_completions_have_it() -> None:
    answer = {**whole(text="Hello", finish_reason="stop"), "object": "text_completion"}
    found = document(answer)
    assert (found.text, found.finish) == ("Hello", "stop")
    for lane in LANES.values():
        assert openai(lane, [json.dumps(answer).encode()]).said == ("Hello", "", [], "stop", "")


@lanes
def test_chunks_in_an_envelope_are_chunks(name: str) -> None:
    chunks = [chunk({"content": "Hello"}), chunk({"content": "!"}), chunk({}, "stop")]
    body = sse(*[{"code": 0, "data": value} for value in chunks], DONE)
    for reads in ([body], *cuts.single(body, 61)):
        assert openai(LANES[name], reads).said == ("Hello!", "", [], "stop", "")
    mixed = sse(chunks[0], {"data": chunks[1]}, chunks[2], DONE)
    assert openai(LANES[name], [mixed]).text == "Hello!"
    answer = {"msg": "ok", "data": whole({"content": "Hello"}, finish_reason="stop")}
    assert openai(LANES[name], [json.dumps(answer).encode()]).said == ("Hello", "", [], "stop", "")
    assert document(answer).text == "Hello"


def test_an_envelope_of_something_else_is_none() -> None:
    for data in ({}, {"text": "a"}, {"choices": None}, [1], "choices", {"choices": []}):
        body = sse(chunk({"content": "Hi"}), {"data": data}, chunk({}, "stop"), DONE)
        assert openai(LANES["chunks"], [body]).said == ("Hi", "", [], "stop", "")


@pytest.mark.parametrize("odd", [7, 0, 1.5, True, [], {}, {"type": "x"}, [[]]])
@pytest.mark.parametrize("name", PASSED_ON)
def test_a_finish_reason_that_is_none_is_null_in_frames(name: str, odd: Any) -> None:
    body = sse(chunk({"content": "Hi"}, odd), chunk({"content": "!"}, odd), chunk({}, "length"), DONE)
    decoder = OpenAI().decoder(verbatim=True)
    assert heard(PASSED_ON[name], decoder, [body]).said == ("Hi!", "", [], "length", "")
    assert decoder.skipped_fields == 2
    [passed] = [event for event in OpenAI().decoder(verbatim=True).feed(body) if hasattr(event, "data")]
    choices = [json.loads(frame[6:])["choices"][0] for frame in passed.data.decode().split("\n\n")[:-1]]
    assert [choice["finish_reason"] for choice in choices] == [None, None, "length"]


def test_a_finish_reason_in_a_list_is_one() -> None:
    for lane in LANES.values():
        assert openai(lane, [sse(chunk({"content": "Hi"}, ["length"]), DONE)]).finish == "length"
    assert document(whole({"content": "Hi"}, finish_reason=["length"])).finish == "length"
    assert document(whole({"content": "Hi"}, finish_reason=3)).finish == "stop"
