"""Answers that come in one piece: what is read of them, in any cut, and that they are passed on to the
byte."""

import json
from typing import Any

import pytest

from sluice.errors import UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.frontends import Answer
from sluice.frontends.openai.whole import Accumulated
from sluice.model.events import (
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
)
from sluice_plugins.openai.backend import OpenAI
from tests.wire import cuts

USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
}
START = Started("c", "m")


def completion(message: dict[str, Any] | None = None, finish: str | None = "stop", **more: Any) -> bytes:
    choice = {
        "index": 0,
        "message": message or {"role": "assistant", "content": "Hi"},
        "finish_reason": finish,
    }
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": USAGE, **more}).encode()


def read(reads: list[bytes]) -> list[StreamEvent]:
    decoder = OpenAI().whole_decoder()
    events = [event for data in reads for event in decoder.feed(data)]
    return events + decoder.close()


def call(id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


REPORTED = Usage(3, 2, cached_input=1)
STOP = Finished("stop", REPORTED, "stop")
ANSWERS: list[tuple[str, bytes, list[StreamEvent]]] = [
    ("text", completion(), [START, TextDelta("Hi"), STOP]),
    ("white space around it", b" \r\n\n" + completion() + b"\n", [START, TextDelta("Hi"), STOP]),
    ("nothing", completion({"role": "assistant", "content": ""}), [START, STOP]),
    ("a vendor's fields", completion(service_tier="x", odd=[1, {"y": None}]), [START, TextDelta("Hi"), STOP]),
    (
        "reasoning",
        completion({"reasoning_content": "Hm", "content": "Hi"}),
        [START, ReasoningDelta("Hm"), TextDelta("Hi"), STOP],
    ),
    ("a refusal", completion({"content": None, "refusal": "No"}), [START, RefusalDelta("No"), STOP]),
    (
        "two calls without an index, of one name",
        completion(
            {"content": None, "tool_calls": [call("a", "f", "{}"), call("b", "f", '{"x":1}')]}, "tool_calls"
        ),
        [
            START,
            ToolCallStarted(0, "a", "f"),
            ToolCallDelta(0, "{}"),
            ToolCallStarted(1, "b", "f"),
            ToolCallDelta(1, '{"x":1}'),
            Finished("tool_calls", REPORTED, "tool_calls"),
        ],
    ),
    (
        "cut by its limit",
        completion(finish="length"),
        [START, TextDelta("Hi"), Finished("length", REPORTED, "length")],
    ),
    ("without usage", completion(usage=None), [START, TextDelta("Hi"), Finished("stop", None, "stop")]),
]


@pytest.mark.parametrize(
    ("body", "events"), [pytest.param(body, events, id=name) for name, body, events in ANSWERS]
)
def test_an_answer_is_read_in_any_cut_and_passed_on_to_the_byte(
    body: bytes, events: list[StreamEvent]
) -> None:
    for reads in cuts.exhaustive(body):
        *found, last = read(reads)
        assert found == events
        assert last == Verbatim(last.data, whole=True)  # type: ignore[union-attr]
        said = Accumulated(Answer("id", "chat", 1)).encode([*found, last])
        assert said.lstrip() == body.lstrip(), "but for white space before it"


THOUGHTS = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}, {"type": "text", "text": "."}]}


