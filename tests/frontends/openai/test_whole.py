"""Whole chat completions, of events and of the upstream's own chunks, without losing a vendor's field."""

import json
import re
from typing import Any

import pytest

from sluice.errors import UpstreamTruncated
from sluice.frontends import Answer, Encoder
from sluice.frontends.openai.deltas import joined, merge
from sluice.frontends.openai.dialect import OpenAI
from sluice.model.chat import ChatRequest
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
)
from sluice_plugins.openai.stream import ChunkDecoder
from tests import corpus

ANSWER = Answer("req-1", "assistant", 1790000000)


def encoder(*, verbatim: bool = False, answer: Answer = ANSWER) -> Encoder:
    return OpenAI().encoder(ChatRequest("openai", "assistant", (), stream=False), answer, verbatim=verbatim)


def whole(*events: StreamEvent) -> Any:
    return json.loads(encoder().encode(events))


def accumulated(*chunks: Any, usage: Usage | None = None) -> Any:
    one = encoder(verbatim=True)
    for chunk in chunks:
        assert (
            one.encode([TextDelta("observed"), Verbatim(b"data: %b\n\n" % json.dumps(chunk).encode())]) == b""
        )
    return json.loads(one.encode([Finished("stop", usage)]))


def said(*deltas: Any) -> Any:
    """The message that these deltas make."""
    return accumulated(*({"choices": [{"index": 0, "delta": delta}]} for delta in deltas))["choices"][0][
        "message"
    ]


# of events


def test_a_completion_in_its_exact_bytes() -> None:
    one = encoder()
    assert (
        one.encode([Started("up-1", "gpt-x"), TextDelta("Hi")])
        == one.start()
        == one.heartbeat()
        == one.restart()
        == b""
    )
    assert one.encode([TextDelta(" you"), Finished("stop", Usage(1, 2, 0, 1))]) == (
        b'{"id":"chatcmpl-req-1","object":"chat.completion","created":1790000000,"model":"gpt-x","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"Hi you","refusal":null},"logprobs":null,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,'
        b'"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":1}}}'
    )
    assert one.content_type == "application/json"


def test_tool_calls_alone_have_no_content() -> None:
    answer = whole(
        Started(),
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ToolCallStarted(0, "s", "web_search", "server"),
        ToolCallDelta(0, "{}"),
        ToolCallStarted(1, "c1", "f"),
        ToolCallStarted(2, "", "g"),
        ToolCallDelta(1, '{"a":'),
        ToolCallDelta(2, "{}"),
        ToolCallDelta(1, "1}"),
        Finished("tool_calls"),
    )
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    made = choice["message"]["tool_calls"][1]["id"]
    assert re.fullmatch(r"call_[0-9a-f]{24}", made)
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
            {"id": made, "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    }
    assert answer["usage"] is None


def test_sources_are_annotations() -> None:
    told = whole(
        Started(), TextDelta("a"), Cited("https://a", "A", 0, 1), Cited("", "a document"), Finished("stop")
    )
    page = {"start_index": 0, "end_index": 1, "title": "A", "url": "https://a"}
    assert told["choices"][0]["message"]["annotations"] == [{"type": "url_citation", "url_citation": page}]


def test_an_empty_answer_has_empty_content_and_a_hidden_target_no_name() -> None:
    hidden = encoder(answer=Answer("req-1", "assistant", 1, reveal=False))
    answer = json.loads(hidden.encode([Started("", "gpt-x"), Finished("length")]))
    assert answer["model"] == "assistant"
    assert answer["choices"][0]["message"]["content"] == ""


def test_a_failure_is_an_error_object() -> None:
    for verbatim in (False, True):
        assert (
            json.loads(encoder(verbatim=verbatim).fail(UpstreamTruncated()))["error"]["code"] == "truncated"
        )


# of the upstream's chunks


def test_chunks_are_put_together_and_no_field_is_lost() -> None:
    head = {"id": "up-1", "object": "chat.completion.chunk", "created": 5, "model": "gpt-x", "usage": None}
    answer = accumulated(
        {
            **head,
            "system_fingerprint": "fp",
            "obfuscation": "xx",
            "choices": [
                {
                    "index": 0,
                    "delta": {"role": "assistant", "content": "", "refusal": None},
                    "logprobs": None,
                    "finish_reason": None,
                }
            ],
        },
        {
            **head,
            "citations": ["a"],
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": "Hi", "role": "assistant"},
                    "logprobs": {"content": [{"token": "Hi"}], "refusal": None},
                    "content_filter_results": {"hate": {"severity": "safe"}},
                    "finish_reason": "",
                }
            ],
        },
        {
            **head,
            "citations": ["a", "b"],
            "choices": [
                {
                    "index": 0,
                    "delta": {"content": " you"},
                    "logprobs": {"content": [{"token": " you"}]},
                    "content_filter_results": {"hate": {"severity": "safe"}},
                    "message": {"content": "so far"},
                    "finish_reason": "stop",
                }
            ],
        },
        {**head, "service_tier": "default", "choices": []},
        usage=Usage(1, 2),
    )
    assert answer == {
        "id": "up-1",
        "object": "chat.completion",
        "created": 5,
        "model": "gpt-x",
        "system_fingerprint": "fp",
        "service_tier": "default",
        "citations": ["a", "b"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi you", "refusal": None},
                "logprobs": {"content": [{"token": "Hi"}, {"token": " you"}]},
                "content_filter_results": {"hate": {"severity": "safe"}},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "total_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_the_upstreams_own_usage_wins_for_it_says_more() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.01}
    assert accumulated({"choices": [], "usage": usage}, usage=Usage(1, 2))["usage"] == usage


def test_every_choice_is_kept_in_order() -> None:
    answer = accumulated(
        {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "length"}]},
    )
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "a", "length"),
        (1, "b", "stop"),
    ]


