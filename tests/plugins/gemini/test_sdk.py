"""The bodies that we send are what the google-genai SDK takes for requests of this API; skipped where it is
absent."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.chat import ChatRequest, Image, Message, Reasoning, Sampling, Text, Tool, ToolCall
from sluice_plugins.gemini.backend import Gemini

types = pytest.importorskip("google.genai.types", reason="google-genai is not installed")

words = st.text(min_size=1, max_size=20)
images = st.binary(min_size=1, max_size=9).map(
    lambda raw: Image(f"data:image/png;base64,{base64.b64encode(raw).decode()}")
)
parts = st.lists(words.map(Text) | images, min_size=1, max_size=3).map(tuple)
calls = st.lists(
    st.builds(
        ToolCall,
        id=st.uuids().map(str),
        name=st.sampled_from(["f", "g"]),
        arguments=st.dictionaries(words, st.integers(-9, 9) | words).map(json.dumps),
        signature=st.sampled_from(["", "c2ln"]),
    ),
    max_size=3,
)


@st.composite
def conversations(draw: Any) -> tuple[Message, ...]:
    messages = [Message("system", (Text(draw(words)),)), Message("user", draw(parts))]
    for _ in range(draw(st.integers(0, 2))):
        made = draw(calls)
        messages.append(Message("assistant", (Text(draw(words)),), tuple(made)))
        messages += [
            Message("tool", draw(parts), tool_call_id=call.id) for call in draw(st.permutations(made))
        ]
        messages.append(Message("user", draw(parts)))
    return tuple(messages)


TOOLS = (Tool("f", "Does it", {"type": "object", "properties": {"a": {"type": "integer"}}}), Tool("g"))


@settings(max_examples=60, deadline=None)
@given(
    messages=conversations(),
    choice=st.sampled_from([None, "auto", "none", "required", ("function", "f")]),
    effort=st.sampled_from(["none", "minimal", "low", "medium", "high", "max"]),
    model=st.sampled_from(
        ["gemini-2.5-flash", "gemini-2.5-pro", "gemini-3-pro-preview", "gemini-3-flash-preview"]
    ),
)
def test_a_body_is_what_the_sdk_takes_for_one(
    messages: tuple[Message, ...], choice: Any, effort: Any, model: str
) -> None:
    chat = ChatRequest(
        "openai", None, messages, tools=TOOLS, tool_choice=choice, reasoning=Reasoning(effort),
        sampling=Sampling(9, 0.5, 0.9, ("x",), 1, 0.1, 0.2, 4),
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    )  # fmt: skip
    body = msgspec.json.decode(
        Gemini(safety_settings={"HARM_CATEGORY_HARASSMENT": "OFF"}).request(chat, model).body
    )
    contents = [types.Content.model_validate(content) for content in body.pop("contents")]
    types.Content.model_validate(body.pop("systemInstruction"))
    tools = [types.Tool.model_validate(tool) for tool in body.pop("tools")]
    config = types.GenerationConfig.model_validate(body.pop("generationConfig"))
    if choice is not None:
        assert (
            types.ToolConfig.model_validate(body.pop("toolConfig")).function_calling_config.mode is not None
        )
    types.SafetySetting.model_validate(body.pop("safetySettings")[0])
    assert body == {}
    assert [tool.name for tool in tools[0].function_declarations] == ["f", "g"]
    assert (config.max_output_tokens, config.top_k, config.stop_sequences) == (9, 4, ["x"])
    made = [call for message in messages for call in message.tool_calls]
    sent = [part.function_call for content in contents for part in content.parts if part.function_call]
    assert [(call.name, call.args) for call in sent] == [
        (call.name, json.loads(call.arguments)) for call in made
    ]
    results = [
        part.function_response.name
        for content in contents
        for part in content.parts
        if part.function_response
    ]
    assert results == [call.name for call in made]  # in the order of the calls
