"""Requests of Anthropic's own callers: the object as it came, but for what the target needs otherwise."""

import json
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import with_rules
from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.anthropic import request
from sluice.frontends.anthropic.counting import counted
from sluice.frontends.anthropic.dialect import Anthropic as Frontend
from sluice.model.rules import NO_RULES, ModelRules
from sluice.proxy.fitting import Fitting
from sluice_plugins.anthropic.backend import BETAS, Anthropic
from sluice_plugins.openai.backend import OpenAI

HELLO = [{"role": "user", "content": "Hello"}]
TOOL_ROUND = [
    *HELLO,
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "SIG"},
            {"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "functions.f:0", "content": "1"}]},
]


def body(**fields: Any) -> bytes:
    return json.dumps(
        {"model": "chat", "max_tokens": 9, "messages": HELLO, "stream": True, **fields}
    ).encode()


def sent(
    raw: bytes, rules: ModelRules = NO_RULES, backend: Anthropic | None = None, *, whole: bool = False
) -> bytes:
    chat = Frontend().parse(raw, Head())
    if rules is not NO_RULES:
        chat = Fitting(rules)(chat)
    backend = with_rules(backend or Anthropic(), rules)
    return (backend.whole_request if whole else backend.request)(chat, "claude").body


def changed(rules: ModelRules = NO_RULES, backend: Anthropic | None = None, **fields: Any) -> dict[str, Any]:
    """What stands in the request otherwise than the caller wrote it, the model's name left out; None for what
    is missing."""
    raw = body(**fields)
    before, after = json.loads(raw), json.loads(sent(raw, rules, backend))
    assert after.pop("model") == "claude"
    before.pop("model")
    return {name: after.get(name) for name in {**before, **after} if before.get(name) != after.get(name)}


def test_only_the_models_name_is_written_anew() -> None:
    raw = b'{ "max_tokens":9.0, "model": "chat","new":{"a":[1e2]},\n"messages":[{"role":"user","content":"x"}],"stream":true}'
    assert sent(raw) == raw.replace(b'"model": "chat"', b'"model":"claude"')


@pytest.mark.parametrize("stream", [{"stream": False}, {}])
def test_a_whole_answer_is_asked_for_as_the_caller_asked(stream: dict[str, Any]) -> None:
    raw = json.dumps({"model": "chat", "max_tokens": 9, "messages": HELLO, **stream}).encode()
    assert sent(raw, whole=True) == raw.replace(b'"model": "chat"', b'"model":"claude"')
    assert json.loads(sent(raw))["stream"] is True


def test_anthropics_own_fields_pass() -> None:
    fields: dict[str, Any] = {
        "tools": [{"type": "web_search_20260209", "name": "web_search"}, {"type": "bash_20250124", "name": "bash"}],
        "mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}],
        "container": {"skills": []}, "context_management": {"edits": []}, "service_tier": "auto",
        "metadata": {"user_id": "ada"}, "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": "high", "task_budget": {}}, "cache_control": {"type": "ephemeral"}, "speed": "fast",
    }  # fmt: skip
    drops = ModelRules(drop=frozenset({"metadata", "service_tier", "user", "seed", "logprobs"}))
    assert changed(**fields) == {}
    assert changed(drops, **fields) == {}


CAPPED = ModelRules(cap={"max_tokens": 5}, either=(("temperature", "top_p"),))