MESSAGES: list[tuple[str, list[Any], dict[str, Any]]] = [
    (
        "tool calls by index, names and ids repeated or empty",
        [
            {
                "content": "",
                "tool_calls": [
                    {"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}
                ],
            },
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "c0",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a'},
                    }
                ]
            },
            {
                "tool_calls": [
                    {"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}}
                ]
            },
            {
                "tool_calls": [
                    {"index": 0, "id": "", "type": None, "function": {"name": "", "arguments": '":1}'}}
                ]
            },
        ],
        {
            "content": None,
            "tool_calls": [
                {"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
                {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
    ),
    (
        "several tool calls on one index",
        [
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]},
            {"tool_calls": [{"index": 0, "id": "b", "function": {"name": "f", "arguments": "[]"}}]},
        ],
        {
            "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": "{}"}},
                {"id": "b", "function": {"name": "f", "arguments": "[]"}},
            ]
        },
    ),
    (
        "tool calls without an index, with a vendor's field",
        [
            {
                "tool_calls": [
                    {
                        "id": "a",
                        "function": {"name": "f", "arguments": "{}"},
                        "extra_content": {"google": {"sig": "x"}},
                    }
                ]
            },
            {"tool_calls": [{"id": "b", "function": {"name": "g", "arguments": "{}"}}]},
        ],
        {
            "tool_calls": [
                {
                    "id": "a",
                    "function": {"name": "f", "arguments": "{}"},
                    "extra_content": {"google": {"sig": "x"}},
                },
                {"id": "b", "function": {"name": "g", "arguments": "{}"}},
            ]
        },
    ),
    (
        "reasoning in every spelling",
        [
            {
                "reasoning": "a",
                "reasoning_details": [{"type": "reasoning.text", "text": "a", "format": "v1", "index": 0}],
            },
            {
                "reasoning": "b",
                "reasoning_details": [{"type": "reasoning.text", "text": "b", "format": "v1", "index": 0}],
            },
            {"reasoning_content": "c"},
            {"reasoning_content": "d"},
        ],
        {
            "reasoning": "ab",
            "reasoning_details": [{"type": "reasoning.text", "text": "ab", "format": "v1", "index": 0}],
            "reasoning_content": "cd",
        },
    ),
    ("a refusal", [{"refusal": "I"}, {"refusal": " can't"}], {"content": None, "refusal": "I can't"}),
    (
        "audio",
        [
            {"audio": {"id": "x", "data": "AA"}},
            {"audio": {"id": "x", "data": "BB", "transcript": "hi", "expires_at": 7}},
        ],
        {"audio": {"id": "x", "data": "AABB", "transcript": "hi", "expires_at": 7}},
    ),
    (
        "content in parts that goes on as text",
        [
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]},
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "m"}]}]},
            {"content": [{"type": "text", "text": "a"}]},
            {"content": "b"},
            {"content": ""},
        ],
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "text", "text": "ab"},
            ]
        },
    ),
    (
        "content as text that goes on in parts",
        [{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}],
        {"content": [{"type": "text", "text": "ab"}]},
    ),
    (
        "annotations",
        [{"annotations": [{"type": "u", "url": "1"}]}, {"annotations": [{"type": "u", "url": "2"}]}],
        {"annotations": [{"type": "u", "url": "1"}, {"type": "u", "url": "2"}]},
    ),
    (
        "kinds that change",
        [{"x": "a", "y": {"z": 1}, "w": 1}, {"x": {"k": "v"}, "y": "b", "w": [2]}],
        {"x": {"k": "v"}, "y": "b", "w": [2]},
    ),
]


