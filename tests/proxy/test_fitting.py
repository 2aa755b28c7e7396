"""What models take: the table's lines by model, an upstream's and a target's options after them, and requests
that fit."""

import json
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.config.vendors import bundled_vendors
from sluice.frontends import Head
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.responses.dialect import Responses
from sluice.model.chat import ChatRequest, Image, Message, Reasoning, Sampling, Text
from sluice.model.features import uses_of
from sluice.model.fields import DialectFields
from sluice.model.rules import NO_RULES, ModelRule, ModelRules, Overrides, rules_of
from sluice.proxy.fitting import Fitting
from sluice_plugins.openai.backend import OpenAI as OpenAIBackend
from sluice_plugins.responses.backend import Responses as ResponsesBackend

PROSE = {"role": "user", "content": "Hi"}


def found(backend: str, model: str, host: str = "gateway.example") -> ModelRules:
    return rules_of(bundled_rules(), [], backend, host, model)


def asked(**fields: Any) -> ChatRequest:
    return OpenAI().parse(json.dumps({"model": "a", "messages": [PROSE], **fields}).encode(), {})


def fit(chat: ChatRequest, **rules: Any) -> tuple[ChatRequest, list[str]]:
    dropped: list[str] = []
    return Fitting(ModelRules(**rules), dropped.append)(chat), sorted(dropped)


# the table


def test_every_line_says_where_it_was_read_and_when() -> None:
    for line in bundled_rules():
        assert line.source
        assert line.date.startswith("2026-")


NEITHER, ONE, BOTH = (
    ({"temperature", "top_p", "top_k"}, ()),
    (set(), (("temperature", "top_p"),)),
    (set(), ()),
)
PREFILLED = [
    "claude-3-7-sonnet-20250219", "claude-opus-4-20250514", "claude-opus-4-1", "claude-sonnet-4-5-20250929",
    "claude-haiku-4-5@20251001", "us.anthropic.claude-opus-4-5-v1:0", "anthropic/claude-opus-4.5", "claude-3-5-sonnet-20241022",
]  # fmt: skip
NOT_PREFILLED = [
    "claude-opus-4-6", "claude-sonnet-4-6", "anthropic/claude-opus-4.6", "us.anthropic.claude-opus-4-6-v1", "claude-opus-4-7",
    "claude-opus-4-10", "claude-sonnet-5", "claude-haiku-5-5-20261007", "claude-fable-5", "claude-mythos-preview",
]  # fmt: skip


@pytest.mark.parametrize("backend", ["anthropic", "vertex-anthropic", "bedrock", "openai"])
def test_claude_takes_no_prefill_from_4_6_on(backend: str) -> None:
    assert [model for model in PREFILLED + NOT_PREFILLED if found(backend, model).prefill] == PREFILLED


SAMPLING = [
    ("claude-3-7-sonnet-20250219", BOTH), ("claude-3-5-sonnet-20241022", BOTH), ("claude-opus-4-20250514", BOTH),
    ("claude-sonnet-4-0", BOTH), ("claude-opus-4-1", ONE), ("claude-opus-4-1-20250805", ONE), ("claude-sonnet-4-5", ONE),
    ("claude-haiku-4-5@20251001", ONE), ("anthropic/claude-opus-4.5", ONE), ("claude-sonnet-4-6", ONE),
    ("claude-opus-4-7", NEITHER), ("us.anthropic.claude-opus-4-7-v1:0", NEITHER), ("anthropic/claude-4.7-opus", NEITHER),
    ("claude-opus-4-8", NEITHER), ("claude-opus-4-10", NEITHER), ("claude-opus-5", NEITHER), ("claude-sonnet-5-5", NEITHER),
    ("claude-haiku-5-5-20261007", NEITHER), ("claude-fable-5-1", NEITHER), ("claude-mythos-preview", NEITHER), ("m", BOTH),
]  # fmt: skip


@pytest.mark.parametrize(("model", "expected"), SAMPLING)
def test_a_claude_is_sent_the_sampling_that_it_takes(model: str, expected: tuple[set[str], Any]) -> None:
    names, either = expected
    rules = found("anthropic", model)
    assert rules.drop & {"temperature", "top_p", "top_k"} == names
    assert names or rules.either == either


