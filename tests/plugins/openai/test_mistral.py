"""Requests to Mistral are what its API takes, by the rules of its vendor: its SDK knows every field of
them."""

import json
from typing import Any

import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.model.chat import ChatRequest, Message, Reasoning, Sampling, Text, Tool, ToolCall, continued
from sluice.model.rules import rules_of
from sluice.proxy.fitting import Fitting
from sluice_plugins.openai.backend import OpenAI
from tests.plugins.credentials.oracle import ask

RULES = rules_of(bundled_rules(), [], "openai", "api.mistral.ai", "magistral-small-latest")
BACKEND = with_rules(OpenAI(), RULES)
CALL = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {
    "model": "chat", "stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 9, "seed": 7,
    "logprobs": True, "user": "u", "prompt_mode": "reasoning", "tool_choice": "required", "parallel_tool_calls": False,
    "safe_prompt": True, "temperature": 0.5, "stop": ["x"], "presence_penalty": 0.5,
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Hm"},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "ok", "name": "f"},
        {"role": "user", "content": "And?"},
    ],
}  # fmt: skip
TRANSLATED = ChatRequest(
    "ollama", None, (Message("system", (Text("s"),)), Message("user", (Text("Hi"),)), Message("assistant", (Text("So"),))),
    sampling=Sampling(9, 0.5, 0.9, ("x",), 7, 0.1, 0.2, 4),
    tools=(Tool("f", "", {"type": "object"}),), tool_choice=("function", "f"),
    reasoning=Reasoning("high"), user="u",
)  # fmt: skip


def sent(chat: ChatRequest) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(BACKEND.request(Fitting(RULES)(chat), "m").body)
    return found


def parsed(**fields: Any) -> ChatRequest:
    return Frontend().parse(json.dumps({**ASKED, **fields}).encode(), {})


def test_what_mistral_refuses_is_left_out_and_what_it_calls_otherwise_is_renamed() -> None:
    for found in (sent(parsed()), sent(TRANSLATED)):
        assert found.keys().isdisjoint(
            {"stream_options", "logprobs", "user", "seed", "max_completion_tokens"}
        )
        assert (found["random_seed"], found["max_tokens"], found["stream"]) == (7, 9, True)
    found = sent(parsed())
    assert (found["prompt_mode"], found["safe_prompt"], found["tool_choice"]) == (
        "reasoning",
        True,
        "required",
    )
    assert [sorted(message) for message in found["messages"]] == [
        ["content", "role"], ["content", "role"], ["content", "role", "tool_calls"], ["content", "role", "tool_call_id"],
        ["content", "role"], ["content", "role"],
    ]  # fmt: skip
    [called, result] = found["messages"][2:4]
    assert called["tool_calls"][0]["id"] == result["tool_call_id"]
    assert len(result["tool_call_id"]) == 9
    assert found["messages"][0]["role"] == "system"


PLAIN = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("fields", [{}, {"seed": 7}])
def test_a_last_message_of_the_assistant_is_what_the_answer_begins_with(fields: dict[str, Any]) -> None:
    prefilled = {
        "model": "chat",
        "stream": True,
        "messages": [*PLAIN, {"role": "assistant", "content": "So"}],
        **fields,
    }
    chat = Frontend().parse(json.dumps(prefilled).encode(), {})
    assert sent(chat)["messages"] == [*PLAIN, {"role": "assistant", "content": "So", "prefix": True}]
    begun = Frontend().parse(json.dumps({**prefilled, "messages": PLAIN}).encode(), {})
    assert sent(continued(begun, "So"))["messages"][-1] == {
        "role": "assistant",
        "content": "So",
        "prefix": True,
    }
    assert sent(begun)["messages"] == PLAIN
    assert sent(TRANSLATED)["messages"][-1] == {"role": "assistant", "content": "So", "prefix": True}
    whole = BACKEND.whole_request(Fitting(RULES)(chat), "m")
    assert json.loads(whole.body)["messages"][-1]["prefix"] is True


SDK = """
import json, sys
from mistralai.client.models import ChatCompletionRequest
import pydantic

def unknown(given, model, place):
    extra = sorted(set(given) - {f.alias or n for n, f in type(model).model_fields.items()})
    return [f"{place}: {extra}"] if extra else []

found = []
for body in json.load(sys.stdin):
    request = ChatCompletionRequest.model_validate(body)
    wrong = unknown(body, request, "body")
    for number, (given, message) in enumerate(zip(body["messages"], request.messages, strict=True)):
        wrong += unknown(given, message, f"messages[{number}]")
    found.append(wrong)
print(json.dumps(found))
"""


def test_mistrals_sdk_knows_every_field() -> None:
    calls = (ToolCall("c", "f", "{}"),)
    history = (
        *TRANSLATED.messages[:2],
        Message("assistant", (), calls),
        Message("tool", (Text("ok"),), tool_call_id="c"),
    )
    chats = [
        parsed(),
        parsed(messages=PLAIN),
        TRANSLATED,
        ChatRequest("anthropic", None, history),
        continued(parsed(), "So"),
    ]
    assert ask("mistralai", SDK, [sent(chat) for chat in chats]) == [[]] * len(chats)
