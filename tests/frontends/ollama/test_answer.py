"""The lines that Ollama's clients read, and its whole answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from sluice.errors import ModelNotFound, RateLimited, UpstreamTruncated
from sluice.frontends import Answer, Encoder
from sluice.frontends.ollama.dialect import Ollama
from sluice.frontends.ollama.request import GENERATE
from sluice.model.chat import ChatRequest
from sluice.model.events import (
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
    Working,
)
from sluice.model.operations import OperationRequest
from sluice_plugins.ollama.stream import ChatDecoder

AT = "2026-09-21T14:13:2"


class Clock:
    """Every look takes a quarter of a second."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.25
        return self.now


def encoder(
    *, stream: bool = True, profile: str = "", reveal: bool = True, clock: Callable[[], float] | None = None
) -> Encoder:
    answer = Answer("req-1", "alias", 1790000000, reveal=reveal, clock=clock or Clock(), received=100.0)
    return Ollama().encoder(ChatRequest("ollama", None, (), stream=stream, profile=profile), answer)


def lines(data: bytes) -> list[dict[str, Any]]:
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data[:-1].split(b"\n")]


def without_times(line: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in line.items() if key != "created_at" and not key.endswith("_duration")
    }


USAGE = Usage(input=7, output=3)
ANSWER: list[StreamEvent] = [
    Started("u-1", "llama"),
    ReasoningDelta("hm"),
    ReasoningBlock(0, "hm", "sig"),
    TextDelta("a"),
    TextDelta(""),
    TextDelta("\u2028ü"),
    ToolCallStarted(0, "call_1", "f"),
    ToolCallDelta(0, '{"x":'),
    ToolCallDelta(0, "1}"),
    ToolCallStarted(1, "srv", "search", "server"),
    ToolCallDelta(1, "{}"),
    ToolCallStarted(2, "call_2", "g"),
    Finished("tool_calls", USAGE),
]
CALLS = [
    {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
    {"id": "call_2", "function": {"index": 1, "name": "g", "arguments": {}}},
]


def said(text: str = "", **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, **more}}


END = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


def test_a_stream_is_told_line_by_line() -> None:
    told = lines(encoder().encode(ANSWER))
    assert [without_times(line) for line in told] == [
        {"model": "llama", **line}
        for line in (
            {**said(thinking="hm"), "done": False},
            {**said("a"), "done": False},
            {**said("\u2028ü"), "done": False},
            {**said(tool_calls=CALLS[:1]), "done": False},
            {**said(tool_calls=CALLS[1:]), "done": False},
            {**said(), **END},
        )
    ]
    assert all(line["created_at"].startswith(AT) and line["created_at"].endswith("Z") for line in told)


def test_the_same_in_any_batches() -> None:
    encode = encoder(clock=lambda: 100.0).encode
    singly = b"".join(encode([event]) for event in ANSWER)
    assert singly == encoder(clock=lambda: 100.0).encode(ANSWER)
    assert b"\xe2\x80\xa8" not in singly


def test_what_is_told_is_read_again() -> None:
    decoder = ChatDecoder()
    events = [*decoder.feed(encoder().encode(ANSWER)), *decoder.close()]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "a\u2028ü"
    assert [event.name for event in events if isinstance(event, ToolCallStarted)] == ["f", "g"]
    assert events[-1] == Finished("tool_calls", USAGE, "stop")


def test_a_prompts_answer_has_a_response() -> None:
    told = lines(
        encoder(profile=GENERATE).encode(
            [Started(), ReasoningDelta("hm"), TextDelta("a"), Finished("length")]
        )
    )
    assert [without_times(line) for line in told] == [
        {"model": "alias", "response": "", "thinking": "hm", "done": False},
        {"model": "alias", "response": "a", "done": False},
        {"model": "alias", "response": "", "done": True, "done_reason": "length"},
    ]


@pytest.mark.parametrize(("profile", "whole"), [
    ("", said("a\u2028ü", thinking="hm", tool_calls=CALLS)),
    (GENERATE, {"response": "a\u2028ü", "thinking": "hm", "tool_calls": CALLS}),
])  # fmt: skip
def test_a_whole_answer_is_one_object(profile: str, whole: dict[str, Any]) -> None:
    encode = encoder(stream=False, profile=profile)
    assert (
        b"".join(encode.encode([event]) for event in ANSWER[:-1])
        == encode.start()
        == encode.heartbeat()
        == b""
    )
    told = json.loads(encode.encode(ANSWER[-1:]))
    assert without_times(told) == {"model": "llama", **whole, **END}
    assert encode.content_type.startswith("application/json")


