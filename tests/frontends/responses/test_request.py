"""Responses requests -> the vocabulary, and what is refused of them."""

import json
from typing import Any

import pytest

from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.responses.dialect import Responses
from sluice.model.chat import ChatRequest, Image, Message, Other, Text, Tool, ToolCall
from sluice.model.rules import Effort

ASK: dict[str, Any] = {"model": "chat", "input": "?"}
PNG = "data:image/png;base64,AAAA"


def parsed(**fields: Any) -> ChatRequest:
    return Responses().parse(json.dumps({**ASK, **fields}).encode(), Head())


def messages(*items: Any) -> tuple[Message, ...]:
    return parsed(input=[*items]).messages


def test_a_text_is_a_users_message_and_instructions_stand_before_it() -> None:
    chat = parsed(instructions="Be kind")
    assert chat.messages == (Message("system", (Text("Be kind"),)), Message("user", (Text("?"),)))
    assert (chat.model, chat.stream, chat.dialect) == ("chat", False, "responses")
    assert chat.wire == {**ASK, "instructions": "Be kind"}
    assert chat.body


def test_messages_come_with_and_without_their_type_and_in_both_forms() -> None:
    assert messages(
        {"role": "developer", "content": "Be kind"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [
            {"type": "output_text", "text": "c", "annotations": []}, {"type": "refusal", "refusal": "d"}]},
    ) == (
        Message("system", (Text("Be kind"),)),
        Message("user", (Text("a"), Text("b"))),
        Message("assistant", (Text("c"), Text("d", refusal=True))),
    )  # fmt: skip


def test_images_files_and_sound_are_the_vocabularys() -> None:
    [message] = messages(
        {"role": "user", "content": [
            {"type": "input_image", "image_url": PNG, "detail": "low"},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
            {"type": "input_file", "file_url": "https://a.example/b.pdf"},
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ]},
    )  # fmt: skip
    image, file, link, sound = message.parts
    assert image == Image(PNG, detail="low")
    assert isinstance(file, Other)
    assert file.wire["file"] == {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}
    assert isinstance(link, Other)
    assert link.wire["file"] == {"file_data": "https://a.example/b.pdf"}
    assert isinstance(sound, Other)
    assert sound.wire == {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}


def test_what_the_assistant_did_in_a_turn_is_one_message() -> None:
    said, one, other, after = messages(
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "gAAA"},
        {"type": "message", "role": "assistant", "content": "Both"},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":1}', "id": "fc_1", "status": "completed"},
        {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": 'a "q"'},
        {"type": "function_call_output", "call_id": "a", "output": "one"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": [
            {"type": "input_text", "text": "two"}, {"type": "input_image", "image_url": PNG}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "message", "role": "assistant", "content": "Done"},
    )  # fmt: skip
    assert said.parts == (Text("Both"),)
    assert said.tool_calls == (ToolCall("a", "f", '{"x":1}'), ToolCall("b", "patch", '{"input":"a \\"q\\""}'))
    assert [(thought.text, thought.signature) for thought in said.thoughts] == [("Hm", "openai:rs_1:gAAA")]
    assert one == Message("tool", (Text("one"),), tool_call_id="a")
    assert other == Message("tool", (Text("two"), Image(PNG)), tool_call_id="b")
    assert after == Message("assistant", (Text("Done"),))


def test_tools_are_functions_and_custom_ones_have_one_text() -> None:
    chat = parsed(tools=[
        {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"}},
    ])  # fmt: skip
    function, custom = chat.tools
    assert function == Tool("f", "d", {"type": "object"}, strict=True)
    assert custom.custom
    assert custom.parameters is not None
    assert custom.parameters["required"] == ["input"]
    assert "start: A" in custom.parameters["properties"]["input"]["description"]


def test_tools_of_a_namespace_have_its_name_before_theirs() -> None:
    inner = [{"type": "function", "name": "stop"}, {"type": "custom", "name": "edit"}, {"type": "odd"}]
    chat = parsed(
        tools=[{"type": "namespace", "name": "agents", "description": "d", "tools": inner}],
        input=[
            {
                "type": "function_call",
                "call_id": "c",
                "name": "stop",
                "namespace": "agents",
                "arguments": "{}",
            }
        ],
    )
    assert [(tool.name, tool.namespace, tool.custom) for tool in chat.tools] == [
        ("agents__stop", "agents", False), ("agents__edit", "agents", True)]  # fmt: skip
    assert chat.messages[0].tool_calls[0].name == "agents__stop"
    assert chat.dialect_only == "tools[0].tools[2]: a tool of type odd"
    assert chat.own_tools == ("odd",)


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("none", "none"),
        ({"type": "function", "name": "f"}, ("function", "f")),
        ({"type": "custom", "name": "p"}, ("function", "p")),
    ],
)
def test_the_choice_among_tools_has_its_forms(choice: Any, meant: Any) -> None:
    assert parsed(tool_choice=choice).tool_choice == meant


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        ({"type": "function", "name": "run", "namespace": "shell"}, "shell__run"),
        ({"type": "function", "name": "run"}, "shell__run"),
        ({"type": "function", "name": "shell__run"}, "shell__run"),
        ({"type": "custom", "name": "top"}, "top"),
        ({"type": "function", "name": "both"}, "both"),
    ],
)
def test_a_chosen_tool_is_found_within_its_namespace(choice: Any, meant: str) -> None:
    inner = [{"type": "function", "name": "run"}, {"type": "function", "name": "both"}]
    tools = [
        {"type": "namespace", "name": "shell", "description": "d", "tools": inner},
        {"type": "custom", "name": "top"},
        {"type": "function", "name": "both"},
    ]
    assert parsed(tools=tools, tool_choice=choice).tool_choice == ("function", meant)
    allowed = parsed(tools=tools, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [choice]})
    assert [tool.name for tool in allowed.tools] == [meant]


