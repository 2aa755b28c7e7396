"""Requests to the Responses API: of other dialects, and of its own passed on."""

import json
from typing import Any

import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.responses.counting import counted
from sluice.frontends.responses.dialect import Responses as Frontend
from sluice.model.chat import ChatRequest, Image, Message, Other, Text, Thought, ToolCall
from sluice.model.events import Verbatim
from sluice.model.rules import rules_of
from sluice.proxy.fitting import Fitting
from sluice_plugins.responses.backend import Responses

ASK: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}
PNG = "data:image/png;base64,AAAA"


def sent(chat: ChatRequest, model: str = "gpt-5.2", **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(Responses(**options).request(chat, model).body)
    return body


def asked(**fields: Any) -> ChatRequest:
    return OpenAI().parse(json.dumps({**ASK, **fields}).encode(), Head())


def own(text: str) -> ChatRequest:
    return Frontend().parse(text.encode(), Head())


def test_a_chat_becomes_a_stateless_request() -> None:
    assert sent(asked()) == {
        "model": "gpt-5.2",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "stream": True,
    }


def test_messages_of_every_role_are_items() -> None:
    body = sent(asked(messages=[
        {"role": "system", "content": "Be kind"}, {"role": "developer", "content": "Be short"},
        {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": PNG}}]},
        {"role": "assistant", "content": "So", "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "mild"},
        {"role": "system", "content": "Late"},
    ]))  # fmt: skip
    assert body["instructions"] == "Be kind\n\nBe short"
    assert body["input"] == [
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "See"}, {"type": "input_image", "image_url": PNG, "detail": "auto"}]},
        {"type": "message", "role": "assistant", "content": "So"},
        {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "mild"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Late"}]},
    ]  # fmt: skip


def test_a_tool_that_failed_says_so_in_its_output() -> None:
    image = Image("data:image/png;base64,aGk=")
    results = [
        Message("tool", parts, tool_call_id=id, failed=True)
        for id, parts in (("t", (Text("gone"),)), ("u", (Text("gone"), image)))
    ]
    called = Message("assistant", (), (ToolCall("t", "f", "{}"), ToolCall("u", "f", "{}")))
    chat = ChatRequest("anthropic", None, (Message("user", (Text("Hi"),)), called, *results))
    *_, plain, shown = sent(chat)["input"]
    assert plain["output"] == "Error: gone"
    assert [part.get("text") for part in shown["output"]] == ["Error: gone", None]


def test_tools_choice_format_and_sampling_have_this_apis_form() -> None:
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    function = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
    body = sent(asked(
        tools=[{"type": "function", "function": function}], tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False, response_format=schema, max_tokens=9, temperature=0.5, reasoning_effort="low",
    ), summary="auto")  # fmt: skip
    assert body["tools"] == [{"type": "function", **function, "strict": False}]
    assert body["tool_choice"] == {"type": "function", "name": "f"}
    assert body["parallel_tool_calls"] is False
    assert body["text"] == {
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    }
    assert (body["max_output_tokens"], body["temperature"]) == (9, 0.5)
    assert body["reasoning"] == {"summary": "auto", "effort": "low"}


def test_only_openais_own_reasoning_comes_back() -> None:
    thoughts = (Thought("a", "sig"), Thought("b", "openai:rs_1:gAA="), Thought("c", "gemini:g"), Thought("d"))
    said = Message("assistant", (), (ToolCall("c1", "f", ""),), thoughts=thoughts)
    alone = Message("assistant", (), thoughts=thoughts)
    body = sent(ChatRequest("", "chat", (alone, said)))
    assert body["input"] == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "b"}],
            "encrypted_content": "gAA=",
        },
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    ]


def test_files_go_inline_or_by_their_address() -> None:
    inline = Other(
        "file",
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
    )
    link = Other("file", {"type": "file", "file": {"file_data": "https://a.example/b.pdf"}})
    [item] = sent(ChatRequest("", "chat", (Message("user", (inline, link)),)))["input"]
    assert item["content"] == [
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_file", "file_url": "https://a.example/b.pdf"},
    ]


