"""Whole messages of our own making."""

import json
from typing import Any

from sluice.errors import UpstreamError
from sluice.frontends import Answer
from sluice.frontends.anthropic.dialect import Anthropic
from sluice.model.chat import ChatRequest
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
)

CHAT = ChatRequest("anthropic", "chat", (), stream=False)


def whole(*events: StreamEvent) -> dict[str, Any]:
    """The message of these events; one by one or all at once makes no difference."""
    at_once = Anthropic().encoder(CHAT, Answer("r1", "chat", 1)).encode(events)
    one = Anthropic().encoder(CHAT, Answer("r1", "chat", 1))
    assert b"".join(one.encode([event]) for event in events) == at_once
    found: dict[str, Any] = json.loads(at_once)
    return found


def test_a_message_of_everything() -> None:
    assert whole(
        Started("msg_1", "claude"),
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningBlock(0, "hm", "S"),
        ReasoningBlock(1, redacted="D"),
        ReasoningBlock(2, "", "T"),
        TextDelta("a"),
        TextDelta("b"),
        Cited("https://x", "X"),
        ToolCallStarted(0, "c", "f"),
        ToolCallStarted(1, "d", "g"),
        ToolCallDelta(1, "{"),
        ToolCallDelta(0, '{"x":1}'),
        ToolCallDelta(1, "}"),
        ToolCallStarted(2, "s", "search", "server"),
        Finished("tool_calls", Usage(9, 5, 1)),
    ) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "S"},
            {"type": "redacted_thinking", "data": "D"},
            {"type": "thinking", "thinking": "", "signature": "T"},
            {
                "type": "text",
                "text": "ab",
                "citations": [
                    {
                        "type": "web_search_result_location",
                        "url": "https://x",
                        "title": "X",
                        "cited_text": "",
                        "encrypted_index": "",
                    }
                ],
            },
            {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
            {"type": "tool_use", "id": "d", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 8,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 1,
            "output_tokens": 5,
        },
    }


def test_arguments_that_are_no_object_are_told_as_they_are() -> None:
    [block] = whole(ToolCallStarted(0, "c", "f"), ToolCallDelta(0, '{"x":'), Finished("length"))["content"]
    assert block["input"] == {"INVALID_JSON": '{"x":'}


def test_text_behind_text_of_another_block_and_no_content_at_all() -> None:
    found = whole(TextDelta("a"), ReasoningDelta("t"), TextDelta("b"), Finished("stop"))["content"]
    assert [block["type"] for block in found] == ["text", "thinking", "text"]
    assert whole(Finished("stop"))["content"] == []


def test_an_error_in_place_of_the_answer() -> None:
    failed = json.loads(
        Anthropic().encoder(CHAT, Answer("r1", "chat", 1)).fail(UpstreamError("overloaded", "Overloaded"))
    )
    assert failed["error"]["type"] == "overloaded_error"