@pytest.mark.parametrize(
    ("rules", "fields", "expected"),
    [
        (CAPPED, {}, {"max_tokens": 5}),
        (CAPPED, {"temperature": 1, "top_p": 0.5}, {"max_tokens": 5, "top_p": None}),
        (
            ModelRules(drop=frozenset({"temperature", "top_k"})),
            {"temperature": 1, "top_k": 2},
            {"temperature": None, "top_k": None},
        ),
        (ModelRules(drop=frozenset({"stop"})), {"stop_sequences": ["a"]}, {"stop_sequences": None}),
        (
            ModelRules(drop=frozenset({"context_management"})),
            {"context_management": {}},
            {"context_management": None},
        ),
        (ModelRules(default={"temperature": 0.5}), {}, {"temperature": 0.5}),
        (ModelRules(default={"temperature": 0.5}), {"temperature": 1}, {}),
        (ModelRules(force={"max_tokens": 7}), {}, {"max_tokens": 7}),
        (ModelRules(blank_stops=False), {"stop_sequences": ["\n", "END"]}, {"stop_sequences": ["END"]}),
        (ModelRules(blank_stops=False), {"stop_sequences": ["\n"]}, {"stop_sequences": None}),
        (ModelRules(drop=frozenset({"thinking"})), {"thinking": {"type": "adaptive"}}, {"thinking": None}),
    ],
)
def test_rules_hold(rules: ModelRules, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert changed(rules, **fields) == expected


ADAPTIVE = ModelRules(thinking="adaptive", efforts=("low", "medium", "high"))
BUDGET = ModelRules(thinking="budget")
NEVER = ModelRules(thinking="never")
ALWAYS = ModelRules(thinking="adaptive", always_thinks=True, thinking_off="never", efforts=("low", "high"))
ENABLED = {"type": "enabled", "budget_tokens": 2000}


@pytest.mark.parametrize(
    ("rules", "fields", "expected"),
    [
        (ADAPTIVE, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, {}),
        (ADAPTIVE, {"thinking": {"type": "disabled"}}, {}),
        (ADAPTIVE, {"output_config": {"effort": "max"}}, {"output_config": {"effort": "high"}}),
        (
            ADAPTIVE,
            {"thinking": {**ENABLED, "display": "omitted"}, "max_tokens": 4000},
            {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "low"}},
        ),
        (BUDGET, {"thinking": ENABLED, "max_tokens": 4000}, {}),
        (
            BUDGET,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}, "max_tokens": 10_000},
            {"thinking": {"type": "enabled", "budget_tokens": 8000}, "output_config": None},
        ),
        (
            NEVER,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
            {"thinking": None, "output_config": None},
        ),
        (NEVER, {"thinking": {"type": "disabled"}}, {}),
        (ADAPTIVE, {"output_config": {"effort": "a word of next year"}}, {}),
        (ALWAYS, {"thinking": {"type": "disabled"}}, {"thinking": None, "output_config": {"effort": "low"}}),
        (NO_RULES, {"thinking": ENABLED}, {}),
        (NO_RULES, {"thinking": {"type": "of next year"}}, {}),
    ],
)
def test_thinking_is_of_a_kind_that_it_has(
    rules: ModelRules, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert changed(rules, **fields) == expected


def test_ids_of_calls_get_the_form_that_the_target_takes() -> None:
    found = changed(ModelRules(tool_ids="[A-Za-z0-9_-]{1,64}"), messages=TOOL_ROUND)["messages"]
    call, result = found[1]["content"][1]["id"], found[2]["content"][0]["tool_use_id"]
    assert call == result
    assert call.startswith("functions_f_0_")
    fitting = json.loads(json.dumps(TOOL_ROUND).replace("functions.f:0", "toolu_1"))
    assert changed(ModelRules(tool_ids="[A-Za-z0-9_-]{1,64}"), messages=fitting) == {}


def test_thinking_that_another_vendor_sealed_or_nobody_is_left_out() -> None:
    own = json.dumps(TOOL_ROUND)
    assert changed(messages=json.loads(own)) == {}
    for seal in ("", "gemini:x", "openai:x:y"):
        found = changed(messages=json.loads(own.replace("SIG", seal)))["messages"]
        assert [block["type"] for block in found[1]["content"]] == ["tool_use"]
    alone = [
        *HELLO,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": ""}]},
    ]
    assert changed(messages=[*alone, *HELLO])["messages"] == [*HELLO, *HELLO]


def test_a_missing_maximum_is_the_targets_default() -> None:
    assert changed(max_tokens=None) == {"max_tokens": 4096}


def test_fields_of_the_configuration_are_set() -> None:
    backend = Anthropic(
        extra_body={
            "service_tier": "standard_only",
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "low"},
        }
    )
    assert changed(backend=backend, output_config={"effort": "high", "format": {}}) == {
        "service_tier": "standard_only",
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "low", "format": {}},
    }


def test_what_cannot_be_written_into_the_request_has_it_written_anew_but_not_without_its_tools() -> None:
    rules = ModelRules(force={"stop": ["END"]})
    found = json.loads(sent(body(vendors="own"), rules))
    assert (found["stop_sequences"], "vendors" in found) == (["END"], False)
    with pytest.raises(BadRequest, match=r"tools\[0\]"):
        sent(body(tools=[{"type": "bash_20250124", "name": "bash"}]), rules)


