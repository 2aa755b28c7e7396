"""A caller's marks for the prompt cache, in Anthropic's words or in OpenAI's, reach targets of every dialect."""

import json
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import find_backend, with_rules
from sluice.config.rule_file import bundled_rules
from sluice.model.features import FEATURES, uses_of
from sluice.model.rules import rules_of
from sluice.proxy.capable import Capable, takes_of
from sluice.proxy.fitting import Fitting
from tests.matrix.lanes import parsed

MARK = {"type": "ephemeral"}
BREAKPOINT = {"mode": "explicit"}
TOOL = {"name": "look_up", "input_schema": {"type": "object", "properties": {}}, "cache_control": MARK}
PNG = "aW1hZ2U="

ANTHROPIC = {
    "model": "m",
    "max_tokens": 10,
    "system": [{"type": "text", "text": "Rules", "cache_control": MARK}],
    "tools": [TOOL],
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I will look.", "cache_control": MARK},
                {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "found", "cache_control": MARK},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    "cache_control": MARK,
                },
            ],
        },
    ],
}
CHAT = {
    "model": "m",
    "messages": [
        {
            "role": "system",
            "content": [{"type": "text", "text": "Rules", "prompt_cache_breakpoint": BREAKPOINT}],
        },
        {"role": "user", "content": [{"type": "text", "text": "Hi", "prompt_cache_breakpoint": BREAKPOINT}]},
    ],
}
RESPONSES = {
    "model": "m",
    "input": [
        {
            "role": "developer",
            "content": [{"type": "input_text", "text": "Rules", "prompt_cache_breakpoint": BREAKPOINT}],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "input_text",
                    "text": "Hi",
                    "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"},
                }
            ],
        },
    ],
}


def sent(client: str, body: Any, backend: str, host: str, model: str, dropped: list[str]) -> Any:
    """What a target of this backend, at this host, is sent of a caller's body."""
    rules = rules_of(bundled_rules(), [], backend, host, model)
    options = {"region": "eu-central-1"} if backend == "bedrock" else {"base_url": f"https://{host}/v1"}
    target = with_rules(find_backend(backend)(**options), rules)
    chat = parsed(client, json.dumps(body).encode(), stream=False)
    if client != target.dialect:
        takes = takes_of(target, rules)
        assert takes is not None
        capable = Capable(takes, None, dropped.append, frozenset())
        capable.check(chat)
        chat = capable.without(chat)
    chat = Fitting(rules, dropped.append, target.dialect)(chat)
    return msgspec.json.decode(target.request(chat, model).body)


def test_openais_newer_models_get_breakpoints_by_chat_completions() -> None:
    dropped: list[str] = []
    body = sent("anthropic", ANTHROPIC, "openai", "api.openai.com", "gpt-5.6", dropped)
    system, user, assistant, result, image = body["messages"]
    assert system["content"] == [{"type": "text", "text": "Rules", "prompt_cache_breakpoint": BREAKPOINT}]
    assert user["content"] == "Hi"
    assert assistant["content"] == "I will look."
    assert result["content"] == [{"type": "text", "text": "found", "prompt_cache_breakpoint": BREAKPOINT}]
    assert image["content"][-1]["prompt_cache_breakpoint"] == BREAKPOINT
    assert body["prompt_cache_options"] == {"mode": "explicit"}
    assert "cache_control" not in json.dumps(body)
    assert "cache_control" not in dropped


def test_openais_newer_models_get_breakpoints_by_responses() -> None:
    dropped: list[str] = []
    body = sent("anthropic", ANTHROPIC, "responses", "api.openai.com", "gpt-6-sol", dropped)
    assert "instructions" not in body
    system, user, assistant, call, result, image = body["input"]
    assert system["role"] == "developer"
    assert system["content"] == [
        {"type": "input_text", "text": "Rules", "prompt_cache_breakpoint": BREAKPOINT}
    ]
    assert "prompt_cache_breakpoint" not in json.dumps([user, assistant, call])
    assert result["output"] == [
        {"type": "input_text", "text": "found", "prompt_cache_breakpoint": BREAKPOINT}
    ]
    assert image["content"][0]["prompt_cache_breakpoint"] == BREAKPOINT
    assert body["prompt_cache_options"] == {"mode": "explicit"}
    assert "cache_control" not in dropped


@pytest.mark.parametrize(
    ("backend", "host", "model"),
    [
        ("openai", "api.openai.com", "gpt-5.5"),
        ("openai", "api.openai.com", "gpt-4.1"),
        ("openai", "api.groq.com", "gpt-5.6"),
        ("responses", "api.openai.com", "gpt-5"),
    ],
)
def test_others_get_no_marks_and_it_is_counted(backend: str, host: str, model: str) -> None:
    dropped: list[str] = []
    body = sent("anthropic", ANTHROPIC, backend, host, model, dropped)
    assert "cache" not in json.dumps(body)
    assert "cache_control" in dropped


