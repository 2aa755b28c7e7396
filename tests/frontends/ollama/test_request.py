"""What Ollama's clients send, and what is made of it."""

import json
from typing import Any

import msgspec
import pytest

from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.ollama.embeddings import ONE, embed, embeddings
from sluice.frontends.ollama.errors import ModelLoaded
from sluice.frontends.ollama.request import GENERATE, chat_of, generate_of
from sluice.model.chat import (
    ChatRequest,
    Image,
    Message,
    Reasoning,
    Sampling,
    Text,
    Thought,
    Tool,
    ToolCall,
    with_system,
)
from sluice_plugins.ollama.backend import Ollama

USER = {"role": "user", "content": "Hi"}
PNG = "iVBORw0KGgo="


def chat(**fields: Any) -> ChatRequest:
    return chat_of(json.dumps({"model": "m", "messages": [USER], **fields}).encode(), Head())


def generated(**fields: Any) -> ChatRequest:
    return generate_of(json.dumps({"model": "m", "prompt": "Hi", **fields}).encode(), Head())


def test_a_chat_is_streamed_unless_it_says_otherwise() -> None:
    assert (chat().model, chat().stream, chat().messages) == ("m", True, (Message("user", (Text("Hi"),)),))
    assert (chat(stream=False).stream, chat(stream=None).stream) == (False, True)
    assert chat(model=None).model is None


OPTIONS: list[tuple[dict[str, Any], Sampling]] = [
    ({}, Sampling()),
    ({"num_predict": 7, "temperature": 0, "top_k": 4, "top_p": 0.5, "seed": 3.0, "stop": "a"},
     Sampling(7, 0.0, 0.5, ("a",), 3, top_k=4)),
    ({"num_predict": -1, "top_k": 0, "stop": ["a", "b"]}, Sampling(stop=("a", "b"))),
    ({"num_predict": -2, "frequency_penalty": 1, "presence_penalty": -1.5},
     Sampling(frequency_penalty=1.0, presence_penalty=-1.5)),
    ({"num_gpu": 99, "nonsense": {"a": 1}, "num_ctx": 4096, "temperature": None}, Sampling()),
]  # fmt: skip


@pytest.mark.parametrize(("options", "sampling"), OPTIONS)
def test_options_have_names_of_the_vocabulary(options: dict[str, Any], sampling: Sampling) -> None:
    assert chat(options=options).sampling == sampling
    assert generated(options=options).sampling == sampling


THOUGHT: list[tuple[Any, Reasoning | None]] = [
    (None, None), (True, Reasoning("medium")), (False, Reasoning("none")), ("low", Reasoning("low")),
    ("high", Reasoning("high")), ("max", Reasoning("max")), ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("think", "reasoning"), THOUGHT)
def test_think_is_reasoning(think: Any, reasoning: Reasoning | None) -> None:
    assert chat(think=think).reasoning == reasoning


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def test_format_is_the_answers() -> None:
    assert chat(format="json").response_format == {"type": "json_object"}
    wanted = chat(format=SCHEMA).response_format
    assert wanted == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    assert chat(format="").response_format is chat(format=None).response_format is None