THINKING: list[tuple[str, Any]] = [
    ("claude-3-5-haiku-20241022", ("never", 0, False, "disabled")), ("claude-3-opus-20240229", ("never", 0, False, "disabled")),
    ("claude-3-7-sonnet-latest", ("", 0, False, "disabled")), ("claude-haiku-4-5", ("", 0, False, "disabled")),
    ("claude-opus-4-5", ("budget", 3, False, "disabled")), ("claude-sonnet-4-6", ("adaptive", 4, False, "disabled")),
    ("claude-opus-4-8", ("adaptive", 5, False, "disabled")), ("claude-opus-5", ("adaptive", 5, True, "disabled")),
    ("claude-opus-5-5", ("adaptive", 5, True, "never")), ("claude-sonnet-5-5", ("adaptive", 5, True, "between_tools")),
    ("claude-fable-5", ("adaptive", 5, True, "never")),
]  # fmt: skip


@pytest.mark.parametrize(("model", "expected"), THINKING)
def test_a_claude_is_told_to_think_as_it_understands(model: str, expected: Any) -> None:
    rules = found("anthropic", model)
    assert (rules.thinking, len(rules.efforts), rules.always_thinks, rules.thinking_off) == expected


LIMIT_NAMES = [
    ("gpt-4o", ""), ("gpt-4.1-mini", ""), ("gpt-5-mini", "max_completion_tokens"), ("gpt-5.4", "max_completion_tokens"),
    ("o3-mini", "max_completion_tokens"), ("o4-mini-2025-04-16", "max_completion_tokens"), ("o1", "max_completion_tokens"),
    ("gpt-6-sol", "max_completion_tokens"), ("openai/gpt-5", "max_completion_tokens"), ("gpt-oss-120b", ""), ("phi-o1x", ""),
]  # fmt: skip


@pytest.mark.parametrize(("model", "name"), LIMIT_NAMES)
def test_the_limit_is_called_what_openais_model_knows(model: str, name: str) -> None:
    assert found("openai", model, "api.openai.com").limit_name == name


SAMPLED = [("gpt-5-chat-latest", True), ("gpt-5.4", True), ("gpt-4o", True)]
REASONING = [
    ("gpt-5", False), ("gpt-5-mini-2025-08-07", False), ("o3", False), ("o1-mini", False), ("gpt-5.6", False),
    ("gpt-5.6-sol", False), ("gpt-6-astra", False), ("gpt-6.1-sol", False), ("openai/gpt-6.2-sol-2026-11-17", False),
]  # fmt: skip


@pytest.mark.parametrize(("model", "sampled"), SAMPLED + REASONING)
def test_reasoning_models_are_sent_no_sampling(model: str, sampled: bool) -> None:
    assert ("temperature" not in found("openai", model, "api.openai.com").drop) is sampled


OPENAIS, OTHERS = ("api.openai.com", "x.openai.azure.com"), ("api.deepseek.com", "127.0.0.1", "")


def test_developers_are_the_system_for_everyone_but_openai() -> None:
    assert [found("openai", "m", host).roles for host in OPENAIS] == [{}, {}]
    assert [found("openai", "m", host).roles for host in OTHERS] == [{"developer": "system"}] * 3


def test_vendors_have_lines_of_their_own() -> None:
    mistral = found("openai", "mistral-small-latest", "api.mistral.ai")
    assert (mistral.tool_ids, mistral.limit_name, mistral.rename["seed"]) == (
        "[A-Za-z0-9]{9}",
        "max_tokens",
        "random_seed",
    )
    assert "messages.name" in found("openai", "llama-3.3-70b", "api.groq.com").drop
    anthropic = found("anthropic", "m")
    assert (anthropic.tool_ids, anthropic.blank_stops, "seed" in anthropic.drop) == (
        "[A-Za-z0-9_-]{1,64}",
        False,
        True,
    )
    assert "logit_bias" in found("ollama", "m").drop