def test_allowed_tools_are_the_only_ones() -> None:
    tools = [{"type": "function", "name": name} for name in "abc"]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    chat = parsed(tools=tools, tool_choice=allowed)
    assert [tool.name for tool in chat.tools] == ["b"]
    assert chat.tool_choice == "required"


def test_the_answers_format_is_openais_response_format() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    assert parsed(text={"format": schema, "verbosity": "low"}).response_format == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    assert parsed(text={"format": {"type": "json_object"}}).response_format == {"type": "json_object"}
    assert parsed(text={"format": {"type": "text"}}).response_format is None


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh"])
def test_effort_and_limits_are_read(effort: Effort) -> None:
    chat = parsed(
        reasoning={"effort": effort, "summary": "auto"}, max_output_tokens=64.0, temperature=0.5, top_p=0.9
    )
    assert chat.reasoning is not None
    assert chat.reasoning.effort == effort
    assert (chat.sampling.max_tokens, chat.sampling.temperature, chat.sampling.top_p) == (64, 0.5, 0.9)


def test_what_says_nothing_changes_nothing() -> None:
    chat = parsed(max_output_tokens=-1, store=True, background=False, previous_response_id=None, include=["x"], metadata={},
                  stream_options={"include_obfuscation": False}, service_tier="auto", truncation="auto", user="u")  # fmt: skip
    assert chat.sampling.max_tokens is None
    assert chat.user == "u"
    assert not chat.dialect_only


@pytest.mark.parametrize(
    ("fields", "only"),
    [
        ({"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}, "tools[1]: a tool of type web_search"),
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "y"}]}, "tools[0]: a tool of type mcp"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice: a tool of type file_search"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input[0]: an item of type computer_call"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
         "input[0].content[0]: a file by its id"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt: a stored prompt"),
        ({"tools": [{"type": "<b>"}]}, "tools[0]: a tool of type an unknown name"),
    ],
)  # fmt: skip
def test_what_only_openai_has_is_named(fields: dict[str, Any], only: str) -> None:
    assert parsed(**fields).dialect_only == only


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"model": ""}, "model"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "ftp://x"}]}]},
         "input[0].content[0].image_url"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": 5}]}, "input[0].id"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": {}}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"max_output_tokens": 1.5}, "max_output_tokens"),
        ({"max_output_tokens": "x"}, "max_output_tokens"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"Model": "other"}, "model"),
        ({"input": [{"role": "user", "Content": "x", "content": "y"}]}, "input[0].content"),
        ({"stream": "yes"}, "stream"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parsed(**fields)
    assert refusal.value.param == param


def test_what_a_request_refers_to_is_for_the_store() -> None:
    chat = parsed(
        previous_response_id="resp_1", input=[{"type": "item_reference", "id": "fc_1"}, {"id": "rs_1"}]
    )
    keep = chat.keep
    assert keep is not None
    assert (keep.previous, keep.references, keep.wanted) == ("resp_1", ("fc_1", "rs_1"), True)
    call = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm"}]}
    whole = keep.completed([{"role": "user", "content": "Before"}], {"fc_1": call, "rs_1": thought})
    assert [message.role for message in whole.messages] == ["user", "assistant"]
    assert whole.wire is not None
    assert whole.wire["input"] == [{"role": "user", "content": "Before"}, call, thought]
    assert "previous_response_id" not in whole.wire


def test_an_answer_is_to_be_kept_unless_the_caller_says_no() -> None:
    assert [parsed(store=store).keep.wanted for store in (True, None, False)] == [True, True, False]  # type: ignore[union-attr]