def test_tools_and_images_and_thinking() -> None:
    messages = [
        {"role": "SYSTEM", "content": "Be brief"},
        {**USER, "images": [PNG, "/9j/AAAA", f"data:image/webp;base64,{PNG}"]},
        {"role": "user", "content": "", "images": [PNG]},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [
            {"function": {"name": "f", "arguments": {"a": "ü"}}},
            {"id": "own", "function": {"index": 1, "name": "g", "arguments": {}}},
        ]},
        {"role": "tool", "content": "two", "tool_name": "g"},
        {"role": "tool", "content": "one"},
    ]  # fmt: skip
    found = chat(
        messages=messages, tools=[{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
    )
    image = Image(f"data:image/png;base64,{PNG}")
    assert found.tools == (Tool("f", "", SCHEMA),)
    assert found.messages == (
        Message("system", (Text("Be brief"),)),
        Message(
            "user",
            (
                Text("Hi"),
                image,
                Image("data:image/jpeg;base64,/9j/AAAA"),
                Image(f"data:image/webp;base64,{PNG}"),
            ),
        ),
        Message("user", (image,)),
        Message(
            "assistant",
            (),
            (ToolCall("call_3_0", "f", '{"a":"ü"}'), ToolCall("own", "g", "{}")),
            "",
            (Thought("hm"),),
        ),
        Message("tool", (Text("two"),), tool_call_id="own"),
        Message("tool", (Text("one"),), tool_call_id="call_3_0"),
    )


RESULTS: list[tuple[list[dict[str, Any]], list[str]]] = [
    ([{"tool_call_id": "b"}, {"tool_call_id": "a"}], ["b", "a"]),
    ([{}, {}], ["a", "b"]),
    ([{"name": "g"}, {"name": "f"}], ["b", "a"]),
    ([{"tool_name": "f"}, {"tool_name": "f"}], ["a", "f"]),
    ([{"tool_call_id": "other"}], ["other"]),
    ([{}, {}, {}], ["a", "b", "call"]),
]


@pytest.mark.parametrize(("results", "ids"), RESULTS)
def test_results_find_their_calls(results: list[dict[str, Any]], ids: list[str]) -> None:
    calls = [{"id": "a", "function": {"name": "f"}}, {"id": "b", "function": {"name": "g"}}]
    messages = [USER, {"role": "assistant", "tool_calls": calls}]
    found = chat(messages=messages + [{"role": "tool", "content": "x", **result} for result in results])
    assert [message.tool_call_id for message in found.messages[2:]] == ids


def test_a_prompt_is_a_chat_of_one_turn() -> None:
    found = generated(
        system="Be brief", images=[PNG], stream=False, context=[], suffix="", raw=False, keep_alive="5m"
    )
    assert found.messages == (
        Message("system", (Text("Be brief"),)),
        Message("user", (Text("Hi"), Image(f"data:image/png;base64,{PNG}"))),
    )
    assert (found.profile, found.stream) == (GENERATE, False)


@pytest.mark.parametrize("field", ["suffix", "template", "raw", "context"])
def test_what_only_a_template_could_do_is_ollamas_alone(field: str) -> None:
    value: Any = {"raw": True, "context": [1]}.get(field, "x")
    found = generated(**{field: value})
    assert found.dialect_only.partition(":")[0] == field
    assert msgspec.json.decode(Ollama().request(found, "x").body)[field] == value


def test_a_request_that_only_loads_a_model_needs_no_answer() -> None:
    with pytest.raises(ModelLoaded) as chatted:
        chat(messages=[])
    with pytest.raises(ModelLoaded) as loaded:
        generated(prompt="", keep_alive=0)
    assert chatted.value.fields["message"] == {"role": "assistant", "content": ""}
    assert loaded.value.fields == {"model": "m", "done": True, "done_reason": "unload", "response": ""}
    assert chatted.value.fields["done_reason"] == "load"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model"), ({"model": 1}, "model"), ({"messages": [1]}, "messages[0]"), ({"messages": {}}, "messages"),
    ({"messages": [{"role": "nobody"}]}, "messages[0].role"), ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{**USER, "images": ["!"]}]}, "messages[0].images[0]"), ({"options": {"stop": 1}}, "options.stop"),
    ({"options": {"temperature": "hot"}}, "options.temperature"), ({"options": {"seed": 0.5}}, "options.seed"),
    ({"options": {"num_predict": 1e300}}, "options.num_predict"), ({"think": "hard"}, "think"), ({"format": "xml"}, "format"),
    ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name"), ({"stream": "yes"}, "stream"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}]},
     "messages[0].tool_calls[0].function.name"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        chat(**fields)
    assert refused.value.param == param
    assert "hot" not in refused.value.message


# --- on to an upstream that is Ollama itself


