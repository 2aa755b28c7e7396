"""A request of the Messages API as the vocabulary has it: what each field becomes, and what is refused by its
name."""

import json
from typing import Any

import pytest

from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.anthropic.dialect import Anthropic
from sluice.frontends.anthropic.request import chat_of
from sluice.model.chat import (
    ChatRequest,
    Image,
    Message,
    Other,
    Reasoning,
    Sampling,
    Text,
    Thought,
    Tool,
    ToolCall,
)

CACHED = {"type": "ephemeral"}
HELLO = [{"role": "user", "content": "Hello"}]


def parsed(**fields: Any) -> ChatRequest:
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": HELLO, **fields}).encode()
    return Anthropic().parse(body, Head())


def said(content: Any, role: str = "user") -> tuple[Message, ...]:
    return parsed(messages=[{"role": role, "content": content}]).messages


def test_a_request_is_read_in_full() -> None:
    chat = parsed(
        stream=True,
        system=[{"type": "text", "text": "Be kind", "cache_control": CACHED}],
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop_sequences=["END"],
        tools=[
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": CACHED}
        ],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        thinking={"type": "enabled", "budget_tokens": 2000},
        metadata={"user_id": "ada"},
        cache_control=CACHED,
        context_management={"edits": []},
        service_tier="auto",
        container="c",
    )
    assert chat.messages == (Message("system", (Text("Be kind", CACHED),)), Message("user", (Text("Hello"),)))
    assert chat.sampling == Sampling(9, 0.5, 0.9, ("END",), top_k=3)
    assert chat.tools == (Tool("f", "d", {"type": "object"}, CACHED),)
    assert (chat.tool_choice, chat.parallel_tool_calls) == (("function", "f"), False)
    assert (chat.reasoning, chat.user, chat.cache) == (Reasoning(budget=2000), "ada", CACHED)
    assert (chat.dialect, chat.model, chat.stream, chat.include_usage, chat.dialect_only) == (
        "anthropic",
        "m",
        True,
        True,
        "",
    )
    assert chat.wire is not None
    assert json.loads(chat.body) == chat.wire


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({}, None),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, Reasoning("none")),
        ({"thinking": {"type": "adaptive"}}, Reasoning("high")),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, Reasoning("low")),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "low"}},
            Reasoning("low", 1024),
        ),
        ({"output_config": {"effort": "xhigh"}}, Reasoning("xhigh")),
        ({"output_config": {"effort": "a word of next year"}}, None),
        ({"thinking": {"type": "of next year"}}, None),
    ],
)
def test_how_much_to_think(fields: dict[str, Any], wish: Reasoning | None) -> None:
    assert parsed(**fields).reasoning == wish


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"type": "auto"}, ("auto", None)),
        ({"type": "any", "disable_parallel_tool_use": True}, ("required", False)),
        ({"type": "none"}, ("none", None)),
        ({"type": "auto", "disable_parallel_tool_use": False}, ("auto", None)),
    ],
)
def test_tool_choice(choice: dict[str, Any], found: tuple[str, bool | None]) -> None:
    chat = parsed(tool_choice=choice)
    assert (chat.tool_choice, chat.parallel_tool_calls) == found


def test_structured_outputs_become_a_response_format_by_either_name() -> None:
    wanted = {"type": "json_schema", "schema": {"type": "object"}}
    expected = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    assert parsed(output_config={"format": wanted}).response_format == expected
    assert parsed(output_format=wanted).response_format == expected
    assert parsed(output_config={"format": {"type": "text"}}).response_format is None


def test_results_of_tools_are_messages_of_their_own_and_stay_in_order() -> None:
    assert said(
        [
            {"type": "tool_result", "tool_use_id": "a", "content": "sunny"},
            {"type": "tool_result", "tool_use_id": "b", "is_error": True},
            {
                "type": "tool_result",
                "tool_use_id": "c",
                "content": [
                    {"type": "text", "text": "see"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                    },
                ],
            },
            {"type": "text", "text": "and now?"},
        ]
    ) == (
        Message("tool", (Text("sunny"),), tool_call_id="a"),
        Message("tool", (), tool_call_id="b", failed=True),
        Message("tool", (Text("see"), Image("data:image/png;base64,aGk=")), tool_call_id="c"),
        Message("user", (Text("and now?"),)),
    )


