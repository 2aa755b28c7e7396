"""Thinking at Anthropic: asked for as each model understands, and fitted to the rest of the request."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.model.chat import ChatRequest, Message, Reasoning, Sampling, Text, Thought, Tool, ToolCall
from sluice.model.rules import rules_of
from sluice.proxy.fitting import Fitting
from sluice_plugins.anthropic.backend import Anthropic

HELLO = (Message("user", (Text("Hi"),)),)
CALL = Message("assistant", (), (ToolCall("toolu_1", "f", "{}"),))
RESULT = Message("tool", (Text("r"),), tool_call_id="toolu_1")
SEALED = (Thought("Hm.", "sig"), Thought(redacted="data"))
MANUAL = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
ADAPTIVE = {"thinking": {"type": "adaptive"}}


def sent(model: str = "m", extra: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The body for this model, by its rules."""
    rules = rules_of(bundled_rules(), [], "anthropic", "api.anthropic.com", model)
    fields.setdefault("messages", HELLO)
    chat = Fitting(rules)(ChatRequest("openai", None, **fields))
    backend = with_rules(Anthropic(extra_body=extra or {}), rules)
    decoded: dict[str, Any] = msgspec.json.decode(backend.request(chat, model).body)
    return decoded


def thinking(model: str, wish: Reasoning, limit: int | None = None) -> tuple[Any, Any, int]:
    """What is sent of thinking, the effort, and the maximum."""
    found = sent(model, reasoning=wish, sampling=Sampling(limit))
    return found.get("thinking"), found.get("output_config", {}).get("effort"), found["max_tokens"]


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


WISHES: list[tuple[str, Reasoning, int | None, Any]] = [
    # by budget, where the model has one
    ("m", Reasoning("low"), None, (budget(2048), None, 2048 + 4096)),
    ("m", Reasoning("high"), 10_000, (budget(8000), None, 10_000)),
    ("m", Reasoning("medium"), 2000, (budget(1024), None, 2000)),
    ("m", Reasoning("medium"), 1024, (None, None, 1024)),
    ("m", Reasoning("low"), 50, (None, None, 50)),
    ("m", Reasoning("none"), 50, (None, None, 50)),
    ("m", Reasoning(budget=3000), 4000, (budget(3000), None, 4000)),
    ("m", Reasoning(budget=3000), 2000, (budget(1600), None, 2000)),
    ("m", Reasoning(budget=1), None, (budget(1024), None, 1024 + 4096)),
    ("claude-haiku-4-5", Reasoning("max"), None, (budget(32_768), None, 32_768 + 4096)),
    ("claude-opus-4-1", Reasoning("max"), None, (budget(25_600), None, 32_000)),
    ("claude-opus-4-5", Reasoning("max"), 50_000, (budget(32_768), "high", 50_000)),
    # by effort, where it thinks adaptively
    ("claude-sonnet-4-6", Reasoning("low"), 50, ({"type": "adaptive"}, "low", 50)),
    ("claude-sonnet-4-6", Reasoning("xhigh"), None, ({"type": "adaptive"}, "high", 4096)),
    ("claude-opus-4-8", Reasoning("minimal"), None, ({"type": "adaptive"}, "low", 4096)),
    ("claude-opus-5", Reasoning("xhigh"), None, ({"type": "adaptive"}, "xhigh", 4096)),
    ("claude-opus-5", Reasoning(budget=2000), None, ({"type": "adaptive"}, "low", 4096)),
    # and off
    ("claude-opus-4-8", Reasoning("none"), None, (None, None, 4096)),
    ("claude-opus-5", Reasoning("none"), None, ({"type": "disabled"}, None, 4096)),
    ("claude-sonnet-5-5", Reasoning("none"), None, ({"type": "between_tools"}, None, 4096)),
    ("claude-opus-5-5", Reasoning("none"), None, (None, "low", 4096)),
    ("claude-3-5-sonnet-20241022", Reasoning("high"), None, (None, None, 4096)),
]


@pytest.mark.parametrize(("model", "wish", "limit", "expected"), WISHES)
def test_an_effort_reaches_the_model_as_it_understands(
    model: str, wish: Reasoning, limit: int | None, expected: Any
) -> None:
    assert thinking(model, wish, limit) == expected


@pytest.mark.parametrize("extra", [MANUAL, ADAPTIVE])
def test_sampling_gives_way_to_thinking(extra: dict[str, Any]) -> None:
    found = sent(extra=extra, sampling=Sampling(None, 0.0, 0.5, (), top_k=5))
    assert found["thinking"] == extra["thinking"]
    assert {"temperature", "top_p", "top_k"}.isdisjoint(found)
    assert sent(extra=extra, sampling=Sampling(None, 0.0, 0.95))["top_p"] == 0.95


