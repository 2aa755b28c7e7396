"""Conversations in the forms that vendors of OpenAI's dialects insist on, by their rules."""

import json
from typing import Any

import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.model.rules import rules_of
from sluice.proxy.fitting import Fitting
from sluice_plugins.openai.backend import OpenAI
from sluice_plugins.responses.backend import Responses
from tests.matrix.lanes import UPSTREAMS, Upstream, parsed, sent


def upstream(kind: Any, host: str, model: str) -> Upstream:
    backend = kind(base_url=f"https://{host}/v1")
    rules = rules_of(bundled_rules(), (), kind.__name__.lower(), host, model)
    return Upstream(with_rules(backend, rules), model, Fitting(rules, dialect=backend.dialect))


MISTRAL = upstream(OpenAI, "api.mistral.ai", "mistral-large-latest")
GPT = upstream(OpenAI, "api.openai.com", "gpt-4.1")
VLLM = upstream(OpenAI, "vllm.test", "qwen3")
DEEPSEEK = upstream(OpenAI, "api.deepseek.com", "deepseek-v4-pro")
KIMI = upstream(OpenAI, "api.moonshot.ai", "kimi-k2.5")
KIMI_CODE = upstream(OpenAI, "api.moonshot.ai", "kimi-k2.7-code")
KIMI_3 = upstream(OpenAI, "api.moonshot.cn", "kimi-k3")
MINIMAX_3 = upstream(OpenAI, "api.minimax.io", "MiniMax-M3")
MINIMAX_31 = upstream(OpenAI, "api.minimaxi.com", "MiniMax-M3.1-Flash")
MINIMAX_2 = upstream(OpenAI, "api.minimax.io", "MiniMax-M2.7")
GROK = upstream(OpenAI, "api.x.ai", "grok-4.20-0309-non-reasoning")
OF_RESPONSES = upstream(Responses, "api.openai.com", "gpt-4.1")
OTHER_RESPONSES = upstream(Responses, "vllm.test", "qwen3")


def call(id: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}


def conversation(id: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call(id)]},
        {"role": "tool", "tool_call_id": id, "content": "r"},
        {"role": "user", "content": "go on"},
    ]


def asked(to: Upstream, client: str = "openai", **fields: Any) -> dict[str, Any]:
    return sent(to, parsed(client, json.dumps({"model": "m", **fields}).encode(), stream=True))


def roles(body: dict[str, Any]) -> list[str]:
    return [message["role"] for message in body["messages"]]


def test_mistral_is_told_something_of_the_assistants_between_a_result_and_its_user() -> None:
    own = asked(MISTRAL, messages=conversation("abcdefgh1"), stream=True)
    assert roles(own) == ["user", "assistant", "tool", "assistant", "user"]
    assert own["messages"][3]["content"]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "r"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result, {"type": "text", "text": "go on"}]},
    ]
    other = asked(MISTRAL, "anthropic", max_tokens=9, messages=messages)
    assert roles(other) == ["user", "assistant", "tool", "assistant", "user"]
    assert roles(asked(VLLM, messages=conversation("abcdefgh1"))) == ["user", "assistant", "tool", "user"]
    fine = conversation("abcdefgh1")[:3]
    assert roles(asked(MISTRAL, messages=fine)) == ["user", "assistant", "tool"]


SYSTEM = {"role": "system", "content": "Two calls are left."}


def test_mistral_is_told_later_words_of_the_systems_as_a_users_where_they_were_said() -> None:
    user, called, result, _ = conversation("abcdefgh1")
    told = {"role": "user", "content": SYSTEM["content"]}
    for messages, expected in [
        ([user, called, result, SYSTEM], ["user", "assistant", "tool", "assistant", "user"]),
        ([user, {"role": "assistant", "content": "a"}, SYSTEM, user], ["user", "assistant", "user", "user"]),
        ([SYSTEM, user, SYSTEM, called, result], ["system", "user", "system", "assistant", "tool"]),
    ]:
        for stream in (True, False):
            body = asked(MISTRAL, messages=messages, stream=stream)
            assert roles(body) == expected, body
        assert told in body["messages"] or expected[-1] == "tool"
        assert asked(VLLM, messages=messages, stream=True)["messages"] == messages


@pytest.mark.parametrize("between", [SYSTEM, {"role": "user", "content": "wait"}])
def test_mistral_gets_what_stands_between_two_results_behind_them(between: dict[str, Any]) -> None:
    calls = [call("abcdefgh1"), call("abcdefgh2")]
    first, second = [{"role": "tool", "tool_call_id": made["id"], "content": "r"} for made in calls]
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    body = asked(MISTRAL, messages=[CALLED[0], called, first, between, second], stream=True)
    assert roles(body) == ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert body["messages"][-1]["content"] == between["content"]


