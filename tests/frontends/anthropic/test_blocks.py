"""Streams of the Messages API of our own making: blocks open and close one after another, as the SDKs'
accumulator needs it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.errors import RateLimited, UpstreamError, UpstreamTruncated
from sluice.frontends import Answer, Encoder, Head
from sluice.frontends.anthropic.dialect import Anthropic
from sluice.model.chat import ChatRequest, Message, Text, Tool
from sluice.model.events import (
    Cited,
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Working,
)

CHAT = ChatRequest("anthropic", "chat", (Message("user", (Text("x" * 400),)),))
END = Finished("stop", Usage(100, 7, 30, 4, written_input=20))


def encoder(*, reveal: bool = True) -> Encoder:
    return Anthropic().encoder(CHAT, Answer("r1", "chat", 1, reveal=reveal))


def frames(out: bytes) -> list[dict[str, Any]]:
    """The data of each frame, whose event line names its type."""
    *found, rest = out.split(b"\n\n")
    assert rest == b""
    values = []
    for frame in found:
        event, data = frame.split(b"\n")
        value = json.loads(data.removeprefix(b"data: "))
        assert event == b"event: " + value["type"].encode()
        values.append(value)
    return values


def message(out: bytes) -> dict[str, Any]:
    """What an accumulator makes of a stream; it asserts the grammar."""
    held: dict[str, Any] = {}
    open_at: int | None = None
    ended = False
    for value in frames(out):
        assert not ended
        match value["type"]:
            case "message_start":
                assert not held
                held = value["message"]
            case "content_block_start":
                assert open_at is None
                open_at = value["index"]
                assert open_at == len(held["content"])
                held["content"].append(dict(value["content_block"], pieces=[]))
            case "content_block_delta":
                assert value["index"] == open_at
                _add(held["content"][-1], value["delta"])
            case "content_block_stop":
                assert value["index"] == open_at
                open_at = None
            case "message_delta":
                assert open_at is None
                held |= value["delta"]
                held["usage"] = value["usage"]
            case "message_stop":
                ended = True
    assert ended
    for block in held["content"]:
        pieces = block.pop("pieces")
        if block["type"] == "tool_use":
            block["input"] = json.loads("".join(pieces) or "{}")
    return held


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta:
        case {"type": "text_delta", "text": text}:
            block["text"] += text
        case {"type": "thinking_delta", "thinking": text}:
            block["thinking"] += text
        case {"type": "signature_delta", "signature": signature}:
            block["signature"] += signature
        case {"type": "input_json_delta", "partial_json": piece}:
            block["pieces"].append(piece)
        case {"type": "citations_delta", "citation": citation}:
            block.setdefault("citations", []).append(citation)
        case _:
            raise AssertionError(delta)


def content(*events: StreamEvent) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = message(encoder().encode([Started("x", "gpt"), *events, END]))["content"]
    return found


def test_a_text() -> None:
    out = encoder().encode([Started("chatcmpl-1", "gpt"), TextDelta("Hel"), TextDelta("lo\u2028"), END])
    assert message(out) == {
        "id": "msg_r1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [{"type": "text", "text": "Hello\u2028"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 50,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 30,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 4},
        },
    }
    assert "\u2028".encode() not in out


def test_the_models_name_is_hidden_where_the_alias_says_so_and_anthropics_id_kept() -> None:
    held = message(encoder(reveal=False).encode([Started("msg_7", "gpt"), TextDelta("a"), END]))
    assert (held["id"], held["model"]) == ("msg_7", "chat")


def test_thinking_is_sealed_before_its_block_ends() -> None:
    assert content(
        ReasoningDelta("h"), ReasoningDelta("m"), ReasoningBlock(0, "hm", "S"), TextDelta("a")
    ) == [
        {"type": "thinking", "thinking": "hm", "signature": "S"},
        {"type": "text", "text": "a"},
    ]


def test_thinking_without_a_seal_an_encrypted_one_and_one_that_was_not_shown() -> None:
    assert content(
        ReasoningDelta("hm"),
        TextDelta("a"),
        ReasoningBlock(0, redacted="D"),
        ReasoningBlock(1, "", "S"),
        TextDelta("b"),
    ) == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "a"},
        {"type": "redacted_thinking", "data": "D"},
        {"type": "thinking", "thinking": "", "signature": "S"},
        {"type": "text", "text": "b"},
    ]


def test_calls_one_after_another() -> None:
    events = [
        TextDelta("a"),
        ToolCallStarted(0, "c1", "f"),
        ToolCallDelta(0, '{"x"'),
        ToolCallDelta(0, ":1}"),
    ]
    found = content(*events, ToolCallStarted(1, "c2", "g"), ToolCallDelta(1, "{}"))
    assert found == [
        {"type": "text", "text": "a"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
    ]


def test_calls_side_by_side_are_told_one_after_another() -> None:
    found = content(
        ToolCallStarted(0, "a", "f"),
        ToolCallStarted(1, "b", "g"),
        ToolCallStarted(2, "c", "h"),
        ToolCallDelta(1, '{"y":'),
        ToolCallDelta(0, '{"x":'),
        ToolCallDelta(2, "{}"),
        ToolCallDelta(0, "1}"),
        ToolCallDelta(1, "2}"),
    )
    assert [(block["id"], block["input"]) for block in found] == [("a", {"x": 1}), ("b", {"y": 2}), ("c", {})]


def test_calls_without_arguments_lose_nothing_and_hold_back_nothing_for_good() -> None:
    found = content(ToolCallStarted(0, "a", "f"), ToolCallStarted(1, "b", "g"), TextDelta("then"))
    assert [block.get("id", block["type"]) for block in found] == ["a", "b", "text"]


@pytest.mark.parametrize("pieces", [("inv", "alid"), (" ", "[1]"), ("5",)])
def test_arguments_that_are_no_object_are_told_as_one(pieces: tuple[str, ...]) -> None:
    deltas = [ToolCallDelta(0, piece) for piece in pieces]
    [one, two] = content(
        ToolCallStarted(0, "a", "f"), *deltas, ToolCallStarted(1, "b", "g"), ToolCallDelta(1, " {}")
    )
    assert (one["input"], two["input"]) == ({"INVALID_JSON": "".join(pieces)}, {})


def test_tools_that_a_provider_ran_are_not_shown() -> None:
    assert content(
        ToolCallStarted(0, "s", "search", "server"), ToolCallDelta(0, "{}"), TextDelta("a"), Working("other")
    ) == [{"type": "text", "text": "a"}]


def test_a_call_without_an_id_gets_one() -> None:
    [block] = content(ToolCallStarted(0, "", "f"))
    assert block["id"]


def test_sources_are_citations_of_the_text_that_is_open() -> None:
    [block] = content(TextDelta("a"), Cited("https://x", "X", 0, 1, "said"), Cited("", "Doc", 0, 1, "there"))
    assert [(cited["type"], cited["cited_text"]) for cited in block["citations"]] == [
        ("web_search_result_location", "said"),
        ("char_location", "there"),
    ]


@pytest.mark.parametrize(
    ("finished", "reason", "sequence"),
    [
        (Finished("length"), "max_tokens", None),
        (Finished("tool_calls"), "tool_use", None),
        (Finished("content_filter"), "refusal", None),
        (Finished("stop", native="pause_turn"), "pause_turn", None),
        (Finished("length", native="model_context_window_exceeded"), "model_context_window_exceeded", None),
        (Finished("tool_calls", native="end_turn"), "tool_use", None),
        (Finished("stop", stop_sequence="END"), "stop_sequence", "END"),
    ],
)
def test_why_it_stopped(finished: Finished, reason: str, sequence: str | None) -> None:
    held = message(encoder().encode([Started(), TextDelta("abcdefgh"), finished]))
    assert (held["stop_reason"], held["stop_sequence"]) == (reason, sequence)
    assert held["usage"] == {
        "input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 2,
    }


def test_the_first_usage_is_what_the_upstream_said_first_else_about_what_the_prompt_has() -> None:
    [start, *_] = frames(encoder().encode([Started("", "", Usage(10, 1, 4)), TextDelta("a")]))
    assert (
        start["message"]["usage"]["input_tokens"],
        start["message"]["usage"]["cache_read_input_tokens"],
    ) == (6, 4)
    [start, *_] = frames(encoder().encode([Started(), TextDelta("a")]))
    assert start["message"]["usage"] == {
        "input_tokens": 100,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
    }
    tools = ChatRequest("anthropic", None, (), tools=(Tool("f", "d" * 400),))
    [start, *_] = frames(
        Anthropic().encoder(tools, Answer("r", "chat", 1)).encode([Started(), TextDelta("a")])
    )
    assert start["message"]["usage"]["input_tokens"] == 100


def test_an_answer_of_nothing_is_a_message() -> None:
    assert message(encoder().encode([Started(), Finished("stop")]))["content"] == []
    assert message(encoder().encode([Finished("stop")]))["content"] == []


def test_errors_within_a_stream_are_the_last_frame() -> None:
    [failed] = frames(encoder().fail(UpstreamTruncated()))
    assert failed["error"]["type"] == "api_error"
    assert failed["request_id"] == "r1"
    [failed] = frames(encoder().fail(UpstreamError("overloaded", "Overloaded", retry_after=2.0)))
    assert failed["error"] == {"type": "overloaded_error", "message": "Overloaded", "retry_after": 2.0}
    [failed] = frames(encoder().fail(RateLimited(1.0, scope="key", resource="tokens")))
    assert failed["error"]["type"] == "rate_limit_error"


def test_heartbeats_are_pings() -> None:
    assert encoder().heartbeat() == b'event: ping\ndata: {"type": "ping"}\n\n'


EVENTS = st.lists(
    st.one_of(
        st.builds(TextDelta, st.text(max_size=3)),
        st.builds(ReasoningDelta, st.text(max_size=3)),
        st.builds(ReasoningBlock, st.just(0), st.just(""), st.just("S")),
        st.builds(lambda index: ToolCallDelta(index, '"'), st.integers(0, 3)),
        st.builds(lambda index: ToolCallStarted(index, f"c{index}", "f"), st.integers(0, 3)),
        st.just(Cited("https://x")),
    ),
    max_size=12,
)


@given(EVENTS, st.lists(st.integers(0, 14), max_size=4))
def test_whatever_comes_and_however_it_is_cut_the_stream_is_one_that_can_be_read(
    events: list[StreamEvent], cuts: list[int]
) -> None:
    told = [
        event
        for at, event in enumerate(events)
        if not isinstance(event, ToolCallStarted) or event not in events[:at]
    ]
    all_of = [Started(), *told, Finished("stop")]
    whole = encoder().encode(all_of)
    places = sorted({min(cut, len(all_of)) for cut in cuts})
    pieces = [all_of[a:b] for a, b in zip([0, *places], [*places, len(all_of)], strict=True)]
    one = encoder()
    assert b"".join(one.encode(piece) for piece in pieces if piece) == whole
    opened = None
    for value in frames(whole):
        if value["type"] == "content_block_start":
            assert opened is None
            opened = value["index"]
        elif value["type"] == "content_block_stop":
            assert opened == value["index"]
            opened = None
    assert "".join(e.text for e in told if isinstance(e, TextDelta)) == "".join(
        value["delta"]["text"]
        for value in frames(whole)
        if value.get("delta", {}).get("type") == "text_delta"
    )


def test_a_calls_seal_stands_in_a_thinking_block_before_it() -> None:
    called = [
        ToolCallStarted(0, "t", "f", signature="U2VhbA=="),
        ToolCallDelta(0, "{}"),
        Finished("tool_calls"),
    ]
    thinking, use = message(encoder().encode([Started(), *called]))["content"]
    assert (thinking["type"], thinking["thinking"], use["type"]) == ("thinking", "", "tool_use")
    whole = Anthropic().encoder(
        ChatRequest("anthropic", "chat", CHAT.messages, stream=False), Answer("r1", "chat", 1)
    )
    content = json.loads(whole.encode([Started(), *called]))["content"]
    assert content[0] == {"type": "thinking", "thinking": "", "signature": thinking["signature"]}
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]
    *_, again = Anthropic().parse(json.dumps({"messages": turns}).encode(), Head()).messages
    assert (again.thoughts, [call.signature for call in again.tool_calls]) == ((), ["U2VhbA=="])
