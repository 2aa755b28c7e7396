"""What backends say that they take, and what becomes of what they do not: each claim is held against the
upstream's request."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from scripts.capabilities_page import OPTIONS, PAGE, page
from sluice.backends.protocol import find_backend, installed, with_rules
from sluice.config.rule_file import bundled_rules
from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.anthropic.dialect import Anthropic
from sluice.frontends.gemini.dialect import Gemini
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.responses.dialect import Responses
from sluice.model.chat import ChatRequest
from sluice.model.features import EVERYTHING, FEATURES, uses_of
from sluice.model.rules import rules_of
from sluice.proxy.capable import Capable, refusing, takes_of
from sluice.proxy.fitting import Fitting

PNG = "data:image/png;base64,aW1hZ2U="
TEXT_FILE = "data:text/plain;base64,aGVsbG8="
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {}}}},
}
SCHEMA = {"type": "object", "properties": {"mark_of_schema": {"type": "string"}}}
CALLED = [
    {"role": "user", "content": "Hi"},
    {
        "role": "assistant",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
        ],
    },
]


THINKS = ('"effort"', "reasoning_effort", "thinking", '"think"')


def part(kind: str, **value: Any) -> dict[str, Any]:
    return {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "What is it?"}, {"type": kind, kind: value}],
            }
        ]
    }


SAMPLES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "image_url": (part("image_url", url="https://a.example/one.png"), ("https://a.example/one.png",)),
    "image_data": (part("image_url", url=PNG), ("aW1hZ2U=",)),
    "file_data": (part("file", file_data=TEXT_FILE, filename="a.txt"), ("hello", "aGVsbG8=")),
    "file_url": (part("file", file_data="https://a.example/one.pdf"), ("https://a.example/one.pdf",)),
    "file_id": (part("file", file_id="file-123"), ("file-123",)),
    "input_audio": (part("input_audio", data="c291bmQ=", format="wav"), ("c291bmQ=",)),
    "video": (part("video_url", url="data:video/mp4;base64,dmlkZW8="), ("dmlkZW8=",)),
    "tool_images": (
        {"tools": [TOOL], "messages": [*CALLED, {
            "role": "tool", "tool_call_id": "call_1", "content": [{"type": "image_url", "image_url": {"url": PNG}}],
        }]},
        ("aW1hZ2U=",),
    ),
    "tools": ({"tools": [TOOL]}, ("look_up",)),
    "functions": ({"functions": [{"name": "old_one"}]}, ("old_one",)),
    "tool_choice_required": ({"tools": [TOOL], "tool_choice": "required"}, ("required", '"any"', "ANY", "REQUIRED")),
    "tool_choice_named": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
        ("tool_choice", "toolChoice", "allowedFunctionNames"),
    ),
    "json_object": ({"response_format": {"type": "json_object"}}, ("json", "JSON object")),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}, ("mark_of_schema",),
    ),
    "logprobs": ({"logprobs": True, "top_logprobs": 3}, ("logprobs",)),
    "n": ({"n": 2}, ('"n":2',)),
    "audio_answer": ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, ("alloy",)),
    "web_search": ({"web_search_options": {"search_context_size": "low"}}, ("search_context_size",)),
    "parallel_tool_calls": ({"tools": [TOOL], "parallel_tool_calls": False}, ("parallel",)),
    "stop": ({"stop": ["MARK"]}, ("MARK",)),
    "seed": ({"seed": 77123}, ("77123",)),
    "temperature": ({"temperature": 0.625}, ("0.625",)),
    "top_p": ({"top_p": 0.875}, ("0.875",)),
    "top_k": ({"top_k": 17}, (":17",)),
    "frequency_penalty": ({"frequency_penalty": 0.375}, ("0.375",)),
    "presence_penalty": ({"presence_penalty": 0.375}, ("0.375",)),
    "logit_bias": ({"logit_bias": {"77123": 5}}, ("77123",)),
    "reasoning_effort": ({"reasoning_effort": "high"}, THINKS),
    "reasoning_budget": ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, THINKS),
    "cache_control": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}]},
        ("cache_control", "cachePoint"),
    ),
    "user": ({"user": "user-77123"}, ("user-77123",)),
    "verbosity": ({"verbosity": "low"}, ("verbosity",)),
    "prediction": ({"prediction": {"type": "content", "content": "MARK"}}, ("MARK",)),
    "metadata": ({"metadata": {"a": "MARK"}}, ("MARK",)),
    "store": ({"store": True}, ('"store":true',)),
    "service_tier": ({"service_tier": "flex"}, ("flex",)),
}  # fmt: skip
"""Of each feature a request of Chat Completions, and texts one of which stands in an upstream's request that
has it."""
MODELS = {
    "gemini": "gemini-2.5-flash", "bedrock": "anthropic.claude-sonnet-4-20250514-v1:0", "cohere": "command-a-reasoning-08-2025",
    "responses": "some-model", "openai": "some-model",
}  # fmt: skip
NAMES = [name for name in installed() if takes_of(find_backend(name)(**OPTIONS.get(name, {}))) is not None]


class Aimed:
    """One backend as a target of its rules asks it."""

    def __init__(
        self,
        name: str,
        unsupported: Any = None,
        configured_drops: frozenset[str] = frozenset(),
        model: str = "",
    ) -> None:
        self.dropped: list[str] = []
        made: Any = find_backend(name)(**OPTIONS.get(name, {}))
        self.model = model or MODELS.get(name, "claude-sonnet-4-20250514")
        rules = rules_of(bundled_rules(), [], name, "gateway.example", self.model)
        by_rule: Callable[[str], object] = self.dropped.append
        if unsupported == "refuse":
            by_rule = refusing(by_rule, configured_drops)
        self.backend = with_rules(made, rules)
        self.takes = takes_of(made, rules) or frozenset()
        self.fit = Fitting(rules, by_rule, made.dialect)
        self.capable = Capable(self.takes, unsupported, self.dropped.append, configured_drops)

    def body(self, chat: ChatRequest) -> str:
        """What the upstream is sent, as the sender makes it."""
        lacks = self.capable.check(chat)
        chat = self.fit(chat)
        chat = self.capable.without(chat) if lacks else chat
        if chat.n > 1:
            raise BadRequest("several choices")
        return str(self.backend.request(chat, self.model).body.decode())


def asked(**fields: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "a", "max_tokens": 4096, "messages": messages, **fields}
    return OpenAI().parse(json.dumps(body).encode(), Head())


def of_another(chat: ChatRequest) -> ChatRequest:
    """The same request from callers whose dialect no backend speaks."""
    return msgspec.structs.replace(chat, dialect="elsewhere", wire=None, body=b"")


SAID_IN_WIRE = frozenset(
    {"functions", "logprobs", "audio_answer", "web_search", "logit_bias", "verbosity", "prediction", "metadata", "store",
     "service_tier"}
)  # fmt: skip
"""Features that only the object of Chat Completions has."""


def test_every_feature_has_a_sample() -> None:
    assert SAMPLES.keys() == EVERYTHING


@pytest.mark.parametrize("feature", FEATURES)
def test_a_sample_uses_its_feature(feature: str) -> None:
    assert feature in [use.feature.name for use in uses_of(asked(**SAMPLES[feature][0]))]
    assert not uses_of(asked())


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_claimed_reaches_the_upstream_and_what_is_not_is_refused_or_dropped(
    name: str, feature: str
) -> None:
    fields, marks = SAMPLES[feature]
    aimed = Aimed(name)
    chat = asked(**fields)
    if aimed.backend.dialect == "openai":
        if feature in SAID_IN_WIRE | {"user"}:
            if feature != "user":
                assert feature not in aimed.takes
                return
            chat = msgspec.structs.replace(chat, user=fields["user"])
        chat = of_another(chat)
    elif feature == "user":
        chat = msgspec.structs.replace(chat, user=fields["user"])
    if feature in aimed.takes:
        without = Aimed(name).body(of_another(asked(**plain(feature))))
        sent = aimed.body(chat)
        assert any(mark in sent and mark not in without for mark in marks)
        return
    if FEATURES[feature].weight == "preference":
        sent = aimed.body(chat)
        assert not any(mark in sent for mark in marks)
        assert FEATURES[feature].param in aimed.dropped
    else:
        with pytest.raises(BadRequest) as refused:
            aimed.body(chat)
        assert refused.value.code == "unsupported_parameter"
        assert (refused.value.param or "").startswith(FEATURES[feature].param)
    with pytest.raises(BadRequest) as refused:
        Aimed(name, "refuse").body(chat)
    assert refused.value.code == "unsupported_parameter"


def plain(feature: str) -> dict[str, Any]:
    """The request that differs from a feature's by that feature alone."""
    return (
        {"tools": [TOOL]}
        if feature in ("tool_choice_required", "tool_choice_named", "parallel_tool_calls")
        else {}
    )


