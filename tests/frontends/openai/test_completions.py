"""POST /v1/completions: what is asked, and how texts are told that chats gave."""

import json
from typing import Any

import pytest

from sluice.errors import BadRequest, UpstreamTruncated
from sluice.frontends import Answer, Encoder, Head
from sluice.frontends.openai.completions import completion_of
from sluice.frontends.openai.dialect import OpenAI
from sluice.model.chat import Message, Sampling, Text
from sluice.model.events import Finished, ReasoningDelta, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice.model.operations import GeneratingRequest


def asked(**fields: Any) -> GeneratingRequest:
    return completion_of(json.dumps({"model": "m", "prompt": "Once", **fields}).encode(), Head())


def encoder(*, reveal: bool = True, **fields: Any) -> Encoder:
    return OpenAI().encoder(asked(**fields), Answer("req-1", "alias", 1790000000, reveal=reveal))


def test_a_prompt_is_a_users_message_and_the_body_stays() -> None:
    found = asked(max_tokens=5, temperature=0, stop="a", top_p=0.5, seed=1, n=2, stream=True, x_own=[1])
    assert found.messages == (Message("user", (Text("Once"),)),)
    assert found.sampling == Sampling(5, 0.0, 0.5, ("a",), 1)
    assert (found.n, found.stream, found.include_usage, found.dialect_only, found.generates) == (
        2,
        True,
        False,
        "",
        True,
    )
    assert found.wire is not None
    assert found.wire["x_own"] == [1]
    assert asked(prompt=["Once"], max_tokens=0, stream_options={"include_usage": True}).sampling == Sampling()
    assert asked(stream_options={"include_usage": True}).include_usage


ONLY: list[tuple[dict[str, Any], str]] = [
    ({"suffix": "end"}, "suffix"), ({"echo": True}, "echo"), ({"best_of": 2}, "best_of"), ({"prompt": ["a", "b"]}, "prompt"),
    ({"prompt": [1, 2]}, "prompt"), ({"prompt": [[1], [2, 3]]}, "prompt"), ({"suffix": "", "echo": False, "best_of": 1}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), ONLY)
def test_what_a_chat_cannot_do_is_named(fields: dict[str, Any], param: str) -> None:
    assert asked(**fields).dialect_only.partition(":")[0] == param


@pytest.mark.parametrize(("fields", "param"), [
    ({"prompt": None}, "prompt"), ({"prompt": []}, "prompt"), ({"prompt": {}}, "prompt"), ({"prompt": [1, "a"]}, "prompt"),
    ({"model": ""}, "model"), ({"n": 0}, "n"), ({"max_tokens": "x"}, "max_tokens"), ({"Model": "x"}, "model"),
])  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        asked(**fields)
    assert refused.value.param == param


def test_a_chats_stream_is_told_as_texts() -> None:
    said: list[StreamEvent] = [Started("u", "gpt"), ReasoningDelta("hm"), TextDelta("a"), TextDelta("b")]
    events = [*said, Finished("tool_calls", Usage(1, 2))]
    out = encoder(stream=True, stream_options={"include_usage": True}).encode(events)
    *frames, done = [frame.removeprefix(b"data: ") for frame in out.split(b"\n\n")[:-1]]
    first, second, end, usage = map(json.loads, frames)
    assert done == b"[DONE]"
    head = {"id": "cmpl-req-1", "object": "text_completion", "created": 1790000000, "model": "gpt"}
    assert first == {**head, "choices": [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}]}
    assert (second["choices"][0]["text"], end["choices"][0]) == (
        "b", {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"},
    )  # fmt: skip
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 3)


def test_a_chats_whole_answer_is_a_text() -> None:
    encode = encoder(reveal=False)
    assert encode.encode([Started("u", "gpt"), TextDelta("a")]) == b""
    told = json.loads(encode.encode([TextDelta("b"), Finished("length", Usage(1, 2))]))
    assert (told["model"], told["choices"][0]["text"], told["choices"][0]["finish_reason"]) == (
        "alias",
        "ab",
        "length",
    )
    assert json.loads(encoder().fail(UpstreamTruncated()))["error"]["code"] == "truncated"


def test_frames_are_passed_on_as_they_came() -> None:
    frame = b'data: {"id":"c-1","model":"x","choices":[{"text":"a","logprobs":{"tokens":["a"]}}]}\n\n'
    end = b'data: {"id":"c-1","model":"x","choices":[{"text":"","finish_reason":"stop"}]}\n\n'
    batches: list[list[StreamEvent]] = [
        [Started("c-1", "x"), TextDelta("a"), Verbatim(frame)],
        [Verbatim(end)],
        [Finished("stop", Usage(1, 2))],
    ]
    encode = encoder(stream=True)
    assert b"".join(map(encode.encode, batches)) == frame + end + b"data: [DONE]\n\n"
    encode = encoder(stream=True, reveal=False)
    assert (
        b"".join(map(encode.encode, batches))
        == (frame + end).replace(b'"x"', b'"alias"') + b"data: [DONE]\n\n"
    )
    document = b'{"model":"x","choices":[{"text":"a"}]}'
    assert (
        encoder().encode([Started(), TextDelta("a"), Finished("stop"), Verbatim(document, whole=True)])
        == document
    )