VENDORS: list[tuple[str, str, str, set[str], str]] = [
    (
        "cerebras",
        "api.cerebras.ai",
        "gpt-oss-120b",
        {"frequency_penalty", "presence_penalty", "logit_bias"},
        "",
    ),
    (
        "xai",
        "api.x.ai",
        "grok-4-1-fast-reasoning",
        {"stop", "presence_penalty", "frequency_penalty", "reasoning_effort"},
        "",
    ),
    (
        "xai",
        "us.api.x.ai",
        "grok-4.20-non-reasoning",
        {"reasoning_effort", "presence_penalty", "frequency_penalty"},
        "",
    ),
    ("xai", "api.x.ai", "grok-3", {"reasoning_effort"}, ""),
    ("xai", "api.x.ai", "grok-4.3", {"stop", "presence_penalty", "frequency_penalty"}, ""),
    ("together", "api.together.xyz", "m", set(), "max_tokens"),
    ("moonshot-cn", "api.moonshot.cn", "kimi-k2", {"reasoning_effort", "thinking"}, "max_tokens"),
    ("sambanova", "api.sambanova.ai", "m", set(), "max_tokens"),
    ("snowflake", "acme.snowflakecomputing.com", "claude-sonnet-4-6", set(), "max_completion_tokens"),
    ("minimax-cn", "api.minimaxi.com", "MiniMax-M3", set(), "max_completion_tokens"),
    ("cohere-openai", "api.cohere.ai", "command-a", {"stream_options"}, ""),
]


@pytest.mark.parametrize(("vendor", "host", "model", "dropped", "limit"), VENDORS)
def test_a_vendors_rules_hold_by_its_host_and_by_its_name(
    vendor: str, host: str, model: str, dropped: set[str], limit: str
) -> None:
    by_host = found("openai", model, host)
    by_name = rules_of(bundled_rules(), [], "openai", "egress.example", model, vendor=vendor)
    for rules in (by_host, by_name):
        assert "messages.audio" in rules.drop  # of all but OpenAI's own
        assert (rules.drop - {"messages.audio"}, rules.limit_name) == (dropped, limit)
    assert vendor in bundled_vendors()


def test_what_nobody_knows_has_no_rules() -> None:
    assert found("other", "m") is NO_RULES


@pytest.mark.parametrize("host", ["api.openai.com", "api.mistral.ai", "api.groq.com"])
def test_other_vendors_reasoning_does_not_reach_who_refuses_it(host: str) -> None:
    """A conversation that Anthropic began may go on at another target: its blocks come along in the
    history."""
    fitting = Fitting(found("openai", "m", host))
    said = {
        "role": "assistant",
        "content": "x",
        "reasoning_content": "Hm.",
        "thinking_blocks": [{}],
        "reasoning_details": [],
    }
    fitted = fitting(asked(messages=[PROSE, said, PROSE]))
    assert fitted.wire is not None
    assert fitted.wire["messages"] == [PROSE, {"role": "assistant", "content": "x"}, PROSE]
    plain = asked(messages=[PROSE])
    assert fitting(plain) is plain


# options after the table


def test_options_add_to_the_table_and_take_away_from_it() -> None:
    lines = [
        ModelRule(
            "s",
            "d",
            drop=("seed", "user"),
            either=("temperature", "top_p"),
            rename={"a": "b"},
            roles={"developer": "system"},
        ),
        ModelRule("s", "d", model="^m$", default={"temperature": 1}),
        ModelRule("s", "d", model="^n$", force={"x": 1}),
    ]
    upstream = Overrides(drop=("!seed", "!top_p", "logprobs"), rename={"a": None, "c": "d"})
    target = Overrides(
        drop=("!logprobs",), roles={"developer": None}, default={"temperature": 0.5}, force={"y": 2}
    )
    assert rules_of(lines, [upstream, target], "openai", "h", "m") == ModelRules(
        drop=frozenset({"user"}), rename={"c": "d"}, default={"temperature": 0.5}, force={"y": 2}
    )


# requests that fit


def test_a_request_that_no_rule_touches_is_the_same_object() -> None:
    chat = asked(temperature=1, max_tokens=5)
    fitted, dropped = fit(
        chat, drop=frozenset({"seed"}), rename={"a": "b"}, roles={"developer": "system"}, plain_images=True
    )
    assert fitted is chat
    assert dropped == []


