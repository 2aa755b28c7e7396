"""What callers of other dialects say to upstreams of OpenAI's."""

import json
from typing import Any

import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.errors import BadRequest
from sluice.frontends.anthropic.request import chat_of
from sluice.model.chat import Reasoning
from sluice.model.rules import ModelRules, rules_of
from sluice.proxy.fitting import Fitting
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.openai.reasoning import effort_of

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
SHOWN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def sent(*messages: Any, **fields: Any) -> dict[str, Any]:
    chat = chat_of({"model": "m", "max_tokens": 9, "messages": [*messages], "stream": True, **fields})
    body: dict[str, Any] = json.loads(OpenAI().request(chat, "gpt").body)
    return body


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*blocks]}


def calls(*ids: str, thinking: str = "") -> dict[str, Any]:
    thought = [{"type": "thinking", "thinking": thinking, "signature": "S"}] if thinking else []
    uses = [{"type": "tool_use", "id": id, "name": "f", "input": {}} for id in ids]
    return {"role": "assistant", "content": [*thought, *uses]}


def result(id: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def test_a_tool_that_failed_says_so() -> None:
    found = sent(user({"type": "text", "text": "go"}), calls("a", "b", "c"), user(
        result("a", "no such file", is_error=True), result("b", "Error: none", is_error=True), result("c", "", is_error=True)
    ))  # fmt: skip
    assert [message["content"] for message in found["messages"] if message["role"] == "tool"] == [
        "Error: no such file",
        "Error: none",
        "Error: ",
    ]


def test_pictures_in_results_follow_behind_the_rounds_results() -> None:
    found = sent(
        user({"type": "text", "text": "go"}),
        calls("a", "b"),
        user(result("a", [PICTURE]), result("b", [{"type": "text", "text": "see"}, PICTURE])),
        {"role": "assistant", "content": "Nice"},
    )["messages"]
    assert [message["role"] for message in found] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
        "assistant",
    ]
    assert (found[2]["content"], found[3]["content"]) == (
        "(The content of this tool's result follows.)",
        "see",
    )
    assert found[4]["content"] == [{"type": "text", "text": "From the tools' results:"}, SHOWN, SHOWN]


def test_reasoning_goes_back_within_a_tool_loop_only_and_where_it_is_taken() -> None:
    question = user({"type": "text", "text": "go"})
    over = [
        question,
        calls("a", thinking="old"),
        user(result("a", "1")),
        {"role": "assistant", "content": "Done"},
    ]
    found = sent(*over, question, calls("b", thinking="new"), user(result("b", "2")))["messages"]
    assert [message.get("reasoning_content") for message in found if "tool_calls" in message] == [None, "new"]
    backend = OpenAI()
    backend.__dict__["rules"] = ModelRules(drop=frozenset({"messages.reasoning_content"}))
    chat = chat_of(
        {"messages": [question, calls("b", thinking="new"), user(result("b", "2"))], "stream": True}
    )
    assert b"reasoning_content" not in backend.request(chat, "gpt").body


def test_a_strict_tool_stays_strict() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    tools = [
        {"name": name, "input_schema": schema, **more} for name, more in (("f", {"strict": True}), ("g", {}))
    ]
    wire = chat_of({"messages": [{"role": "user", "content": "Hi"}], "tools": tools})
    found = json.loads(OpenAI().request(wire, "m").body)["tools"]
    assert [tool["function"].get("strict") for tool in found] == [True, None]


def test_documents() -> None:
    pdf = {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
    }
    text = {
        "type": "document",
        "title": "T",
        "source": {"type": "text", "media_type": "text/plain", "data": "hi"},
    }
    marked = {**pdf, "cache_control": {"type": "ephemeral"}}
    [message] = sent(user(marked, text))["messages"]
    assert message["content"] == [
        {
            "type": "file",
            "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
        },
        {"type": "text", "text": "T\n\nhi"},
    ]


@pytest.mark.parametrize(
    "source", [{"type": "url", "url": "https://x/a.pdf"}, {"type": "file", "file_id": "file_1"}]
)
def test_documents_whose_bytes_are_elsewhere_are_refused(source: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="send its bytes"):
        sent(user({"type": "document", "source": source}))


def test_the_rest_of_a_request() -> None:
    found = sent(
        user({"type": "text", "text": "go", "cache_control": {"type": "ephemeral"}}),
        system=[{"type": "text", "text": "kind", "cache_control": {"type": "ephemeral"}}],
        stop_sequences=["END"],
        thinking={"type": "adaptive"},
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        metadata={"user_id": "ada"},
        tools=[{"name": "f", "input_schema": {"type": "object"}}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        context_management={"edits": []},
    )
    assert found == {
        "model": "gpt",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "system", "content": "kind"}, {"role": "user", "content": "go"}],
        "max_tokens": 9,
        "stop": ["END"],
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}},
        },
        "user": "ada",
        "tools": [
            {
                "type": "function",
                "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
            }
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    }


def test_a_name_longer_than_openai_takes_is_left_out() -> None:
    assert "user" not in sent(user({"type": "text", "text": "go"}), metadata={"user_id": "u" * 65})


@pytest.mark.parametrize(
    ("wish", "known", "effort"),
    [
        (Reasoning("low"), (), "low"),
        (Reasoning("max"), (), "high"),
        (Reasoning("xhigh"), ("low", "xhigh"), "xhigh"),
        (Reasoning("minimal"), ("low", "high"), "low"),
        (Reasoning("none"), (), "none"),
        (Reasoning("none"), ("low",), None),
        (Reasoning(budget=1024), (), "low"),
        (Reasoning(budget=8000), (), "medium"),
        (Reasoning(budget=31_999), (), "high"),
    ],
)
def test_efforts(wish: Reasoning, known: Any, effort: str | None) -> None:
    assert effort_of(wish, known) == effort


@pytest.mark.parametrize(
    ("host", "model", "dropped"),
    [
        ("api.openai.com", "gpt-4o-mini", True), ("api.openai.com", "gpt-4.1", True), ("api.openai.com", "gpt-5.1", False),
        ("api.openai.com", "o3", False), ("api.x.ai", "grok-4-fast-reasoning", True), ("api.x.ai", "grok-4.20-0309", True),
        ("api.x.ai", "grok-4.3", False), ("api.x.ai", "grok-4.6", False), ("api.x.ai", "grok-3-mini", False),
        ("api.x.ai", "grok-3", True), ("api.groq.com", "llama-3.3-70b", True), ("api.groq.com", "openai/gpt-oss-120b", False),
        ("127.0.0.1", "anything", False),
    ],
)  # fmt: skip
def test_an_effort_is_left_out_where_a_model_refuses_it(host: str, model: str, dropped: bool) -> None:
    rules = rules_of(bundled_rules(), (), "openai", host, model)
    assert ("reasoning_effort" in rules.drop) is dropped
    asked = {
        "messages": [{"role": "user", "content": "x"}],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low"},
    }
    chat = Fitting(rules, dialect="openai")(chat_of(asked))
    assert (b"reasoning_effort" in with_rules(OpenAI(), rules).request(chat, model).body) is not dropped
