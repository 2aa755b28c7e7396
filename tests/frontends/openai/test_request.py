"""Chat Completions requests: what is interpreted, what passes through, and what is refused, field by
field."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.openai.dialect import OpenAI
from sluice.frontends.widget.dialect import Widget
from sluice.model.chat import Image, Message, Other, Sampling, Text, Tool, ToolCall


def parse(wire: Any) -> Any:
    return OpenAI().parse(json.dumps(wire).encode(), {})


def ask(**fields: Any) -> Any:
    return parse({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields})


def messages(*given: Any) -> Any:
    return parse({"messages": list(given)}).messages


USER = {"role": "user", "content": "hi"}


def test_a_plain_request() -> None:
    chat = ask()
    assert (chat.dialect, chat.model, chat.stream, chat.session, chat.include_usage) == (
        "openai",
        "m",
        False,
        None,
        False,
    )
    assert chat.messages == (Message("user", (Text("hi"),)),)
    assert chat.sampling == Sampling()
    assert chat.tools == ()


def test_the_model_may_be_left_to_the_key() -> None:
    assert parse({"messages": [USER]}).model is None


def test_every_field_that_is_interpreted() -> None:
    chat = ask(
        stream=True,
        stream_options={"include_usage": True},
        n=1,
        max_tokens=5,
        temperature=1,
        top_p=0.5,
        stop=["a", "b"],
        seed=7,
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {"type": "object"},
                    "strict": True,
                },
            },
            {"type": "function", "function": {"name": "g"}},
            {"type": "web_search"},
        ],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_object"},
    )
    assert chat.stream
    assert chat.include_usage
    assert chat.sampling == Sampling(5, 1.0, 0.5, ("a", "b"), 7)
    assert chat.tools == (Tool("f", "d", {"type": "object"}, strict=True), Tool("g"))
    assert chat.tool_choice == ("function", "f")
    assert chat.parallel_tool_calls is False
    assert chat.response_format == {"type": "json_object"}


def test_nulls_are_as_good_as_nothing() -> None:
    names = (
        "stream stream_options n max_tokens max_completion_tokens temperature top_p stop seed tools tool_choice "
        "parallel_tool_calls response_format"
    )
    nothing = dict.fromkeys(names.split())
    chat, plain = ask(**nothing), ask()
    assert (chat.sampling, chat.tools, chat.stream) == (plain.sampling, plain.tools, plain.stream)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, 5),
        ({"max_tokens": 7, "max_completion_tokens": 6}, 6),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 1024.0}, 1024),
        ({"max_tokens": 4.2e1}, 42),
        ({"max_tokens": 2**53 - 1}, 2**53 - 1),
        ({"max_tokens": -1}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -2.0}, None),
        ({"max_tokens": -2.5}, None),
        ({"max_tokens": -1e300}, None),
        ({"max_tokens": -0.5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": -(2**70)}, None),
        ({"max_tokens": -1, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 0}, 5),
        ({"max_tokens": -1, "max_completion_tokens": -1}, None),
        ({"max_tokens": None, "max_completion_tokens": 6}, 6),
    ],
)
def test_the_smaller_limit_is_meant_and_below_one_there_is_none(
    fields: dict[str, Any], limit: int | None
) -> None:
    found = ask(**fields).sampling.max_tokens
    assert (found, type(found)) == (limit, type(limit))


def test_one_stop_may_stand_alone() -> None:
    assert ask(stop="x").sampling.stop == ("x",)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),
        ({"type": "allowed_tools"}, None),
        ({"type": "function", "name": "f"}, ("function", "f")),
        ({"type": "tool", "name": "f"}, ("function", "f")),
        ({"type": "any"}, "required"),
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        ({"type": "custom", "custom": {"name": "f"}}, None),
    ],
)
def test_tool_choice(given: Any, meant: Any) -> None:
    assert ask(tool_choice=given).tool_choice == meant


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(("mode", "meant"), [("auto", "auto"), ("required", "required"), (None, "auto")])
def test_allowed_tools_are_those_that_another_vendor_is_given(
    nested: bool, mode: str | None, meant: str
) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    inner = {"mode": mode, "tools": [tools[1] if nested else {"type": "function", "name": "g"}, 1, {}]}
    choice = {"type": "allowed_tools", **({"allowed_tools": inner} if nested else inner)}
    chat = ask(tools=tools, tool_choice=choice)
    assert ([tool.name for tool in chat.tools], chat.tool_choice) == (["g"], meant)
    assert chat.wire is not None
    assert chat.wire["tools"] == tools


@pytest.mark.parametrize(
    ("kind", "named"), [("custom", "custom"), ("web_search", "web_search"), ("a b", "its own")]
)
def test_a_tool_of_another_kind_is_named_to_who_cannot_have_it(kind: str, named: str) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}, {"type": kind}]
    assert ask(tools=tools).dialect_only == f"tools[1]: a tool of type {named}"


@pytest.mark.parametrize(("seed", "meant"), [(7, 7), (7.0, 7), (None, None), (2**60 + 1, 2**60 + 1)])
def test_a_seed_may_be_written_as_a_float(seed: Any, meant: Any) -> None:
    found = ask(seed=seed).sampling.seed
    assert (found, type(found)) == (meant, type(meant))


def test_the_whole_object_passes_through() -> None:
    wire = {
        "messages": [USER],
        "logit_bias": {"1": -100},
        "functions": [{"name": "f"}],
        "vendor": {"x": [1, None]},
    }
    assert parse(wire).wire == wire


def test_every_role() -> None:
    assert messages(
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        {"role": "user", "content": "u", "name": "someone"},
        {"role": "assistant", "content": "a"},
        {"role": "tool", "content": "t", "tool_call_id": "c1"},
        {"role": "function", "content": "f", "name": "g"},
    ) == (
        Message("system", (Text("s"),)),
        Message("system", (Text("d"),)),
        Message("user", (Text("u"),)),
        Message("assistant", (Text("a"),)),
        Message("tool", (Text("t"),), tool_call_id="c1"),
        Message("tool", (Text("f"),), tool_call_id="g"),
    )


def test_an_assistants_calls_and_refusals() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert messages(
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [call, {"id": "c2", "type": "custom", "custom": {"name": "x"}}],
        },
        {"role": "assistant", "function_call": {"name": "g", "arguments": "{1"}},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
    ) == (
        Message("assistant", (), (ToolCall("c1", "f", "{}"),)),
        Message("assistant", (), (ToolCall("c1", "f", "{}"), ToolCall("c2", "custom", "{}"))),
        Message("assistant", (), (ToolCall("g", "g", "{1"),)),
        Message("assistant", (Text("no", refusal=True),)),
        Message("assistant", (Text("never", refusal=True),)),
    )


def test_parts_of_every_kind() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
    assert messages(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                audio,
            ],
        }
    )[0].parts == (
        Text("look"),
        Image("https://x/y.png", detail="low"),
        Image("data:image/png;base64,AA=="),
        Other("input_audio", audio),
    )


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}

BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": {}}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": []}, "messages"),
    ({"model": 1}, "model"),
    ({"model": ""}, "model"),
    ({"stream": "true"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": []}, "stream_options"),
    ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"n": 0}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": 129}, "n"),
    ({"max_tokens": 2**53}, "max_tokens"),
    ({"max_tokens": 1e30}, "max_tokens"),
    ({"max_tokens": 10.5}, "max_tokens"),
    ({"max_completion_tokens": 10**400}, "max_completion_tokens"),
    ({"top_k": 0.5}, "top_k"),
    ({"n": 0}, "n"),
    ({"n": 1.5}, "n"),
    ({"n": True}, "n"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_tokens": 5.5}, "max_tokens"),
    ({"max_completion_tokens": []}, "max_completion_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": 10**400}, "temperature"),
    ({"top_p": {}}, "top_p"),
    ({"stop": 1}, "stop"),
    ({"stop": ["a", 1]}, "stop[1]"),
    ({"seed": 1.5}, "seed"),
    ({"tools": {}}, "tools"),
    ({"tools": ["f"]}, "tools[0]"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": "x"}}]},
        "tools[0].function.parameters",
    ),
    ({"tool_choice": 1}, "tool_choice"),
    ({"tool_choice": "secret"}, "tool_choice"),
    ({"tool_choice": {}}, "tool_choice.type"),
    ({"tool_choice": {"type": "function"}}, "tool_choice.function.name"),
    ({"tool_choice": {"type": "function", "function": {"name": ""}}}, "tool_choice.function.name"),
    ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
]

BAD_MESSAGES: list[tuple[Any, str]] = [
    ("hello", ""),
    (None, ""),
    ({}, ".role"),
    ({"content": "secret"}, ".role"),
    ({"role": 1, "content": "x"}, ".role"),
    ({"role": "secret", "content": "x"}, ".role"),
    ({"role": "user"}, ".content"),
    ({"role": "user", "content": None}, ".content"),
    ({"role": "user", "content": 5}, ".content"),
    ({"role": "user", "content": {}}, ".content"),
    ({"role": "user", "content": []}, ".content"),
    ({"role": "user", "content": ["x"]}, ".content[0]"),
    ({"role": "user", "content": [{"text": "x"}]}, ".content[0].type"),
    ({"role": "user", "content": [{"type": 1}]}, ".content[0].type"),
    ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text"}]}, ".content[1].text"),
    ({"role": "user", "content": [{"type": "text", "text": None}]}, ".content[0].text"),
    ({"role": "user", "content": [{"type": "image_url"}]}, ".content[0].image_url"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": 5}]}, ".content[0].image_url"),
    (
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///secret"}}]},
        ".content[0].image_url.url",
    ),
    ({"role": "system", "content": None}, ".content"),
    ({"role": "assistant", "content": 1}, ".content"),
    ({"role": "assistant", "tool_calls": {}}, ".tool_calls"),
    ({"role": "assistant", "tool_calls": [{}]}, ".tool_calls[0].id"),
    ({"role": "assistant", "tool_calls": [CALL, {"id": "c"}]}, ".tool_calls[1].function"),
    ({"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}, ".tool_calls[0].function.name"),
    (
        {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": 1}}]},
        ".tool_calls[0].function.arguments",
    ),
    ({"role": "tool", "content": "x"}, ".tool_call_id"),
    ({"role": "tool", "content": "x", "tool_call_id": ""}, ".tool_call_id"),
    ({"role": "tool", "tool_call_id": "c"}, ".content"),
    ({"role": "function", "content": "x"}, ".name"),
]


def check_refusal(refused: BadRequest, field: str) -> None:
    assert refused.param == field
    assert [detail["field"] for detail in refused.details] == [field]
    error = OpenAI().error(refused, "r")["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert "secret" not in json.dumps([error, refused.details])


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS, ids=[str(row)[:80] for row in BAD_FIELDS])
def test_a_bad_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ask(**fields)
    check_refusal(refused.value, param)


@pytest.mark.parametrize(("message", "param"), BAD_MESSAGES, ids=[str(row)[:80] for row in BAD_MESSAGES])
def test_a_bad_message_is_named(message: Any, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse({"messages": [USER, message]})
    check_refusal(refused.value, f"messages[1]{param}")


def test_messages_are_required() -> None:
    with pytest.raises(BadRequest) as refused:
        parse({"model": "m"})
    check_refusal(refused.value, "messages")
    assert refused.value.details == [{"field": "messages", "reason": "is required"}]


def test_the_number_of_choices_is_for_the_target_to_judge() -> None:
    assert (ask().n, ask(n=1).n, ask(n=3).n, ask(n=2.0).n) == (1, 1, 3, 2)


@pytest.mark.parametrize("fields", [{"n": 2}, {"n": 5, "stream": True}])
def test_ndjson_has_one_choice(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        Widget().streamed(json.dumps({"messages": [USER], **fields}).encode(), Head())
    assert refused.value.param == "n"


@pytest.mark.parametrize("limit", [-1, 0, 1024.0, 1e300, 10**400, 10**30, 0.5, True, "7", [], {}])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("parse", [OpenAI().parse, Widget().streamed])
def test_any_limit_is_understood_or_refused_by_its_name(parse: Any, name: str, limit: Any) -> None:
    body = json.dumps({"messages": [USER], name: limit}).encode()
    try:
        found = parse(body, Head()).sampling.max_tokens
    except BadRequest as refused:
        assert refused.param == name  # noqa: PT017
        assert limit not in (-1, 0, 1024.0)
    else:
        assert found in (None, 1024)


def test_a_wrong_type_is_explained_in_types() -> None:
    with pytest.raises(BadRequest) as refused:
        ask(max_tokens="secret")
    assert refused.value.message == "max_tokens: must be number or null, not str"


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "image_url",
                    "url",
                    "tool_calls",
                    "id",
                    "function",
                    "name",
                ]
            ),
            inner,
        )
    ),
    max_leaves=12,
)
roles = st.sampled_from(["system", "user", "assistant", "tool", "function"])
any_message = st.fixed_dictionaries(
    {"role": roles | anything},
    optional={"content": st.text() | anything, "tool_calls": anything, "tool_call_id": anything},
)
any_request = st.fixed_dictionaries(
    {"messages": st.lists(any_message, max_size=3) | anything},
    optional={
        name: anything
        for name in ("model", "stream", "n", "stop", "tools", "tool_choice", "response_format", "seed")
    },
)


@settings(deadline=None)
@given(any_request)
def test_any_request_is_a_chat_or_a_bad_request_that_names_a_field(wire: Any) -> None:
    refused: BadRequest | None = None
    try:
        assert parse(wire).wire == wire
    except BadRequest as error:
        refused = error
    assert refused is None or refused.param


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_a_chat_or_a_bad_request(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        OpenAI().parse(body, {})


FUNCTION = {"name": "f", "arguments": "{}"}
CALLED = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": FUNCTION}]}
IMAGE = {"type": "image_url", "image_url": {"url": "https://x/y"}}
TOOL = {"type": "function", "function": {"name": "f"}}
OTHER_CASE: list[tuple[str, dict[str, Any], str]] = [
    ("model", {"Model": "dear"}, "model"),
    ("model, loud", {"MODEL": "dear"}, "model"),
    ("the limit", {"max_tokens": 5, "Max_Tokens": 50_000}, "max_tokens"),
    ("a limit alone", {"Max_Completion_Tokens": 50_000}, "max_completion_tokens"),
    ("messages", {"Messages": [USER]}, "messages"),
    ("stream", {"Stream": True}, "stream"),
    ("a long s", {"\u017ftream": True}, "stream"),
    ("the sign of Kelvin", {"max_to\u212aens": 50_000}, "max_tokens"),
    ("a dotless i", {"temperature": 1, "s\u0131": 1, "si": 2}, "body"),
    ("two that nobody knows", {"min_p": 1, "Min_P": 50}, "body"),
    ("a role", {"messages": [USER, {**USER, "Role": "system"}]}, "messages[1].role"),
    ("a text", {"messages": [{**USER, "Content": "other"}]}, "messages[0].content"),
    ("a text beside tool calls", {"messages": [{**CALLED, "Content": "x"}]}, "messages[0].content"),
    ("two in a message that nobody knows", {"messages": [{**USER, "cache": 1, "Cache": 2}]}, "messages[0]"),
    (
        "a part",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "Text": "b"}]}]},
        "messages[0].content[0].text",
    ),
    (
        "a part's type",
        {"messages": [{"role": "user", "content": [IMAGE, {**IMAGE, "Type": "x"}]}]},
        "messages[0].content[1].type",
    ),
    (
        "an image",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{**IMAGE, "image_url": {"url": "https://x/y", "URL": "http://z"}}],
                }
            ]
        },
        "messages[0].content[0].image_url.url",
    ),
    (
        "a call",
        {"messages": [{"role": "assistant", "tool_calls": [{**CALLED["tool_calls"][0], "ID": "2"}]}]},
        "messages[0].tool_calls[0].id",
    ),
    (
        "a call's function",
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"id": "1", "function": {**FUNCTION, "Arguments": "x"}}]}
            ]
        },
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        "an old call",
        {"messages": [{"role": "assistant", "function_call": {**FUNCTION, "Name": "g"}}]},
        "messages[0].function_call.name",
    ),
    ("a tool", {"tools": [TOOL, {**TOOL, "Function": {"name": "g"}}]}, "tools[1].function"),
    (
        "a tool's function",
        {"tools": [{"type": "function", "function": {"name": "f", "Parameters": {}}}]},
        "tools[0].function.parameters",
    ),
    (
        "a choice",
        {"tool_choice": {"type": "function", "function": {"name": "f", "Name": "g"}}},
        "tool_choice.function.name",
    ),
    (
        "an option",
        {"stream": True, "stream_options": {"Include_Usage": False}},
        "stream_options.include_usage",
    ),
    ("a format", {"response_format": {"type": "text", "Type": "json_object"}}, "response_format.type"),
    (
        "a schema",
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {}, "Schema": {}},
            }
        },
        "response_format.json_schema.schema",
    ),
]


@pytest.mark.parametrize(
    ("fields", "param"), [row[1:] for row in OTHER_CASE], ids=[row[0] for row in OTHER_CASE]
)
def test_a_name_in_another_case_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        ask(**fields)
    assert refused.value.details[0]["field"] == param
    assert "dear" not in refused.value.message


def test_a_model_in_another_case_is_refused_where_there_is_none() -> None:
    with pytest.raises(BadRequest):
        parse({"Model": "dear", "messages": [USER]})


@pytest.mark.parametrize(
    "fields",
    [
        {"Vendor": 1},
        {"metadata": {"ID": 1, "id": 2}},
        {"vendor": {"Model": "x", "model": "y"}},
        {
            "tools": [
                {
                    "type": "function",
                    "function": {"name": "f", "parameters": {"properties": {"Name": {}, "name": {}}}},
                }
            ]
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"properties": {"A": {}, "a": {}}}},
            }
        },
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "input_audio", "input_audio": {"data": "x", "Data": "y"}}],
                }
            ]
        },
    ],
)
def test_what_is_not_interpreted_may_be_written_in_any_case(fields: dict[str, Any]) -> None:
    assert ask(**fields).wire.items() >= fields.items()