def test_dropped_fields_are_gone_from_both_forms_and_told() -> None:
    fitted, dropped = fit(
        asked(seed=7, logit_bias={"1": 2}, top_p=None),
        drop=frozenset({"seed", "logit_bias", "top_p", "stop"}),
    )
    assert (fitted.sampling.seed, fitted.body) == (None, b"")
    assert fitted.wire is not None
    assert {"seed", "logit_bias"}.isdisjoint(fitted.wire)
    assert dropped == ["logit_bias", "seed"]


def test_of_an_either_the_first_that_is_given_stays() -> None:
    either = (("temperature", "top_p"),)
    both, dropped = fit(asked(temperature=0, top_p=0.4), either=either)
    assert (both.sampling.temperature, both.sampling.top_p, dropped) == (0.0, None, ["top_p"])
    assert both.wire is not None
    assert "top_p" not in both.wire
    for fields in ({"temperature": 0.2}, {"top_p": 0.4}, {"temperature": None, "top_p": 0.4}):
        one, dropped = fit(asked(**fields), either=either)
        assert (one.sampling, dropped) == (asked(**fields).sampling, [])


def test_caps_defaults_and_what_is_forced() -> None:
    rules: dict[str, Any] = {
        "cap": {"temperature": 1, "max_tokens": 100, "top_logprobs": 5},
        "default": {"top_p": 0.9, "reasoning_effort": "low", "service_tier": "flex"},
        "force": {"seed": 1, "store": False},
    }
    fitted, _ = fit(
        asked(temperature=2, max_completion_tokens=500, top_logprobs=20, seed=9, reasoning_effort="high"),
        **rules,
    )
    assert fitted.sampling == Sampling(100, 1.0, 0.9, (), 1)
    assert fitted.reasoning == Reasoning("high")
    assert fitted.wire == {
        "model": "a", "messages": [PROSE], "temperature": 1, "max_completion_tokens": 100, "top_logprobs": 5, "seed": 1,
        "reasoning_effort": "high", "top_p": 0.9, "service_tier": "flex", "store": False,
    }  # fmt: skip
    plain, _ = fit(asked(), **rules)
    assert (plain.sampling, plain.reasoning) == (Sampling(None, None, 0.9, (), 1), Reasoning("low"))


def test_a_limit_can_be_a_default_and_can_be_forced() -> None:
    for fields, limit in (({}, 7), ({"max_tokens": 3}, 3), ({"max_completion_tokens": 3}, 3)):
        fitted, _ = fit(asked(**fields), default={"max_tokens": 7})
        assert fitted.sampling.max_tokens == limit
        assert fitted.wire is not None
        assert [
            fitted.wire[name] for name in ("max_tokens", "max_completion_tokens") if name in fitted.wire
        ] == [limit]
    forced, _ = fit(asked(max_completion_tokens=3), force={"max_tokens": 9})
    assert forced.sampling.max_tokens == 9


def test_names_and_roles_are_others() -> None:
    developer = {"role": "developer", "content": "Be brief.", "name": "d"}
    fitted, dropped = fit(
        asked(messages=[developer, PROSE], seed=3),
        rename={"seed": "random_seed"},
        roles={"developer": "system"},
        drop=frozenset({"messages.name"}),
    )
    assert fitted.wire is not None
    assert fitted.wire["messages"] == [{"role": "system", "content": "Be brief."}, PROSE]
    assert (fitted.wire["random_seed"], "seed" in fitted.wire, dropped) == (3, False, ["messages.name"])
    without_system, _ = fit(asked(messages=[{"role": "system", "content": "x"}]), roles={"system": "user"})
    assert without_system.messages == (Message("user", (Text("x"),)),)


def test_a_role_written_in_escapes_is_renamed_too() -> None:
    body = b'{"model":"a","messages":[{"role":"d\\u0065veloper","content":"x"}]}'
    fitted, _ = fit(OpenAI().parse(body, {}), roles={"developer": "system"})
    assert fitted.wire is not None
    assert fitted.wire["messages"][0]["role"] == "system"