def test_an_assistants_blocks() -> None:
    [message] = said(
        [
            {"type": "thinking", "thinking": "hm", "signature": "S"},
            {"type": "redacted_thinking", "data": "D"},
            {"type": "text", "text": "I look", "citations": [{"type": "char_location"}]},
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": "ü"}},
        ],
        "assistant",
    )
    assert message == Message(
        "assistant",
        (Text("I look"),),
        (ToolCall("a", "f", '{"x":"ü"}'),),
        thoughts=(Thought("hm", "S"), Thought(redacted="D")),
    )


@pytest.mark.parametrize(
    ("source", "file"),
    [
        (
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
            {"file_data": "data:application/pdf;base64,JVBERg=="},
        ),
        (
            {"type": "text", "media_type": "text/plain", "data": "hi"},
            {"file_data": "data:text/plain;base64,aGk="},
        ),
        ({"type": "url", "url": "https://x.example/a.pdf"}, {"file_data": "https://x.example/a.pdf"}),
        ({"type": "file", "file_id": "file_1"}, {"file_id": "file_1"}),
    ],
)
def test_documents_are_files(source: dict[str, Any], file: dict[str, Any]) -> None:
    [message] = said([{"type": "document", "source": source, "title": "T", "cache_control": CACHED}])
    wire = {"type": "file", "file": {**file, "filename": "T"}, "cache_control": CACHED}
    assert message.parts == (Other("file", wire),)


def test_a_document_of_blocks_and_a_search_result_are_texts() -> None:
    blocks = [{"type": "text", "text": "one"}]
    [message] = said(
        [
            {"type": "document", "source": {"type": "content", "content": blocks}, "title": "T"},
            {"type": "search_result", "source": "https://x", "title": "X", "content": blocks},
        ]
    )
    assert message.text == "ToneX\nhttps://xone"


def test_a_system_message_in_the_middle_stays_there() -> None:
    chat = parsed(
        messages=[
            *HELLO,
            {"role": "system", "content": "Mode: plan"},
            {"role": "assistant", "content": "Sure"},
        ]
    )
    assert [message.role for message in chat.messages] == ["user", "system", "assistant"]


def test_tools_that_come_and_go_within_a_conversation_are_for_its_own_dialect_alone() -> None:
    added = {"type": "tool_addition", "tool": {"name": "g", "input_schema": {"type": "object"}}}
    removed = {"type": "tool_removal", "tool_name": "f"}
    words = {"type": "text", "text": "Only g from now on."}
    messages = [
        *HELLO,
        {"role": "system", "content": [added, removed]},
        {"role": "system", "content": [removed, words]},
    ]
    chat = parsed(messages=messages)
    assert chat.messages == (
        Message("user", (Text("Hello"),)),
        Message("system", (Text("Only g from now on."),)),
    )
    assert chat.dialect_only == ""
    assert chat.wire is not None
    assert chat.wire["messages"] == messages


def test_a_search_among_the_tools_and_what_it_found_are_told_elsewhere() -> None:
    search = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    deferred = {"name": "f", "input_schema": {"type": "object"}, "defer_loading": True}
    chat = parsed(tools=[search, deferred])
    assert [tool.name for tool in chat.tools] == ["f"]
    assert chat.dialect_only == ""
    found = [{"type": "tool_reference", "tool_name": name} for name in ("f", "g", None)]
    [message] = said([{"type": "tool_result", "tool_use_id": "t", "content": found}])
    assert message.parts == (Text("Tool available: f"), Text("Tool available: g"))


@pytest.mark.parametrize("kind", ["image", "document"])
@pytest.mark.parametrize("source", [{"type": "vault", "key": "k"}, {"type": "v" * 500}])
def test_a_source_of_an_unknown_type_is_for_its_own_dialect_alone(kind: str, source: dict[str, Any]) -> None:
    [message] = said([{"type": kind, "source": source}])
    [part] = message.parts
    assert part == Other(f"{kind} of source {source['type'][:64]}", {"type": kind, "source": source})