@pytest.mark.parametrize("host", ["openrouter.ai", "dashscope-intl.aliyuncs.com"])
def test_vendors_with_anthropics_marks_get_them_as_they_are(host: str) -> None:
    body = sent("anthropic", ANTHROPIC, "openai", host, "anthropic/claude-sonnet-5", [])
    system, user, assistant, result, image = body["messages"]
    for message in (system, assistant, result, image):
        assert message["content"][-1]["cache_control"] == MARK
    assert user["content"] == "Hi"
    assert "prompt_cache" not in json.dumps(body)


@pytest.mark.parametrize(
    ("client", "body", "second"), [("openai", CHAT, MARK), ("responses", RESPONSES, {**MARK, "ttl": "1h"})]
)
def test_openais_breakpoints_are_marks_for_claude(client: str, body: Any, second: Any) -> None:
    wire = sent(client, body, "anthropic", "api.anthropic.com", "claude-sonnet-5", [])
    assert wire["system"] == [{"type": "text", "text": "Rules", "cache_control": MARK}]
    assert wire["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": second}]}
    ]
    wire = sent(
        client, body, "bedrock", "bedrock-runtime.eu-central-1.amazonaws.com", "anthropic.claude-sonnet-5", []
    )
    assert "cachePoint" in json.dumps(wire["system"])
    assert "cachePoint" in json.dumps(wire["messages"])


def test_a_file_with_a_breakpoint_is_marked_for_claude() -> None:
    file = {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="}}
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [{**file, "prompt_cache_breakpoint": BREAKPOINT}]}],
    }
    wire = sent("openai", body, "anthropic", "api.anthropic.com", "claude-sonnet-5", [])
    assert wire["messages"][0]["content"][0]["cache_control"] == MARK
    assert sent("openai", body, "openai", "api.openai.com", "gpt-5.6", [])["messages"] == body["messages"]


def test_anthropics_marks_in_openais_dialect_reach_openai_in_its_own_words() -> None:
    content = [{"type": "text", "text": "Rules", "cache_control": MARK}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}, "cache_control": MARK}
    body = {
        "model": "m",
        "messages": [{"role": "system", "content": content}, {"role": "user", "content": "Hi"}],
        "tools": [tool],
    }
    wire = sent("openai", body, "openai", "api.openai.com", "gpt-5.6", [])
    [marked] = wire["messages"][0]["content"]
    assert marked == {"type": "text", "text": "Rules", "prompt_cache_breakpoint": BREAKPOINT}
    assert wire["prompt_cache_options"] == {"mode": "explicit"}
    assert "cache_control" not in json.dumps(wire)
    dropped: list[str] = []
    wire = sent("openai", body, "openai", "api.openai.com", "gpt-5", dropped)
    assert "cache" not in json.dumps(wire)
    assert dropped == ["messages.cache_control"]
    wire = sent("openai", body, "openai", "openrouter.ai", "anthropic/claude-sonnet-5", [])
    assert wire["messages"] == body["messages"]
    assert wire["tools"] == body["tools"]


def test_the_feature_is_used_by_either_words() -> None:
    for client, body in (("openai", CHAT), ("responses", RESPONSES), ("anthropic", ANTHROPIC)):
        chat = parsed(client, json.dumps(body).encode(), stream=False)
        assert FEATURES["cache_control"] in [use.feature for use in uses_of(chat)]


def test_a_mark_at_a_tools_result_reaches_claude_elsewhere() -> None:
    """Agents mark the last block of a conversation, which is most often a result."""
    host = "bedrock-runtime.eu-central-1.amazonaws.com"
    wire = sent("anthropic", ANTHROPIC, "bedrock", host, "anthropic.claude-sonnet-5", [])
    content = wire["messages"][-1]["content"]
    assert [next(iter(block)) for block in content] == ["toolResult", "cachePoint", "image", "cachePoint"]
    chat = parsed("anthropic", json.dumps(ANTHROPIC).encode(), stream=False)
    rules = rules_of(bundled_rules(), [], "anthropic", "api.anthropic.com", "claude-sonnet-5")
    written = msgspec.structs.replace(chat, wire=None, body=b"")  # an alias with a prompt of its own
    body = msgspec.json.decode(with_rules(find_backend("anthropic")(), rules).request(written, "m").body)
    result, image = body["messages"][-1]["content"]
    assert result["cache_control"] == MARK
    assert result["content"] == [{"type": "text", "text": "found"}]
    assert image["cache_control"] == MARK