@pytest.mark.parametrize(
    ("content", "message", "told"),
    [
        (
            [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Hi"}],
            {"content": "Hi", "reasoning_content": "Hm."},
            [ReasoningDelta("Hm."), TextDelta("Hi")],
        ),
        (
            [THOUGHTS, {"type": "text", "text": "H"}, {"type": "text", "text": "i"}],
            {"content": "Hi", "reasoning_content": "Hm."},
            [ReasoningDelta("Hm"), ReasoningDelta("."), TextDelta("H"), TextDelta("i")],
        ),
        ([{"type": "text", "text": "Hi"}], {"content": "Hi"}, [TextDelta("Hi")]),
        ([{"type": "picture", "picture": "x"}], {"content": [{"type": "picture", "picture": "x"}]}, []),
    ],
)
def test_content_in_parts_becomes_the_text_that_clients_know(
    content: list[Any], message: dict[str, Any], told: list[StreamEvent]
) -> None:
    body = completion({"role": "assistant", "content": content})
    *found, last = read([body])
    assert found == [START, *told, STOP]
    said = json.loads(Accumulated(Answer("id", "chat", 1)).encode([*found, last]))
    assert said["choices"][0]["message"] == {"role": "assistant", **message}


@pytest.mark.parametrize("native", ["error", "MALFORMED_FUNCTION_CALL"])
def test_an_end_that_was_a_failure_of_the_model_behind_is_one(native: str) -> None:
    choice = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}
    body = completion(choices=[{**choice, "native_finish_reason": native}])
    with pytest.raises(UpstreamError):
        read([body])
    fine = completion(choices=[{**choice, "native_finish_reason": "STOP"}])
    assert read([fine])[:-1] == [START, TextDelta("Hi"), STOP]


def test_a_stream_that_was_not_asked_for_is_read_as_one() -> None:
    chunk = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}],
    }
    body = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
    for reads in cuts.exhaustive(body):
        events = read(reads)
        assert [event for event in events if type(event) is not Verbatim] == [
            START,
            TextDelta("Hi"),
            Finished("stop", None, "stop"),
        ]
        whole = json.loads(Accumulated(Answer("id", "chat", 1)).encode(events))
        assert whole["choices"][0]["message"]["content"] == "Hi"


REFUSED: list[tuple[str, bytes, type[UpstreamError]]] = [
    ("nothing at all", b"", UpstreamTruncated),
    ("a part of one", completion()[:-1], UpstreamGarbled),
    (
        "neither content nor a finish reason",
        completion({"role": "assistant"}, finish=None),
        UpstreamTruncated,
    ),
    ("an end in an error", completion(finish="error"), UpstreamError),
    ("an error", b'{"error":{"message":"no"}}', UpstreamError),
    ("a list of errors", b'[{"error":{"message":"no"}}]', UpstreamError),
    ("no choices", b'{"choices":[]}', UpstreamError),
    ("another document", b'{"hello":1}', UpstreamGarbled),
    ("a list", b"[1]", UpstreamGarbled),
    ("a page", b"<html></html>", UpstreamGarbled),
    ("nested too deep", completion(x="@").replace(b'"@"', b"[" * 250 + b"]" * 250), UpstreamGarbled),
    ("too many values", completion(x="@").replace(b'"@"', b"[" + b"{}," * 100_000 + b"{}]"), UpstreamGarbled),
    ("an error of too many values", b'{"error":[' + b"[]," * 100_000 + b"[]]}", UpstreamGarbled),
    ("an error of numbers", b'{"error":[' + b"5e-324," * 9_000 + b"1]}", UpstreamGarbled),
    ("nested without end", b'{"choices":' + b"[" * 100_000, UpstreamGarbled),
]


@pytest.mark.parametrize(
    ("body", "error"), [pytest.param(body, error, id=name) for name, body, error in REFUSED]
)
def test_what_is_no_answer_is_an_error(body: bytes, error: type[UpstreamError]) -> None:
    for reads in ([body], [body[: len(body) // 2], body[len(body) // 2 :]]):
        with pytest.raises(error):
            read(reads)


def test_the_request_is_the_callers_but_for_the_model() -> None:
    from sluice.frontends.openai.request import chat_of

    wire = {
        "model": "chat",
        "messages": [{"role": "user", "content": "x"}],
        "logprobs": True,
        "modalities": ["text"],
    }
    request = OpenAI().whole_request(chat_of(wire), "m")
    assert json.loads(request.body) == {**wire, "model": "m"}
    assert dict(request.headers)["accept"] == "application/json"