BLANKS: list[dict[str, Any]] = [
    {"content": ""}, {"content": None}, {"content": [{"type": "text", "text": ""}]}, {"content": "", "tool_calls": []},
]  # fmt: skip


@pytest.mark.parametrize("to", [MISTRAL, KIMI, KIMI_3])
def test_an_assistants_message_without_content_and_calls_is_left_out_where_it_is_refused(
    to: Upstream,
) -> None:
    user = {"role": "user", "content": "q"}
    for blank in BLANKS:
        messages = [user, {"role": "assistant", **blank}, user]
        assert asked(to, messages=messages, stream=True)["messages"] == [user, user], blank
        assert asked(VLLM, messages=messages, stream=True)["messages"] == messages
    assert asked(to, "anthropic", max_tokens=9, messages=[user, {"role": "assistant", "content": ""}, user])[
        "messages"
    ] == [user, user]
    kept = [user, {"role": "assistant", "content": " "}, user]
    assert asked(to, messages=kept, stream=True)["messages"] == kept
    roles_of_calls = roles(asked(to, messages=CALLED[:3], stream=True))
    assert roles_of_calls == ["user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("to", "some", "none"), [(KIMI, "enabled", "disabled"), (MINIMAX_3, "adaptive", "disabled")]
)
def test_an_effort_is_a_switch_where_a_vendor_has_no_efforts(to: Upstream, some: str, none: str) -> None:
    for effort, expected in [("none", none), ("low", some), ("max", some)]:
        body = asked(to, messages=CALLED[:1], stream=True, reasoning_effort=effort)
        assert (body["thinking"], "reasoning_effort" in body) == ({"type": expected}, False)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    other = asked(to, "anthropic", max_tokens=2048, messages=CALLED[:1], thinking=thinking)
    assert (other["thinking"], "reasoning_effort" in other) == ({"type": some}, False)
    both = asked(to, messages=CALLED[:1], stream=True, thinking={"type": none}, reasoning_effort="high")
    assert (both["thinking"], "reasoning_effort" in both) == ({"type": none}, False)
    assert "thinking" not in asked(to, messages=CALLED[:1], stream=True)


def test_an_effort_is_the_nearest_or_none_where_thinking_is_never_off() -> None:
    for to, low, medium in [(KIMI_3, "low", "low"), (MINIMAX_31, "low", "medium")]:
        for effort, expected in [("low", low), ("medium", medium), ("max", "max")]:
            config = {"effort": effort}
            body = asked(to, "anthropic", max_tokens=9, messages=CALLED[:1], output_config=config)
            assert body.get("reasoning_effort") == expected
        off = {"thinking": {"type": "disabled"}}
        assert (
            not {"thinking", "reasoning_effort"} & asked(to, messages=CALLED[:1], stream=True, **off).keys()
        )
    for to in (KIMI_CODE, MINIMAX_2):
        assert "reasoning_effort" not in asked(to, messages=CALLED[:1], stream=True, reasoning_effort="none")
    for to in (KIMI_CODE, KIMI_3):  # it thinks all the same, and wants reasoning beside calls
        called = asked(to, messages=CALLED, stream=True, reasoning_effort="none")["messages"][1]
        assert called["reasoning_content"] == " "


def with_thought(**thought: Any) -> list[dict[str, Any]]:
    return [{**message, **thought} if message["role"] == "assistant" else message for message in CALLED]


CALLED = conversation("abcdefgh1")
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


@pytest.mark.parametrize("to", [DEEPSEEK, KIMI])
def test_calls_without_reasoning_get_a_blank_one_where_a_vendor_insists_on_some(to: Upstream) -> None:
    for messages, expected in [
        (CALLED, " "),
        (with_thought(reasoning_content=""), " "),
        (with_thought(reasoning_content=None, reasoning="Hm"), "Hm"),
        (with_thought(reasoning_content="Hm"), "Hm"),
    ]:
        user, called, *_ = asked(to, messages=messages, stream=True)["messages"]
        assert called["reasoning_content"] == expected
        assert "reasoning_content" not in user
    use = {"role": "assistant", "content": [USE]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "r"}]}
    messages = [{"role": "user", "content": "q"}, use, result]
    assert asked(to, "anthropic", max_tokens=9, messages=messages)["messages"][1]["reasoning_content"] == " "