@pytest.mark.parametrize("limit", [1, 1024, 1025, 2047, 2048, 2049, 5000, None])
def test_a_budget_fits_below_the_maximum_or_there_is_none(limit: int | None) -> None:
    found = sent(extra=MANUAL, sampling=Sampling(limit))
    assert limit is None or found["max_tokens"] == limit, "never more than the caller pays for"
    if "thinking" in found:
        assert 1024 <= found["thinking"]["budget_tokens"] < found["max_tokens"]
    else:
        assert found["max_tokens"] <= 1024


TOOLS = (Tool("f"),)
GIVES_WAY: dict[str, dict[str, Any]] = {
    "a tool has to be called": {"tools": TOOLS, "tool_choice": "required"},
    "this tool has to be called": {"tools": TOOLS, "tool_choice": ("function", "f")},
    "the assistant goes on": {"messages": (*HELLO, Message("assistant", (Text("So"),)))},
    "blocks have not come back": {"messages": (*HELLO, CALL, RESULT), "tools": TOOLS},
    "unsealed thoughts came back": {
        "messages": (*HELLO, msgspec.structs.replace(CALL, thoughts=(Thought("Hm."),)), RESULT),
        "tools": TOOLS,
    },
}


@pytest.mark.parametrize("case", GIVES_WAY)
@pytest.mark.parametrize("extra", [MANUAL, ADAPTIVE])
def test_thinking_gives_way(extra: dict[str, Any], case: str) -> None:
    found = sent(extra=extra, sampling=Sampling(None, 0.5), **GIVES_WAY[case])
    assert "thinking" not in found
    assert found["temperature"] == 0.5
    assert "thinking" not in sent(reasoning=Reasoning("low"), **GIVES_WAY[case])


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_thinking_stays_where_tools_are_free(choice: Any) -> None:
    assert "thinking" in sent(extra=MANUAL, tools=TOOLS, tool_choice=choice)


def test_sealed_thoughts_come_back_before_the_calls() -> None:
    thought = msgspec.structs.replace(CALL, thoughts=(*SEALED, Thought("of another vendor")))
    found = sent(extra=MANUAL, messages=(*HELLO, thought, RESULT), tools=TOOLS)
    assert found["thinking"] == MANUAL["thinking"]
    assert found["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "data"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    ]
    without = sent("claude-3-5-sonnet-20241022", messages=(*HELLO, thought, RESULT), tools=TOOLS)
    assert [block["type"] for block in without["messages"][1]["content"]] == ["tool_use"]


def test_the_configuration_stands_before_the_caller() -> None:
    off = sent(
        extra={"thinking": {"type": "disabled"}}, reasoning=Reasoning("high"), sampling=Sampling(None, 0.5)
    )
    assert (off["thinking"], off["temperature"]) == ({"type": "disabled"}, 0.5)
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}
    both = sent(
        "claude-opus-5",
        extra={"output_config": {"effort": "max"}},
        reasoning=Reasoning("low"),
        response_format=schema,
    )
    assert both["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}},
        "effort": "max",
    }


wishes = st.sampled_from(
    [None, *(Reasoning(e) for e in ("none", "minimal", "low", "medium", "high", "xhigh", "max"))]
)  # type: ignore[arg-type]
models = st.sampled_from(
    ["m", "claude-3-5-haiku", "claude-opus-4-1", "claude-opus-4-5", "claude-opus-4-8", "claude-opus-5-5"]
)


@settings(deadline=None)
@given(
    models,
    wishes | st.integers(1, 70_000).map(lambda tokens: Reasoning(budget=tokens)),
    st.none() | st.integers(1, 200_000),
    st.sampled_from([{}, MANUAL, ADAPTIVE]),
    st.sampled_from([None, "required"]),
    st.booleans(),
)
def test_whatever_is_asked_what_is_sent_goes_together(
    model: str, wish: Any, limit: int | None, extra: dict[str, Any], choice: str | None, again: bool
) -> None:
    messages = (*HELLO, CALL, RESULT) if again else HELLO
    sampling = Sampling(limit, 0.3, 0.5, ("x",), 7, 0.5, 0.5, 9)
    found = sent(
        model, extra, reasoning=wish, sampling=sampling, tools=TOOLS, tool_choice=choice, messages=messages
    )
    config = found.get("thinking", {"type": "disabled"})
    assert limit is None or found["max_tokens"] <= limit
    if config["type"] in ("enabled", "adaptive"):
        assert {"temperature", "top_p", "top_k"}.isdisjoint(found)
        assert choice is None
        assert not again
    if config["type"] == "enabled":
        assert 1024 <= config["budget_tokens"] < found["max_tokens"]