def test_images_are_spelled_plainly() -> None:
    url = "data:image/JPG;charset=utf-8;base64,aGk\n="
    content = [
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "text", "text": "?"},
    ]
    fitted, _ = fit(asked(messages=[{"role": "user", "content": content}]), plain_images=True)
    assert fitted.wire is not None
    image = {"url": "data:image/jpeg;base64,aGk=", "detail": "low"}
    assert fitted.wire["messages"][0]["content"] == [{"type": "image_url", "image_url": image}, content[1]]
    untouched = asked(messages=[{"role": "user", "content": [content[1]]}])
    assert fit(untouched, plain_images=True)[0].body == untouched.body


def test_a_request_without_a_callers_object_is_fitted_as_well() -> None:
    chat = ChatRequest(
        "",
        None,
        (Message("user", (Text("Hi"), Image("https://x/y"))),),
        sampling=Sampling(9, 1.5, 0.4, ("x",), 7),
    )
    fitted, dropped = fit(
        chat,
        drop=frozenset({"seed"}),
        either=(("temperature", "top_p"),),
        cap={"temperature": 1},
        default={"top_k": 3},
    )
    assert fitted.sampling == Sampling(9, 1.0, None, ("x",), None, top_k=3)
    assert dropped == ["seed", "top_p"]
    assert fitted.wire is None


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 3}, {"max_tokens": 3.0, "n": 1, "top_k": 2.0}, {"stop": "x", "seed": 1}]
)
def test_the_callers_own_request_is_never_changed(fields: dict[str, Any]) -> None:
    chat = asked(**fields)
    before = msgspec.structs.replace(chat), json.dumps(chat.wire)
    fit(
        chat,
        drop=frozenset({"seed", "stop"}),
        cap={"max_tokens": 2},
        force={"temperature": 1},
        roles={"user": "system"},
    )
    assert (chat, json.dumps(chat.wire)) == before


# another dialect's object


def responses(**fields: Any) -> ChatRequest:
    return Responses().parse(json.dumps({"model": "a", "input": "Hi", **fields}).encode(), Head())


@pytest.mark.parametrize(
    ("fields", "rules", "sent"),
    [
        ({"temperature": 1.5}, {"drop": frozenset({"temperature"})}, {}),
        ({"max_output_tokens": 99}, {"cap": {"max_tokens": 10}}, {"max_output_tokens": 10}),
        ({}, {"default": {"max_tokens": 10}}, {"max_output_tokens": 10}),
        ({"max_output_tokens": 99}, {"drop": frozenset({"max_tokens"})}, {}),
        ({"reasoning": {"summary": "auto"}}, {"force": {"reasoning_effort": "low"}},
         {"reasoning": {"summary": "auto", "effort": "low"}}),
        ({"metadata": {"a": "b"}}, {"drop": frozenset({"metadata"})}, {}),
        ({"service_tier": "auto"}, {"force": {"service_tier": "flex"}}, {"service_tier": "flex"}),
        ({"temperature": 1, "top_p": 0.5}, {"either": (("temperature", "top_p"),)}, {"temperature": 1}),
        ({"verbose": 1}, {"rename": {"verbose": "loud"}}, {"loud": 1}),
    ],
)  # fmt: skip
def test_rules_hold_in_another_dialects_object(
    fields: dict[str, Any], rules: dict[str, Any], sent: dict[str, Any]
) -> None:
    chat, _ = fit(responses(**fields), **rules)
    assert chat.wire == {"model": "a", "input": "Hi", **sent}
    assert not chat.body


def test_another_dialects_object_that_no_rule_is_about_stays_as_it_came() -> None:
    given = responses(temperature=0.5, instructions="x")
    assert fit(given, drop=frozenset({"seed"}), roles={"developer": "system"}, plain_images=True) == (
        given,
        [],
    )


def test_what_cannot_be_written_into_another_dialects_object_leaves_it_to_be_written_anew() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    chat, _ = fit(responses(), force={"tools": tools})
    assert chat.wire is None
    assert chat.tools[0].name == "f"


def test_tools_that_only_one_dialect_has_can_be_left_out() -> None:
    own = [{"type": "web_search"}, {"type": "function", "name": "f"}, {"type": "mcp"}]
    chat, dropped = fit(responses(tools=own), drop=frozenset({"tools.web_search", "tools.image_generation"}))
    assert (chat.own_tools, chat.dialect_only, dropped) == (
        ("mcp",),
        "tools: a tool of type mcp",
        ["tools.web_search"],
    )
    chat, dropped = fit(responses(tools=own), drop=frozenset({"tools.web_search", "tools.mcp"}))
    assert (chat.own_tools, chat.dialect_only, dropped) == ((), "", ["tools.mcp", "tools.web_search"])
    assert chat.wire is not None
    assert chat.wire["tools"] == own[1:2]