def test_calls_get_no_reasoning_where_none_is_wanted_or_no_vendor_insists() -> None:
    for fields in ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}):
        called = asked(DEEPSEEK, messages=CALLED, stream=True, **fields)["messages"][1]
        assert "reasoning_content" not in called, fields
    for to in (VLLM, GPT, upstream(OpenAI, "api.moonshot.ai", "moonshot-v1-8k")):
        assert "reasoning_content" not in asked(to, messages=CALLED, stream=True)["messages"][1]
    said = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, CALLED[-1]]
    assert asked(DEEPSEEK, messages=said, stream=True)["messages"] == said


def test_moonshot_is_told_once_how_much_to_think() -> None:
    fields = {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}
    body = asked(KIMI, messages=CALLED[:1], stream=True, **fields)
    assert len(body.keys() & fields.keys()) == 1


def test_no_grok_4_is_sent_penalties() -> None:
    penalties = {"presence_penalty": 0, "frequency_penalty": 0.5}
    body = asked(GROK, messages=CALLED[:1], stream=True, stop=["x"], **penalties)
    assert not body.keys() & penalties.keys()
    assert body["stop"] == ["x"]


@pytest.mark.parametrize("length", [41, 64, 500])
def test_ids_longer_than_openai_takes_are_shortened_in_call_and_result(length: int) -> None:
    body = asked(GPT, messages=conversation("c" * length), stream=True)
    [made] = [made["id"] for made in body["messages"][1]["tool_calls"]]
    assert len(made) <= 40
    assert body["messages"][2]["tool_call_id"] == made
    whole = json.loads(GPT.backend.whole_request(parsed_whole("c" * length), "gpt-4.1").body)  # type: ignore[attr-defined]
    assert whole["messages"][2]["tool_call_id"] == made


def parsed_whole(id: str) -> Any:
    body = json.dumps({"model": "m", "messages": conversation(id)}).encode()
    return parsed("openai", body, stream=False)


def test_ids_that_openai_takes_leave_the_callers_bytes_alone() -> None:
    usage = {"include_usage": True}
    fields = {"model": "gpt-4.1", "messages": conversation("functions.f:0"), "stream": True}
    body = json.dumps({**fields, "stream_options": usage}).encode()
    chat = parsed("openai", body, stream=True)
    assert GPT.backend.request(GPT.fit(chat), "gpt-4.1").body == body


@pytest.mark.parametrize(("limit", "floor"), [(1, 16), (15, 16), (16, 16), (17, 17)])
def test_openais_responses_are_asked_for_the_least_that_they_take(limit: int, floor: int) -> None:
    hello = [{"role": "user", "content": "q"}]
    assert asked(OF_RESPONSES, messages=hello, max_tokens=limit)["max_output_tokens"] == floor
    assert asked(OTHER_RESPONSES, messages=hello, max_tokens=limit)["max_output_tokens"] == limit
    assert "max_output_tokens" not in asked(OF_RESPONSES, messages=hello)


def test_fields_that_openais_two_apis_share_go_from_one_to_the_other() -> None:
    shared = {
        "user": "u", "safety_identifier": "s", "prompt_cache_key": "k", "metadata": {"a": "b"}, "service_tier": "flex",
    }  # fmt: skip
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    hello = [{"role": "user", "content": "q"}]
    body = asked(OF_RESPONSES, messages=hello, verbosity="low", response_format=wanted, **shared)
    assert {name: body[name] for name in shared} == shared
    assert body["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}},
        "verbosity": "low",
    }
    assert asked(OF_RESPONSES, messages=hello, verbosity="high")["text"] == {"verbosity": "high"}
    metadata = asked(OF_RESPONSES, "anthropic", max_tokens=9, messages=hello, metadata={"user_id": "u"})
    assert (metadata["user"], "metadata" in metadata) == ("u", False)


def test_a_top_k_of_other_dialects_is_not_sent_where_it_is_refused() -> None:
    contents = [{"role": "user", "parts": [{"text": "q"}]}]
    config = {"topK": 64, "topP": 0.95}
    for to, there in ((GPT, False), (MISTRAL, False), (VLLM, True)):
        assert ("top_k" in asked(to, "gemini", contents=contents, generationConfig=config)) is there


def test_a_users_name_that_a_vendor_has_no_word_for_is_counted() -> None:
    dropped: list[str] = []
    rules = rules_of(bundled_rules(), (), "anthropic", "api.anthropic.com", "claude-sonnet-4-5")
    hello = {"role": "user", "name": "ada", "content": "q"}
    body = json.dumps({"model": "m", "messages": [hello]}).encode()
    Fitting(rules, dropped.append, "anthropic")(parsed("openai", body, stream=True))
    assert dropped == ["messages.name"]