def sent(backend: Ollama, **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(backend.request(chat(**fields), "x").body)
    return found


def test_what_only_ollama_knows_goes_on_to_ollama() -> None:
    backend = Ollama(model_options={"num_ctx": 1024, "min_p": 0.5, "temperature": 0.1})
    options = {"num_ctx": 4096, "repeat_penalty": 1.2, "num_predict": -2, "num_gpu": 9, "new_one": "x"}
    wanted = {
        "num_ctx": 4096,
        "min_p": 0.5,
        "temperature": 0.1,
        "repeat_penalty": 1.2,
        "num_predict": -2,
        "new_one": "x",
    }
    body = sent(backend, options=options, think=True, format=SCHEMA, keep_alive=0)
    assert body["options"] == wanted
    assert (body["think"], body["format"]) == (True, SCHEMA)
    assert "keep_alive" not in body
    assert sent(Ollama(), think="low")["think"] == "low"
    assert "think" not in sent(Ollama())
    assert "options" not in sent(Ollama())


def test_options_are_kept_where_the_request_is_written_anew() -> None:
    backend = Ollama(model_options={"num_ctx": 1024, "temperature": 0.1})
    options = {"repeat_penalty": 1.2, "num_predict": 5, "num_gpu": 9, "mirostat": "x"}
    body = msgspec.json.decode(
        backend.request(with_system(chat(options=options, think=True), "Be brief"), "x").body
    )
    assert body["options"] == {"num_ctx": 1024, "temperature": 0.1, "repeat_penalty": 1.2, "num_predict": 5}
    assert (body["think"], body["messages"][0]) == (True, {"role": "system", "content": "Be brief"})


# --- embeddings


def test_inputs_are_openais() -> None:
    found = embed(
        b'{"model":"e","input":["aaaa","bbbbbbbb"],"dimensions":5,"truncate":true,"keep_alive":"1m"}', Head()
    )
    assert (found.wire, found.dialect) == (
        {"model": "e", "input": ["aaaa", "bbbbbbbb"], "dimensions": 5},
        "openai",
    )
    assert (found.tokens, found.longest, found.profile) == (3, 2, "")
    assert embed(b'{"model":"e","input":"aaaa"}', Head()).wire == {"model": "e", "input": ["aaaa"]}
    one = embeddings(b'{"model":"e","prompt":"aaaa"}', Head())
    assert (one.wire, one.profile) == ({"model": "e", "input": ["aaaa"]}, ONE)


@pytest.mark.parametrize("body", [b"{}", b'{"input":[]}', b'{"input":[1]}', b'{"input":{}}'])
def test_what_is_no_input_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        embed(body, Head())


CALL = {"function": {"name": "f", "arguments": {"Name": 1, "name": 2}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"Name": 1, "name": 2}}}


@pytest.mark.parametrize(("fields", "param"), [
    ({"Model": "other"}, "model"), ({"Stream": False}, "stream"), ({"OPTIONS": {"num_gpu": 99}}, "options"),
    ({"Keep_Alive": -1}, "keep_alive"), ({"me\u017f\u017fages": []}, "messages"), ({"raw_x": 1, "Raw_X": 2}, "body"),
    ({"messages": [USER, {**USER, "Content": "other"}]}, "messages[1].content"),
    ({"messages": [{"role": "assistant", "tool_calls": [{**CALL, "Function": {}}]}]}, "messages[0].tool_calls[0].function"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "NAME": "g"}}]}]},
     "messages[0].tool_calls[0].function.name"),
    ({"tools": [{**TOOL, "FUNCTION": {}}]}, "tools[0].function"),
    ({"tools": [{"function": {"name": "f", "Description": "g"}}]}, "tools[0].function.description"),
])  # fmt: skip
def test_names_that_ollama_takes_for_others_are_refused(fields: Any, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        chat(**fields)
    assert refused.value.param == param


def test_names_within_options_arguments_and_schemas_may_be_any() -> None:
    called = [USER, {"role": "assistant", "tool_calls": [CALL]}]
    assert chat(messages=called, tools=[TOOL], options={"Num_GPU": 1, "num_gpu": 2}, Own=1).wire["Own"] == 1


@pytest.mark.parametrize("name", ["Model", "PROMPT", "Template", "Raw", "keep_Alive"])
def test_names_of_a_text_that_ollama_takes_for_others_are_refused(name: str) -> None:
    with pytest.raises(BadRequest) as refused:
        generated(**{name: "other"})
    assert refused.value.param == name.lower()