# a dialect that is in no file of ours

MINE = DialectFields(
    features={"tier": "service_tier"},
    inner={"style": {"length": "verbosity"}},
    shown={"stop": "ends", "verbosity": "style.length"},
    written={
        "max_tokens": "most", "max_completion_tokens": "most", "stop": "ends", "temperature": "sampling.heat",
        "reasoning_effort": "think", "response_format": "",
    },
    effort="think.level",
    unlike=frozenset({"user"}),
)  # fmt: skip


def of_mine(wire: dict[str, Any], **fields: Any) -> ChatRequest:
    return ChatRequest("mine", "a", (Message("user", (Text("Hi"),)),), wire=wire, fields=MINE, **fields)


def test_rules_are_followed_in_the_names_of_any_dialect() -> None:
    wire = {
        "most": 500,
        "sampling": {"heat": 2, "other": 1},
        "ends": ["x"],
        "user": 7,
        "think": {"level": "high"},
    }
    chat = of_mine(wire, sampling=Sampling(500, 2.0, stop=("x",)), reasoning=Reasoning(effort="high"))
    fitted, dropped = fit(
        chat, cap={"max_tokens": 100, "max_completion_tokens": 100}, drop=frozenset({"temperature", "stop", "user"}),
        force={"reasoning_effort": "low"},
    )  # fmt: skip
    assert fitted.wire == {"most": 100, "sampling": {"other": 1}, "user": 7, "think": {"level": "low"}}
    assert (fitted.sampling.max_tokens, fitted.sampling.stop, dropped) == (100, (), ["stop", "temperature"])
    assert wire["most"] == 500


def test_a_field_that_stands_in_several_has_the_request_written_anew() -> None:
    chat = of_mine({"format": "json"}, response_format={"type": "json_object"})
    fitted, _ = fit(chat, drop=frozenset({"response_format"}))
    assert (fitted.wire, fitted.response_format) == (None, None)


def test_features_are_found_and_named_as_the_callers_dialect_has_them() -> None:
    chat = of_mine(
        {"tier": "flex", "style": {"length": "low"}, "verbosity": "low"}, sampling=Sampling(stop=("x",))
    )
    assert {(use.feature.name, use.param) for use in uses_of(chat)} == {
        ("service_tier", "tier"), ("verbosity", "style.length"), ("stop", "ends"),
    }  # fmt: skip
    assert not uses_of(of_mine({"tier": None, "style": {"length": "medium"}}))
    assert not uses_of(of_mine({"style": "short"}))


EFFORTS: list[tuple[str, str, str | None]] = [
    ("gpt-5", "none", None), ("gpt-5-mini", "minimal", "minimal"), ("gpt-5", "max", "high"),
    ("gpt-5.1", "none", "none"),
    ("gpt-5.2", "max", "xhigh"), ("gpt-5.6-sol", "minimal", "none"), ("openai/gpt-6-sol", "max", "max"),
    ("gpt-6-astra", "none", None),
    ("gpt-6-astra", "minimal", "low"), ("gpt-6.1-sol-2026-11-01", "none", None), ("gpt-5-pro", "low", "high"),
    ("gpt-5.4-pro", "low", "medium"), ("o3", "high", "high"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "wish", "effort"), EFFORTS)
def test_a_model_of_openais_is_told_the_nearest_effort_that_it_has(
    model: str, wish: str, effort: str | None
) -> None:
    chat = ChatRequest(
        "anthropic",
        "m",
        (Message("user", (Text("Hi"),)),),
        reasoning=Reasoning(wish),  # type: ignore[arg-type]
    )
    openai = with_rules(OpenAIBackend(), found("openai", model)).request(chat, model)
    responses = with_rules(ResponsesBackend(), found("responses", model)).request(chat, model)
    assert json.loads(openai.body).get("reasoning_effort") == effort
    assert json.loads(responses.body).get("reasoning", {}).get("effort") == effort
