"""Reasoning in OpenAI's dialect: what is asked for, what answers bring, and what comes back in the next
round."""

import json
from typing import Any

import pytest

from sluice.frontends import Answer
from sluice.frontends.openai.deltas import joined, merge
from sluice.frontends.openai.dialect import OpenAI
from sluice.model.chat import Message, Reasoning, Text, Thought
from sluice.model.events import (
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    Working,
)

SIGNED, HIDDEN = ReasoningBlock(0, "Let me see.", "c2ln"), ReasoningBlock(1, redacted="aGlkZGVu")
EVENTS: list[StreamEvent] = [
    Started("i", "m"),
    ReasoningDelta("Let me "),
    ReasoningDelta("see."),
    SIGNED,
    HIDDEN,
    TextDelta("Seven."),
    Finished("stop"),
]
BLOCKS = [
    {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "aGlkZGVu"},
]
DETAILS = [
    {
        "type": "reasoning.text",
        "text": "Let me see.",
        "signature": "c2ln",
        "format": "anthropic-claude-v1",
        "index": 0,
    },
    {"type": "reasoning.encrypted", "data": "aGlkZGVu", "format": "anthropic-claude-v1", "index": 1},
]
THOUGHTS = (Thought("Let me see.", "c2ln"), Thought(redacted="aGlkZGVu"))


def chat(**fields: Any) -> Any:
    return OpenAI().parse(json.dumps({"messages": [{"role": "user", "content": "x"}], **fields}).encode(), {})


def told(*, stream: bool) -> bytes:
    encoder = OpenAI().encoder(chat(stream=stream), Answer("req-1", "a", 1))
    return encoder.encode(EVENTS)


def deltas() -> list[dict[str, Any]]:
    frames = [frame.removeprefix(b"data: ") for frame in told(stream=True).split(b"\n\n") if frame]
    return [
        choice["delta"] for frame in frames if frame != b"[DONE]" for choice in json.loads(frame)["choices"]
    ]


def test_a_whole_answer_brings_its_blocks() -> None:
    message = json.loads(told(stream=False))["choices"][0]["message"]
    assert message["thinking_blocks"] == BLOCKS
    assert message["reasoning_details"] == DETAILS
    assert (message["reasoning_content"], message["content"]) == ("Let me see.", "Seven.")


def test_a_stream_tells_each_block_once_and_whole() -> None:
    blocks = [block for delta in deltas() for block in delta.get("thinking_blocks", [])]
    assert blocks == [{"index": index, **block} for index, block in enumerate(BLOCKS)]
    assert [detail for delta in deltas() for detail in delta.get("reasoning_details", [])] == DETAILS
    assert "".join(delta.get("reasoning_content", "") for delta in deltas()) == "Let me see."


def test_deltas_put_together_by_index_are_the_whole_message() -> None:
    kept: dict[str, Any] = {}
    for delta in deltas():
        merge(kept, delta)
    whole = joined(kept)
    assert whole["reasoning_details"] == DETAILS
    assert [{k: v for k, v in block.items() if k != "index"} for block in whole["thinking_blocks"]] == BLOCKS


BACK = [
    {"thinking_blocks": BLOCKS},
    {"thinking_blocks": [{"index": 0, **BLOCKS[0]}, {"index": 1, **BLOCKS[1]}]},
    {"reasoning_details": DETAILS},
    {
        "reasoning_details": [
            {**DETAILS[0], "text": "Let me ", "signature": None},
            {**DETAILS[0], "text": "see."},
            DETAILS[1],
        ]
    },
    {
        "reasoning_details": [
            {**DETAILS[0], "signature": ""},
            {**DETAILS[0], "text": "", "signature": "c2ln"},
            DETAILS[1],
        ]
    },
    {"thinking_blocks": BLOCKS, "reasoning_details": DETAILS, "reasoning_content": "Let me see."},
    {"content": [*BLOCKS, {"type": "text", "text": "Seven."}]},
    {"thinking_blocks": [None, 1, {"type": "thinking"}, {"type": "text", "text": "x"}, *BLOCKS]},
]


@pytest.mark.parametrize("fields", BACK)
def test_blocks_come_back_as_they_went(fields: dict[str, Any]) -> None:
    wire = {"role": "assistant", "content": "Seven.", **fields}
    [message] = chat(messages=[wire]).messages
    assert message == Message("assistant", (Text("Seven."),), thoughts=THOUGHTS)


@pytest.mark.parametrize(
    ("fields", "thoughts"),
    [
        ({"reasoning_content": "Hm."}, (Thought("Hm."),)),
        ({"reasoning": "Hm."}, (Thought("Hm."),)),
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]}, (Thought("Hm."),)),
        ({"reasoning_details": [{**DETAILS[0], "format": "google-gemini-v1"}]}, (Thought("Let me see."),)),
        ({"reasoning_details": [{**DETAILS[1], "format": "openai-responses-v1"}]}, ()),
        ({"reasoning_details": "x", "thinking_blocks": {}, "reasoning_content": 7}, ()),
        ({"reasoning": {"effort": "low"}}, ()),
    ],
)
def test_other_vendors_reasoning_is_text_alone(fields: dict[str, Any], thoughts: tuple[Thought, ...]) -> None:
    [message] = chat(messages=[{"role": "assistant", "content": "x", **fields}]).messages
    assert message.thoughts == thoughts


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({}, None),
        ({"reasoning_effort": "low"}, Reasoning("low")),
        ({"reasoning_effort": "none"}, Reasoning("none")),
        ({"reasoning_effort": "xhigh"}, Reasoning("xhigh")),
        ({"reasoning_effort": "of another vendor"}, None),
        ({"reasoning": {"effort": "high"}}, Reasoning("high")),
        ({"reasoning": {"max_tokens": 2000}}, Reasoning(budget=2000)),
        ({"reasoning": {"enabled": True}}, Reasoning("medium")),
        ({"reasoning": {"enabled": False}}, Reasoning("none")),
        ({"reasoning": True}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1500}}, Reasoning(budget=1500)),
        ({"thinking": {"type": "adaptive"}}, Reasoning("high")),
        ({"thinking": {"type": "disabled"}}, Reasoning("none")),
        ({"thinking": {"type": "enabled", "budget_tokens": "x"}}, Reasoning("high")),
        ({"reasoning_effort": "low", "thinking": {"type": "disabled"}}, Reasoning("low")),
    ],
)
def test_how_much_is_to_be_thought_may_be_said_in_three_dialects(
    fields: dict[str, Any], wish: Reasoning | None
) -> None:
    assert chat(**fields).reasoning == wish


def test_another_model_that_goes_on_is_named_from_there() -> None:
    events = [Started("i", "first"), TextDelta("a"), Working("second"), TextDelta("b"), Finished("stop")]
    streamed = OpenAI().encoder(chat(stream=True), Answer("req-1", "a", 1)).encode(events)
    frames = [json.loads(frame[6:]) for frame in streamed.split(b"\n\n")[:-2]]
    named = [(frame["model"], frame["choices"][0]["delta"].get("content")) for frame in frames]
    assert named == [("first", ""), ("first", "a"), ("second", "b"), ("second", None)]
    assert json.loads(OpenAI().encoder(chat(), Answer("req-1", "a", 1)).encode(events))["model"] == "second"
    hidden = OpenAI().encoder(chat(), Answer("req-1", "a", 1, reveal=False)).encode(events)
    assert json.loads(hidden)["model"] == "a"