def test_what_cannot_be_said_is_refused() -> None:
    video = Other("video_url", {"type": "video_url", "video_url": {"url": "https://a.example/v"}})
    with pytest.raises(BadRequest, match="video_url"):
        sent(ChatRequest("", "chat", (Message("user", (Text("x"), video)),)))


@pytest.mark.parametrize(("model", "temperature", "encrypted"), [
    ("gpt-5.2", True, True), ("gpt-5", False, True), ("o4-mini", False, True), ("gpt-4o-mini", True, False),
    ("gpt-4.1", True, False), ("gpt-5-chat-latest", True, False), ("grok-4.3", True, True),
])  # fmt: skip
def test_models_are_sent_what_they_take(model: str, temperature: bool, encrypted: bool) -> None:
    rules = rules_of(bundled_rules(), [], "responses", "api.openai.com", model)
    chat = Fitting(rules)(asked(temperature=1, stop="x", seed=1))
    body = json.loads(with_rules(Responses(), rules).request(chat, model).body)
    assert ("temperature" in body, "include" in body) == (temperature, encrypted)
    passed = Fitting(rules)(
        own('{"model":"chat","input":"Hi","temperature":1,"include":["x"],"stream":true}')
    )
    body = json.loads(with_rules(Responses(), rules).request(passed, model).body)
    assert ("temperature" in body, body["include"]) == (temperature, ["x"])


# its own dialect, passed on


def test_a_body_is_passed_on_as_it_came_but_for_the_model() -> None:
    text = '{"tools":[{"type":"web_search"}],  "model": "chat","input":"Hi","stream":true,"odd":1.0}'
    assert Responses().request(own(text), "m").body == text.replace('"model": "chat"', '"model":"m"').encode()
    whole = text.replace(',"stream":true', "")
    assert (
        Responses().whole_request(own(whole), "m").body
        == whole.replace('"model": "chat"', '"model":"m"').encode()
    )


def test_a_body_without_a_model_gets_one() -> None:
    assert sent(own('{"input":"Hi","stream":true}'), "m") == {"input": "Hi", "stream": True, "model": "m"}


def test_seals_of_ours_are_openais_own_again_or_left_out() -> None:
    items = [
        {"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": "sluice:s:openai:rs_1:gAA="},
        {"type": "reasoning", "id": "rs_y", "summary": [], "encrypted_content": "sluice:s:anthropics"},
        {"type": "reasoning", "id": "rs_z", "summary": [], "encrypted_content": "sluice:r:data"},
        {"type": "reasoning", "id": "rs_c", "summary": [], "encrypted_content": "sluice:c:googles"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "gBB="},
        {"role": "user", "content": "Hi"},
    ]
    body = sent(own(json.dumps({"model": "chat", "input": items, "stream": True})))
    assert body["input"] == [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAA="},
        items[4],
        items[5],
    ]


@pytest.mark.parametrize(
    "base", ["https://a.example/v1", "https://a.example/v1/", "https://a.example/v1/responses"]
)
def test_its_address_may_have_its_path(base: str) -> None:
    assert Responses(base_url=base).request(asked(), "m").url == "https://a.example/v1/responses"


def test_openai_itself_counts_tokens() -> None:
    for base, path in (("https://api.openai.com/v1", "/v1/responses/input_tokens"), ("http://x.test/v1", "")):
        counting = Responses(base_url=base).operation("count_tokens", "responses")
        assert (counting is not None) == bool(path)
        if counting is not None:
            chat = counted(b'{"model":"chat","input":"Hi"}', Head())
            request = counting.whole_request(chat, "gpt-5")
            assert request.url == f"https://api.openai.com{path}"
            assert json.loads(request.body) == {"model": "gpt-5", "input": "Hi"}
            decoder = counting.whole_decoder()
            document = b'{"object":"response.input_tokens","input_tokens":7}'
            assert decoder.feed(document) == []
            assert decoder.close()[-1] == Verbatim(document, whole=True)