def fitted_by(client: str, to: str, host: str, model: str, **fields: Any) -> tuple[Any, list[str]]:
    """The request as the rules of a target leave it, and what they drop."""
    dropped: list[str] = []
    fit = Fitting(
        rules_of(bundled_rules(), (), to, host, model), dropped.append, to if to != "cohere" else ""
    )
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "q"}], **fields}).encode()
    return fit(parsed(client, body, stream=True)), dropped


STOPS = ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize("client", ["openai", "anthropic"])
def test_openai_is_sent_no_more_stops_than_it_takes(client: str) -> None:
    field = {"openai": "stop", "anthropic": "stop_sequences"}[client]
    more = {} if client == "openai" else {"max_tokens": 9}
    hello = [{"role": "user", "content": "q"}]
    for host in ("api.openai.com", "mine.openai.azure.com"):
        assert (
            asked(upstream(OpenAI, host, "gpt-4.1"), client, messages=hello, **{field: STOPS}, **more)["stop"]
            == STOPS[:4]
        )
        chat, dropped = fitted_by(client, "openai", host, "gpt-4.1", **{field: STOPS}, **more)
        assert (chat.sampling.stop, dropped) == (("a", "b", "c", "d"), ["stop"])
    for stops in (STOPS[:4], STOPS[:1], []):
        chat, dropped = fitted_by(client, "openai", "api.openai.com", "gpt-4.1", **{field: stops}, **more)
        assert (chat.sampling.stop, dropped) == (tuple(stops), [])
    assert asked(VLLM, client, messages=hello, **{field: STOPS}, **more)["stop"] == STOPS
    if client == "openai":
        assert asked(GPT, messages=hello, stop="a")["stop"] == "a"


def test_gemini_and_cohere_are_sent_five_stops_whoever_asks() -> None:
    contents = [{"role": "user", "parts": [{"text": "q"}]}]
    body = json.dumps(
        {"contents": contents, "generationConfig": {"stopSequences": STOPS, "topK": 3}}
    ).encode()
    own = sent(UPSTREAMS["gemini"], parsed("gemini", body, stream=True))
    assert own["generationConfig"] == {"stopSequences": STOPS[:5], "topK": 3}
    other = asked(UPSTREAMS["gemini"], messages=[{"role": "user", "content": "q"}], stop=STOPS)
    assert other["generationConfig"]["stopSequences"] == STOPS[:5]
    assert (
        asked(UPSTREAMS["cohere"], messages=[{"role": "user", "content": "q"}], stop=STOPS)["stop_sequences"]
        == STOPS[:5]
    )


def test_cohere_is_sent_a_format_or_tools() -> None:
    hello = [{"role": "user", "content": "q"}]
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    ]
    wanted = {"type": "json_object"}
    body = asked(UPSTREAMS["cohere"], messages=hello, response_format=wanted, tools=tools)
    assert ("tools" in body, "response_format" in body) == (True, False)
    rules = ("cohere", "api.cohere.com", "command-a-03-2025")
    assert fitted_by("openai", *rules, response_format=wanted, tools=tools)[1] == ["response_format"]
    for fields in ({"response_format": wanted}, {"tools": tools}, {"response_format": wanted, "tools": []}):
        assert fitted_by("openai", *rules, **fields)[1] == []
        assert ("response_format" in asked(UPSTREAMS["cohere"], messages=hello, **fields)) is (
            "response_format" in fields
        )


@pytest.mark.parametrize("said", [{}, {"content": None}, {"content": "so"}])
@pytest.mark.parametrize("transcript", [{}, {"transcript": "spoken", "data": "aGk="}])
def test_an_earlier_spoken_answer_is_openais_own(said: dict[str, Any], transcript: dict[str, Any]) -> None:
    spoken = {"role": "assistant", **said, "audio": {"id": "audio_1", **transcript}}
    messages = [{"role": "user", "content": "q"}, spoken, {"role": "user", "content": "more"}]
    for host in ("api.openai.com", "mine.openai.azure.com"):
        assert asked(upstream(OpenAI, host, "gpt-audio"), messages=messages)["messages"] == messages
    text = said.get("content") or transcript.get("transcript", "")
    assert asked(VLLM, messages=messages)["messages"][1] == {"role": "assistant", "content": text}
    for name in ("anthropic", "bedrock", "gemini", "ollama", "cohere", "responses"):
        assert "audio_1" not in json.dumps(asked(UPSTREAMS[name], messages=messages))
        assert (text in json.dumps(asked(UPSTREAMS[name], messages=messages))) is True
        _, dropped = fitted_by("openai", name, "api.example", "m", messages=messages)
        assert dropped == ["messages.audio"]
    assert fitted_by("openai", "openai", "vllm.test", "m", messages=messages)[1] == ["messages.audio"]