@pytest.mark.parametrize(
    ("deltas", "expected"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES]
)
def test_messages_of_every_vendor(deltas: list[Any], expected: dict[str, Any]) -> None:
    message = said(*deltas)
    assert message.pop("role") == "assistant"
    assert {key: value for key, value in message.items() if key in expected} == expected
    assert {key for key in message if key not in expected} <= {"content", "refusal"}


def test_a_string_grows_without_being_copied_each_time() -> None:
    kept: dict[str, Any] = {}
    for _ in range(3):
        merge(kept, {"content": "ab"})
    assert kept["content"] == ["ab", "ab", "ab"]
    assert joined(kept) == {"content": "ababab"}


def test_chunks_that_are_less_than_perfect_json_do_no_harm() -> None:
    one = encoder(verbatim=True)
    frames = (
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}}],"odd":"\xff"}\n\n'
        b'data: {"choices":[{"index":0,"delta":{"content":"b"}}],"odd":"\\ud800"}\n\n'
        b"data: [1]\n\ndata: nonsense\n\n: comment\n\n"
        b'data: {"choices":{"0":1}}\n\ndata: {"choices":[1,{"delta":5},{"index":"x","delta":{"content":"c"}}]}\n\n'
    )
    answer = json.loads(one.encode([Verbatim(frames), Finished("stop")]))
    assert answer["choices"][0]["message"]["content"] == "abc"


GOOD = ("ok", "ok_truncated_by_length", "ok_tool_calls", "refusal")
ODD = ("cerebras/ai-cererebras-structured-output-tools.1.sse",)
"""Two calls on one index, which the recording's own SDK ran into one."""


@pytest.mark.parametrize(
    "recorded",
    corpus.params("openai-chat", where=lambda entry: entry.outcome in GOOD and entry.file not in ODD),
)
@pytest.mark.parametrize("verbatim", [False, True], ids=["events", "verbatim"])
def test_recorded_streams_make_whole_answers(recorded: corpus.Recorded, verbatim: bool) -> None:
    decoder = ChunkDecoder(verbatim=verbatim)
    events = decoder.feed(recorded.body)
    answer = json.loads(encoder(verbatim=verbatim).encode(events + decoder.close()))
    message = answer["choices"][0]["message"]
    content = message["content"] or ""
    text = content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
    calls = [
        (call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls", ())
    ]
    expected = recorded.expected
    assert (message["refusal"] or text) == (expected.text or expected.refusal or "")
    assert calls == [(call.name, call.arguments) for call in expected.tool_calls or ()]
    assert answer["object"] == "chat.completion"
    assert all("index" not in call for call in message.get("tool_calls", ()))


TEXTS = ["One", " two", ' "three"\n', "", "ü\U0001f600", '","x":"', "}]}", "\\", "content"]


@pytest.mark.parametrize("more", [{}, {"obfuscation": "abc"}, {"logprobs": None}])
def test_chunks_that_differ_in_their_text_alone_say_what_each_of_them_says(more: dict[str, Any]) -> None:
    def frame(text: str) -> bytes:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        return b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode()

    one = encoder(verbatim=True)
    body = b"".join(map(frame, TEXTS))
    assert one.encode([Verbatim(body)]) == b""
    found = json.loads(one.encode([Verbatim(frame(" end")), Finished("stop")]))
    assert found["choices"][0]["message"]["content"] == "".join(TEXTS) + " end"
    assert (found["id"], found["model"]) == ("c", "m")


@pytest.mark.parametrize(
    ("odd", "text", "extra"),
    [
        (b'"b"},"seen":true,"x":{"y":"z"', "-ab", True),  # more than a text between what is around it
        (b'["b"]', None, None),
        (b'"\\u00fc"', "-a\u00fc", None),
    ],
)
def test_a_chunk_that_only_looks_like_the_one_before_it_is_read_anew(
    odd: bytes, text: str | None, extra: bool | None
) -> None:
    frame = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":%b}}]}\n\n'
    one = encoder(verbatim=True)
    found = json.loads(
        one.encode([Verbatim(frame % b'"-"' + frame % b'"a"' + frame % odd), Finished("stop")])
    )
    choice = found["choices"][0]
    assert choice.get("seen") == extra
    assert text is None or choice["message"]["content"] == text


def test_what_another_chunk_said_meanwhile_is_said_again_by_one_like_the_first() -> None:
    frame = b'data: {"id":"c","citations":%b,"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    one = encoder(verbatim=True)
    body = frame % b"[1]" * 2 + frame % b"[2]" * 2 + frame % b"[1]"
    found = json.loads(one.encode([Verbatim(body), Finished("stop")]))
    assert found["citations"] == [1]
    assert found["choices"][0]["message"]["content"] == "aaaaa"
