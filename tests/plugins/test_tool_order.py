"""Results of tools stand directly behind the message that called them, whatever a caller puts between."""

import json
import time
from typing import Any

import pytest

from sluice.model.chat import Message, Text, ToolCall
from sluice_plugins.tool_order import LOST, NO_RESULT, results_first
from tests.matrix.lanes import UPSTREAMS, parsed, sent


def said(role: Any, text: str) -> Message:
    return Message(role, (Text(text),))


def called(*ids: str) -> Message:
    return Message("assistant", (), tuple([ToolCall(id, "f", "{}") for id in ids]))


def result(id: str, text: str = "r") -> Message:
    return Message("tool", (Text(text),), tool_call_id=id)


def lost(text: str = "r") -> Message:
    return Message("user", (Text(LOST), Text(text)))


Q = said("user", "q")
WAIT = said("user", "wait")
RULE = said("system", "rule")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([Q, called("a"), WAIT, result("a")], [Q, called("a"), result("a"), WAIT]),
        ([Q, called("a"), RULE, result("a"), WAIT], [Q, called("a"), result("a"), RULE, WAIT]),
        (
            [Q, called("a", "b"), result("b"), WAIT, result("a")],
            [Q, called("a", "b"), result("b"), result("a"), WAIT],
        ),
        (
            [Q, called("a"), called("b"), result("a"), result("b")],
            [Q, called("a"), result("a"), called("b"), result("b")],
        ),
        (
            [called("a"), result("a", "1"), called("a"), WAIT, result("a", "2")],
            [called("a"), result("a", "1"), called("a"), result("a", "2"), WAIT],
        ),
    ],
)
def test_what_stands_between_a_call_and_its_results_follows_them(
    given: list[Message], expected: list[Message]
) -> None:
    assert results_first(given) == expected


@pytest.mark.parametrize(
    "messages",
    [
        [Q],
        [Q, called("a", "b"), result("b"), result("a"), WAIT],
        [called("a"), result("a"), called("a"), result("a")],
        [Q, called("a")],
        [Q, called("a", "a"), result("a"), result("a"), WAIT, called("b", "c")],
    ],
)
def test_a_conversation_in_order_stays_the_same_object(messages: list[Message]) -> None:
    assert results_first(messages) is messages


def none(id: str) -> Message:
    return Message("tool", (Text(NO_RESULT),), tool_call_id=id, failed=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([Q, called("a"), WAIT], [Q, called("a"), none("a"), WAIT]),
        ([Q, called("a", "b"), result("b"), WAIT], [Q, called("a", "b"), result("b"), none("a"), WAIT]),
        ([Q, called("a", "b"), result("a")], [Q, called("a", "b"), result("a"), none("b")]),
        ([called("a"), called("b"), result("b")], [called("a"), none("a"), called("b"), result("b")]),
        ([called("a"), WAIT, called("b")], [called("a"), none("a"), WAIT, called("b")]),
        ([called("a", "a"), result("a"), WAIT], [called("a", "a"), result("a"), none("a"), WAIT]),
        (
            [called("a"), WAIT, called("b"), WAIT, result("b"), result("a")],
            [called("a"), result("a"), WAIT, called("b"), result("b"), WAIT],
        ),
        ([called("a"), result("x"), WAIT], [called("a"), none("a"), lost(), WAIT]),
    ],
)
def test_a_call_without_a_result_gets_one_that_says_so(given: list[Message], expected: list[Message]) -> None:
    assert results_first(given) == expected
    assert results_first(expected) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([Q, result("x"), WAIT], [Q, lost(), WAIT]),
        ([result("x"), result("y", "s"), Q], [lost(), lost("s"), Q]),
        ([called("a"), result("a"), result("a", "again")], [called("a"), result("a"), lost("again")]),
        (
            [called("a", "b"), result("a"), result("a", "again"), result("b")],
            [called("a", "b"), result("a"), result("b"), lost("again")],
        ),
        (
            [called("a"), result("a", "1"), called("a"), result("a", "2"), result("a", "3")],
            [called("a"), result("a", "1"), called("a"), result("a", "2"), lost("3")],
        ),
    ],
)
def test_a_result_that_is_of_no_call_is_told_as_what_a_user_says(
    given: list[Message], expected: list[Message]
) -> None:
    assert results_first(given) == expected
    assert results_first(expected) is expected


def test_many_results_in_a_wrong_order_take_no_time() -> None:
    ids = [str(index) for index in range(3000)]
    start = time.process_time()
    ordered = results_first([called(*ids), WAIT, *[result(id) for id in reversed(ids)], result("x")])
    assert len(ordered) == 3003
    assert time.process_time() - start < 2


ITEMS = [
    {"type": "message", "role": "user", "content": "q"},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "message", "role": "user", "content": "wait"},
    {"type": "function_call_output", "call_id": "c1", "output": "r"},
]
BODY = {
    "model": "m",
    "input": ITEMS,
    "tools": [{"type": "function", "name": "f", "parameters": {}}],
    "tool_choice": "auto",
}


def bodies(upstream: str) -> dict[str, Any]:
    return sent(UPSTREAMS[upstream], parsed("responses", json.dumps(BODY).encode(), stream=True))


def test_a_user_who_speaks_while_a_tool_runs_is_heard_after_its_result_everywhere() -> None:
    assert [m["role"] for m in bodies("openai")["messages"]] == ["user", "assistant", "tool", "user"]
    assert [m["role"] for m in bodies("cohere")["messages"]] == ["user", "assistant", "tool", "user"]
    kinds = [block["type"] for block in bodies("anthropic")["messages"][-1]["content"]]
    assert kinds == ["tool_result", "text"]
    assert [sorted(block) for block in bodies("bedrock")["messages"][-1]["content"]] == [
        ["toolResult"],
        ["text"],
    ]
    assert [sorted(part) for part in bodies("gemini")["contents"][-1]["parts"]] == [
        ["functionResponse"],
        ["text"],
    ]


INTERRUPTED = {**BODY, "input": ITEMS[:3]}


def test_an_interrupted_call_has_a_result_everywhere_but_at_callers_of_the_same_dialect() -> None:
    chat = parsed("responses", json.dumps(INTERRUPTED).encode(), stream=True)

    def body(upstream: str) -> dict[str, Any]:
        return sent(UPSTREAMS[upstream], chat)

    for upstream in ("openai", "cohere"):
        messages = body(upstream)["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]
        assert messages[2]["tool_call_id"] == messages[1]["tool_calls"][0]["id"]
        assert NO_RESULT in json.dumps(messages[2])
    result, _ = body("anthropic")["messages"][-1]["content"]
    assert (result["type"], result["tool_use_id"], result["is_error"]) == ("tool_result", "c1", True)
    result, _ = body("bedrock")["messages"][-1]["content"]
    assert (result["toolResult"]["toolUseId"], result["toolResult"]["status"]) == ("c1", "error")
    response = body("gemini")["contents"][-1]["parts"][0]["functionResponse"]
    assert response["name"] == "f"
    assert len(body("responses")["input"]) == 3
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f"}}]},
        {"role": "user", "content": "wait"},
    ]
    of_openai = parsed("openai", json.dumps({"model": "m", "messages": messages}).encode(), stream=True)
    items = sent(UPSTREAMS["responses"], of_openai)["input"]
    assert [item["type"] for item in items] == ["message", "function_call", "function_call_output", "message"]
    assert NO_RESULT in items[2]["output"]
    assert len(sent(UPSTREAMS["openai"], of_openai)["messages"]) == 3