def test_headers() -> None:
    chat = Frontend().parse(body(), Head())
    streamed, whole = (
        dict(request(chat, "m").headers) for request in (Anthropic().request, Anthropic().whole_request)
    )
    assert (streamed["accept"], whole["accept"]) == ("text/event-stream", "application/json")
    assert Anthropic().forwards == {"anthropic-beta": BETAS, "anthropic-version": "any"}
    assert Anthropic(beta_allowed=("*",)).forwards["anthropic-beta"] == "any"


def test_tokens_are_counted_by_anthropic_itself_and_by_others_that_are_said_to() -> None:
    other = "https://llm.example/v1"
    for backend, counts in (
        (Anthropic(), True),
        (Anthropic(count_tokens=False), False),
        (Anthropic(base_url=other), False),
        (Anthropic(base_url=other, count_tokens=True), True),
    ):
        assert (backend.operation("count_tokens", "anthropic") is not None) is counts
        assert backend.operation("count_tokens", "openai") is None
    operation = Anthropic().operation("count_tokens", "anthropic")
    assert operation is not None
    request = operation.whole_request(
        counted(b'{"model": "chat", "messages": [{"role":"user","content":"x"}]}', Head()), "claude"
    )
    assert request.url == "https://api.anthropic.com/v1/messages/count_tokens"
    assert request.body == b'{"model":"claude", "messages": [{"role":"user","content":"x"}]}'


def test_a_caller_of_another_dialect_has_its_request_translated() -> None:
    chat = msgspec.structs.replace(Frontend().parse(body(vendors="own"), Head()), dialect="responses")
    assert "vendors" not in json.loads(Anthropic().request(chat, "m").body)
    assert "vendors" not in json.loads(
        OpenAI().request(Frontend().parse(body(vendors="own"), Head()), "m").body
    )


@pytest.mark.parametrize(
    ("signature", "kept"),
    [("SIG", True), ("gemini:SIG", False), ("", False)],
)
def test_a_budget_of_thinking_is_not_asked_for_in_a_round_that_another_vendor_began(
    signature: str, kept: bool
) -> None:
    """Claude Code goes on at Claude after Gemini has called its tool: without a block of its own the API
    refuses thinking ("Expected `thinking` …, but found `tool_use`")."""
    hello, called, result = TOOL_ROUND
    calling = [{**called["content"][0], "signature": signature}, called["content"][1]]
    thinking = {"type": "enabled", "budget_tokens": 2048}
    found = changed(
        max_tokens=4096,
        thinking=thinking,
        messages=[hello, {**called, "content": calling}, result],
    )
    assert ("thinking" in found) is not kept
    assert found.get("thinking") is None
    assert "thinking" not in changed(
        max_tokens=4096,
        thinking={"type": "adaptive"},
        messages=[hello, {**called, "content": calling}, result],
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"system": "Be kind"},
        {"system": "x-anthropic-billing-header: cc_version=1"},
        {"system": ""},
        {"temperature": 0.5},
        {"max_tokens": 10_000},
        {"stream": False, "messages": [*HELLO, {"role": "assistant", "content": "{"}]},
    ],
)
@pytest.mark.parametrize(
    "rules",
    [
        ModelRules(),
        ModelRules(cap={"max_tokens": 4096}),
        ModelRules(drop=frozenset({"temperature"})),
        ModelRules(drop=frozenset({"max_tokens", "max_completion_tokens"})),
        ModelRules(either=(("temperature", "top_p"), ("max_tokens", "max_completion_tokens"))),
        ModelRules(default={"temperature": 0.1, "max_tokens": 7}),
        ModelRules(force={"max_tokens": 7}),
        ModelRules(roles={"system": "developer"}),
        ModelRules(thinking="adaptive", always_thinks=True, blank_stops=False),
    ],
)
def test_texts_alone_are_read_and_written_as_any_other_request(
    fields: dict[str, Any], rules: ModelRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "speed": "fast"}
    backends = [Anthropic(), Anthropic(extra_body=extra), Anthropic(default_max_tokens=5)]

    def everything() -> list[Any]:
        chat = Frontend().parse(body(**fields), Head())
        read = msgspec.structs.replace(chat, only_texts=False)
        written = [sent(body(**fields), rules, backend, whole=not chat.stream) for backend in backends]
        other = OpenAI(base_url="http://h").request(Fitting(rules, dialect="openai")(chat), "m").body
        return [read, *written, other]

    assert Frontend().parse(body(**fields), Head()).only_texts
    quickly = everything()
    monkeypatch.setattr(request, "_texts", lambda wire: None)
    assert not Frontend().parse(body(**fields), Head()).only_texts
    assert everything() == quickly