@pytest.mark.parametrize("kind", [None, "", 5])
def test_a_source_without_a_type_is_refused(kind: Any) -> None:
    with pytest.raises(BadRequest) as refusal:
        said([{"type": "image", "source": {"type": kind}}])
    assert refusal.value.param == "messages[0].content[0].source.type"


@pytest.mark.parametrize(
    ("tools", "place"),
    [
        (
            [{"name": "f", "input_schema": {}}, {"type": "web_search_20260209", "name": "web_search"}],
            "tools[1]",
        ),
        ([{"type": "bash_20250124", "name": "bash"}], "tools[0]"),
        ([{"type": "custom", "name": "f"}, {"type": "memory_20250818", "name": "memory"}], "tools[1]"),
    ],
)
def test_anthropics_own_tools_bind_a_request_to_its_dialect(tools: list[Any], place: str) -> None:
    chat = parsed(tools=tools)
    kind = tools[-1]["type"]
    assert chat.dialect_only == f"{place}: a tool of type {kind} (Input tag '{kind}')"


ATTRIBUTION = "x-anthropic-billing-header: cc_version=2.1.197.3de; cc_entrypoint=sdk-cli;"


@pytest.mark.parametrize(
    ("system", "left"),
    [
        ([ATTRIBUTION, "You are an agent.", "Be brief."], ["You are an agent.", "Be brief."]),
        ([ATTRIBUTION], None),
        (["You are an agent.", ATTRIBUTION], ["You are an agent.", ATTRIBUTION]),
        ([f"{ATTRIBUTION}\nYou are an agent."], [f"{ATTRIBUTION}\nYou are an agent."]),
        (["x-anthropic: odd", "Be brief."], ["x-anthropic: odd", "Be brief."]),
    ],
)
def test_the_attribution_before_a_system_prompt_is_for_its_own_dialect_alone(
    system: list[str], left: list[str] | None
) -> None:
    blocks = [{"type": "text", "text": text} for text in system]
    chat = parsed(system=blocks)
    told = [message for message in chat.messages if message.role == "system"]
    assert told == ([] if left is None else [Message("system", tuple(map(Text, left)))])
    assert chat.wire is not None
    assert chat.wire["system"] == blocks


def test_mcp_servers_bind_too() -> None:
    assert parsed(mcp_servers=[{"type": "url", "url": "https://x"}]).dialect_only.startswith("mcp_servers: ")
    assert parsed(mcp_servers=[]).dialect_only == ""


BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages[0].content[0].source"),
    (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "file:///x"}}],
                }
            ]
        },
        "messages[0].content[0].source.url",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
        "messages[0].content[0].tool_use_id",
    ),
    (
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": "x"}]}
            ]
        },
        "messages[0].content[0].input",
    ),
    ({"messages": [{"role": "user", "Content": "x", "content": "x"}]}, "messages[0].content"),
    ({"Model": "other"}, "model"),
    ({"model": ""}, "model"),
    ({"model": 5}, "model"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"max_tokens": "9"}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"system": 5}, "system"),
    ({"system": [{"type": "image"}]}, "system[0].type"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
    ({"tools": [{"name": "f", "input_schema": []}]}, "tools[0].input_schema"),
    ({"tools": [{"name": "f", "Name": "g"}]}, "tools[0].name"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"thinking": {}}, "thinking.type"),
    ({"stop_sequences": "END"}, "stop_sequences"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
def test_what_is_refused_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parsed(**fields)
    assert refusal.value.param == param


def test_no_bound_is_no_bound() -> None:
    assert parsed(max_tokens=0).sampling.max_tokens is None
    assert parsed(max_tokens=-1).sampling.max_tokens is None
    assert chat_of({"messages": HELLO}).sampling.max_tokens is None


def test_what_is_no_answer_or_continues_what_the_provider_keeps_is_its_dialects_alone() -> None:
    assert (
        parsed(compaction={"type": "summarize"}).dialect_only == "compaction: a summary of the conversation"
    )
    assert parsed(compaction=None).dialect_only == ""
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    assert parsed(thread=thread, messages=[]).dialect_only == "thread: a conversation that the provider keeps"
    assert parsed(thread={"type": "create"}).dialect_only == parsed(thread=None).dialect_only == ""