@pytest.mark.parametrize(("fields", "dropped"), [
    ({"logprobs": True}, ["logprobs"]), ({"n": 2}, ["n"]), ({"tools": [TOOL], "tool_choice": "required"}, ["tool_choice"]),
    ({"seed": 1, "user": "u"}, ["user"]),
])  # fmt: skip
def test_an_alias_may_have_all_that_is_no_content_dropped(fields: dict[str, Any], dropped: list[str]) -> None:
    aimed = Aimed("ollama", "drop")
    assert aimed.body(asked(**fields))
    assert aimed.dropped == dropped


def test_content_is_never_dropped() -> None:
    with pytest.raises(BadRequest) as refused:
        Aimed("ollama", "drop").body(asked(**SAMPLES["image_url"][0]))
    assert (refused.value.param, refused.value.code) == ("messages[0].content[1]", "unsupported_parameter")
    assert refused.value.message == "messages[0].content[1]: images by URL cannot be given to this model"


FORCED = [
    {"tools": [TOOL], "tool_choice": "required"},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look_up"}}},
]


@pytest.mark.parametrize("choice", FORCED)
@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("anthropic", "claude-opus-5-5"),
        ("anthropic", "claude-fable-5-2"),
        ("vertex-anthropic", "claude-sonnet-5-5@20261007"),
        ("bedrock", "eu.anthropic.claude-mythos-5-1"),
    ],
)
def test_a_model_may_lack_what_its_dialect_has(backend: str, model: str, choice: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        Aimed(backend, model=model).body(asked(**choice))
    assert (refused.value.param, refused.value.code) == ("tool_choice", "unsupported_parameter")
    aimed = Aimed(backend, "drop", model=model)
    body = json.loads(aimed.body(asked(**choice)))
    assert aimed.dropped == ["tool_choice"]
    assert "look_up" in json.dumps(body)
    assert not {"any", "tool"} & {body.get("tool_choice", {}).get("type")}
    assert not {"any", "tool"} & set(body.get("toolConfig", {}).get("toolChoice", {}))
    for other in ("claude-opus-5", "claude-haiku-5-5", "claude-fable-5"):
        assert "look_up" in Aimed(backend, model=other).body(asked(**choice))


def test_what_models_lack_are_features() -> None:
    assert {name for rule in bundled_rules() for name in rule.lacks} <= set(FEATURES)


def test_what_the_configuration_drops_is_never_refused() -> None:
    configured_drops = frozenset({"logprobs", "top_logprobs"})
    for unsupported in (None, "refuse"):
        aimed = Aimed("anthropic", unsupported, configured_drops)
        assert aimed.body(asked(logprobs=True, top_logprobs=2))
        assert sorted(aimed.dropped) == ["logprobs", "top_logprobs"]


@pytest.mark.parametrize(("frontend", "body", "param"), [
    (Responses(), {"input": "Hi", "top_logprobs": 2}, "top_logprobs"),
    (Gemini(), {"contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": {"candidateCount": 2}},
     "generationConfig.candidateCount"),
    (Anthropic(), {"max_tokens": 9, "messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}},
    ]}]}, "messages"),
])  # fmt: skip
def test_a_refusal_names_the_field_as_the_caller_knows_it(
    frontend: Any, body: dict[str, Any], param: str
) -> None:
    head = Head(parameters={"model": "a", "call": "generateContent"})
    parse = next(route.parse for route in frontend.routes() if hasattr(route, "parse"))
    with pytest.raises(BadRequest) as refused:
        Aimed("ollama").body(parse(json.dumps({"model": "a", **body}).encode(), head))
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize("fields", [
    {"logprobs": False}, {"logit_bias": {}}, {"n": 1}, {"store": False}, {"metadata": {}}, {"modalities": ["text"]},
    {"service_tier": "auto"}, {"tools": [TOOL], "parallel_tool_calls": True}, {"stop": []}, {"functions": None},
])  # fmt: skip
def test_values_that_ask_for_nothing_are_no_features(fields: dict[str, Any]) -> None:
    assert [use.feature.name for use in uses_of(asked(**fields))] == (["tools"] if "tools" in fields else [])


def test_the_page_is_current() -> None:
    assert page(PAGE.read_text()) == PAGE.read_text(), "run: python scripts/capabilities_page.py"