def test_times_are_of_the_clock_in_nanoseconds() -> None:
    now = 100.0
    encode = encoder(clock=lambda: now)
    now = 101.5
    encode.encode([Started(), TextDelta("a")])
    now = 104.0
    [end] = lines(encode.encode([Finished("stop")]))
    assert end["created_at"] == "2026-09-21T14:13:24.000000Z"
    durations = {key: value for key, value in end.items() if key.endswith("_duration")}
    assert durations == {
        "total_duration": 4_000_000_000,
        "load_duration": 0,
        "prompt_eval_duration": 1_500_000_000,
        "eval_duration": 2_500_000_000,
    }


def test_no_duration_that_clients_divide_by_is_nothing() -> None:
    [end] = lines(encoder(clock=lambda: 100.0).encode([Finished("stop", USAGE)]))
    assert (end["total_duration"], end["prompt_eval_duration"], end["eval_duration"]) == (1, 1, 1)


def test_a_hidden_model_is_the_alias() -> None:
    encode = encoder(reveal=False)
    encode.resume(Started(model="other"))
    told = lines(encode.encode([Started("", "llama"), Working("better"), TextDelta("a"), Finished("stop")]))
    assert {line["model"] for line in told} == {"alias"}
    told = lines(
        encoder().encode([Started("", "llama"), Working("better"), TextDelta("a"), Finished("stop")])
    )
    assert {line["model"] for line in told} == {"better"}


@pytest.mark.parametrize("stream", [True, False])
def test_arguments_that_are_none_are_an_error_unless_they_were_cut(stream: bool) -> None:
    broken: list[StreamEvent] = [Started(), ToolCallStarted(0, "c", "f"), ToolCallDelta(0, '{"x":')]
    told = json.loads(encoder(stream=stream).encode([*broken, Finished("tool_calls")]))
    assert (told["code"], "done" in told) == ("garbled", False)
    told = json.loads(encoder(stream=stream).encode([*broken, Finished("length")]))
    assert (told["done_reason"], "tool_calls" in told["message"]) == ("length", False)


def test_a_heartbeat_is_a_line_without_content() -> None:
    [beat] = lines(encoder().heartbeat())
    assert without_times(beat) == {"model": "alias", **said(), "done": False}
    [beat] = lines(encoder(profile=GENERATE).heartbeat())
    assert without_times(beat) == {"model": "alias", "response": "", "done": False}


def test_errors_are_one_text() -> None:
    [line] = lines(encoder().fail(UpstreamTruncated()))
    assert line == {"error": "The upstream's answer was cut short", "code": "truncated"}
    assert json.loads(encoder(stream=False).fail(UpstreamTruncated())) == line
    missing = Ollama().error(ModelNotFound("There is none"), "r")
    assert missing == {"error": "model not found: There is none", "code": "model_not_found"}
    limited = Ollama().error(RateLimited(1.5, scope="key", resource="requests"), "r")
    assert (limited["code"], limited["retry_after"]) == ("rate_limited", 1.5)
    assert Ollama().status(ModelNotFound("x")) == 404


def test_a_model_and_its_latest_are_one() -> None:
    assert (Ollama().other_name("chat"), Ollama().other_name("chat:latest")) == ("chat:latest", "chat")


def test_vectors_are_passed_on_as_they_are_written() -> None:
    body = b'{"data":[{"index":1,"embedding":[2e-3]},{"index":0,"embedding":[0.10, 1]}],"usage":{"prompt_tokens":7}}'
    events: list[StreamEvent] = [
        Started(model="e-1"),
        TextDelta(""),
        Finished("stop", USAGE),
        Verbatim(body, whole=True),
    ]
    answer = Answer("r", "alias", 0, clock=lambda: 1.5, received=1.0)

    def asked(profile: str) -> OperationRequest:
        return OperationRequest(
            "openai", None, (), stream=False, profile=profile, operation="embeddings", tokens=1, longest=1
        )

    encode = Ollama().encoder(asked(""), answer)
    assert encode.encode(events) == (
        b'{"model":"e-1","embeddings":[[0.10, 1],[2e-3]],"total_duration":500000000,"load_duration":0,"prompt_eval_count":7}'
    )
    assert Ollama().encoder(asked("one"), answer).encode(events) == b'{"embedding":[0.10, 1]}'
    garbled = [*events[:-1], Verbatim(b'{"data":[1]}', whole=True)]
    assert json.loads(Ollama().encoder(asked(""), answer).encode(garbled))["code"] == "garbled"
