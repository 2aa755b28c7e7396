"""Schemas of tools' arguments and arguments of earlier calls, in the forms that vendors take."""

import json
from typing import Any

import pytest

from sluice.model.chat import Tool
from sluice_plugins.tool_schemas import is_closed, object_schema, plain_tool
from sluice_plugins.translation import UNREADABLE, arguments_object
from tests.matrix.lanes import UPSTREAMS, parsed, sent

A = {"type": "string"}
B = {"type": "integer"}


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"type": None, "properties": {"a": A}}, {"type": "object", "properties": {"a": A}}),
        ({"type": ["object", "null"]}, {"type": "object", "properties": {}}),
        ({"properties": None, "required": []}, {"type": "object", "properties": {}, "required": []}),
        (
            {"type": "object", "properties": {"a": A}, "additionalProperties": False},
            {"type": "object", "properties": {"a": A}, "additionalProperties": False},
        ),
    ],
)
def test_a_schema_is_that_of_an_object_with_properties(given: Any, schema: Any) -> None:
    assert object_schema(given) == schema


@pytest.mark.parametrize(
    ("given", "properties", "required"),
    [
        ({"type": "object", "properties": {"a": A}, "anyOf": [{"required": ["a"]}]}, {"a": A}, ["a"]),
        (
            {"properties": {"a": A, "b": B}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": A, "b": B},
            None,
        ),
        (
            {
                "oneOf": [
                    {"properties": {"k": {"const": 1}, "a": A}, "required": ["k", "a"]},
                    {"properties": {"k": {"const": 2}, "b": B}, "required": ["k"]},
                ]
            },
            {"k": {"anyOf": [{"const": 1}, {"const": 2}]}, "a": A, "b": B},
            ["k"],
        ),
        (
            {"allOf": [{"$ref": "#/$defs/X"}, {"required": ["a"]}], "$defs": {"X": {"properties": {"a": A}}}},
            {"a": A},
            ["a"],
        ),
        ({"anyOf": [{"$ref": "#/elsewhere"}, True, 1]}, {}, None),
        ({"anyOf": "no list"}, {}, None),
    ],
)
def test_branches_at_the_top_become_properties_and_words(given: Any, properties: Any, required: Any) -> None:
    described, schema = plain_tool(Tool("f", "Does it.", given))
    assert schema["properties"] == properties
    assert schema.get("required") == required
    assert not {"anyOf", "oneOf", "allOf"} & schema.keys()
    branch = next(name for name in ("anyOf", "oneOf", "allOf") if name in given)
    said = json.dumps({branch: given[branch]}, separators=(",", ":"))
    assert described == f"Does it.\n\nThe arguments must also match this JSON Schema: {said}"
    assert branch in given, "the caller's own is not touched"


@pytest.mark.parametrize(
    ("upstream", "place"),
    [
        ("openai", lambda body: body["tools"][0]["function"]["parameters"]),
        ("responses", lambda body: body["tools"][0]["parameters"]),
        ("cohere", lambda body: body["tools"][0]["function"]["parameters"]),
        ("bedrock", lambda body: body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"]),
    ],
)
def test_a_tool_of_messages_without_properties_has_an_object_of_none(upstream: str, place: Any) -> None:
    tool = {"name": "ping", "input_schema": {"type": "object"}}
    body = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "q"}],
        "tools": [tool],
    }
    seen = sent(UPSTREAMS[upstream], parsed("anthropic", json.dumps(body).encode(), stream=True))
    assert place(seen) == {"type": "object", "properties": {}}


@pytest.mark.parametrize("field", ["tool_choice", "parallel_tool_calls"])
def test_a_choice_among_no_tools_is_not_sent(field: str) -> None:
    body = {"model": "m", "input": "q", "tools": [], "tool_choice": "auto", "parallel_tool_calls": True}
    for upstream in ("openai", "anthropic", "gemini", "cohere"):
        seen = sent(UPSTREAMS[upstream], parsed("responses", json.dumps(body).encode(), stream=True))
        assert field not in seen


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ("  ", {}),
        ("[]", {}),
        ("null", {}),
        ('""', {}),
        (' {"a": ', {UNREADABLE: '{"a":'}),
        ("[1]", {UNREADABLE: "[1]"}),
        ('"x"', {UNREADABLE: '"x"'}),
        ("0", {UNREADABLE: "0"}),
        ("\ud800", {UNREADABLE: "?"}),
        ('{"a": "\ud800"}', {"a": "?"}),
        ("[" * 100_000, {UNREADABLE: "[" * 100_000}),
    ],
)
def test_arguments_of_an_earlier_call_are_an_object_and_nothing_of_them_is_lost(
    written: str, seen: Any
) -> None:
    assert json.loads(bytes(arguments_object(written))) == seen


@pytest.mark.parametrize("upstream", ["anthropic", "gemini", "bedrock", "ollama", "cohere"])
def test_a_call_whose_arguments_were_cut_does_not_end_the_conversation(upstream: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "bad arguments"},
    ]
    body = {"model": "m", "messages": messages}
    seen = json.dumps(sent(UPSTREAMS[upstream], parsed("openai", json.dumps(body).encode(), stream=True)))
    assert UNREADABLE in seen


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": False}, True),
        ({"type": "object", "properties": {}}, False),
        (
            {"type": "object", "properties": {"a": A}, "required": ["a"], "additionalProperties": False},
            True,
        ),
        ({"type": "object", "properties": {"a": A}, "additionalProperties": False}, False),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "array", "items": {"type": "object"}}},
                "required": ["a"],
                "additionalProperties": False,
            },
            False,
        ),
        ({"anyOf": [A, {"properties": {"b": B}}]}, False),
        ({"$defs": {"X": {"type": "object"}}}, False),
        (A, True),
    ],
)
def test_openai_follows_a_schema_to_the_letter_only_where_it_is_closed(schema: Any, closed: bool) -> None:
    assert is_closed(schema) is closed


@pytest.mark.parametrize(("required", "strict"), [(["a"], True), ([], False)])
def test_a_strict_tool_of_messages_is_strict_at_openai_where_it_can_be(
    required: list[str], strict: bool
) -> None:
    schema = {"type": "object", "properties": {"a": A}, "required": required, "additionalProperties": False}
    tool = {"name": "f", "input_schema": schema, "strict": True}
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "q"}], "tools": [tool]}
    chat = parsed("anthropic", json.dumps(body).encode(), stream=True)
    assert ("strict" in sent(UPSTREAMS["openai"], chat)["tools"][0]["function"]) is strict
    assert sent(UPSTREAMS["responses"], chat)["tools"][0]["strict"] is strict
