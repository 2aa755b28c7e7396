"""Whole answers that are put together of the lines or chunks of a stream."""

from typing import Any

import pytest

from sluice.frontends.gemini.passed_on import joined as of_gemini
from sluice.frontends.ollama.passed_on import joined as of_ollama

MANY = 60_000
PIECE = "x" * 100


def line(text: Any = None, **more: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": text, **more}, "done": False}


def chunk(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [*parts]}, **more}]}


def test_ollamas_lines_become_one_answer() -> None:
    lines = [
        line("one", thinking="a"), line(thinking="b", tool_calls=[{"function": {"name": "f"}}]), "no line", line(" two"),
        {"message": {"tool_calls": [{"function": {"name": "g"}}]}, "done": True, "logprobs": [1], "eval_count": 7},
        {"logprobs": [2], "done_reason": "stop"},
    ]  # fmt: skip
    assert of_ollama(lines) == {
        "model": "m",
        "message": {
            "role": "assistant", "content": "one two", "thinking": "ab",
            "tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}],
        },
        "done": True, "logprobs": [1, 2], "eval_count": 7, "done_reason": "stop",
    }  # fmt: skip
    assert lines[1]["message"]["tool_calls"] == [{"function": {"name": "f"}}]  # type: ignore[index]
    assert of_ollama([{"response": "a"}, {"response": 7}, {"response": "b"}]) == {"response": "b"}


def test_geminis_chunks_become_one_answer() -> None:
    found = of_gemini(
        [
            chunk({"text": "a", "thought": True}), chunk({"text": "b", "thought": True}, {"text": "c"}),
            chunk({"text": "d"}, {"functionCall": {"name": "f"}}), chunk({"text": "e"}),
            chunk({"text": "f", "thoughtSignature": "s"}, finishReason="STOP"), {"usageMetadata": {"totalTokenCount": 7}},
        ]
    )  # fmt: skip
    assert found == {
        "candidates": [{
            "content": {"role": "model", "parts": [
                {"text": "ab", "thought": True}, {"text": "cd"}, {"functionCall": {"name": "f"}}, {"text": "e"},
                {"text": "f", "thoughtSignature": "s"},
            ]},
            "finishReason": "STOP",
        }],
        "usageMetadata": {"totalTokenCount": 7},
    }  # fmt: skip


@pytest.mark.timeout(60)
def test_an_answer_of_many_pieces_is_not_copied_with_each() -> None:
    """Copying all of it each time would be 180 GB."""
    assert of_ollama([line(PIECE)] * MANY)["message"]["content"] == PIECE * MANY
    [candidate] = of_gemini([chunk({"text": PIECE})] * MANY)["candidates"]
    assert candidate["content"]["parts"] == [{"text": PIECE * MANY}]
