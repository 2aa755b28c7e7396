"""What Gemini's clients send, and what is made of it."""

import json
from typing import Any

import pytest

from sluice.errors import BadRequest
from sluice.frontends import Head
from sluice.frontends.gemini.operations import ONE, count, embed, embed_all
from sluice.frontends.gemini.request import LIST, SILENT, streamed, whole
from sluice.frontends.gemini.schema import json_schema
from sluice.frontends.gemini.seals import signature_of
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
from sluice.model.events import ReasoningBlock

USER = {"role": "user", "parts": [{"text": "Hi"}]}
PNG = "iVBORw0KGgo="
HEAD = Head(parameters={"model": "a/b"})


def chat(**fields: Any) -> ChatRequest:
    return whole(json.dumps({"contents": [USER], **fields}).encode(), HEAD)


def config(**fields: Any) -> ChatRequest:
    return chat(generationConfig=fields)


def test_the_path_says_model_and_stream() -> None:
    assert (chat().model, chat().stream, chat().messages) == ("a/b", False, (Message("user", (Text("Hi"),)),))
    body = json.dumps({"contents": [USER]}).encode()
    found = streamed(body, Head(query={"alt": "sse"}, parameters={"model": "m"}))
    assert (found.stream, found.profile) == (True, "")
    assert streamed(body, HEAD).profile == LIST
    hidden = json.dumps(
        {"contents": [USER], "generationConfig": {"thinkingConfig": {"includeThoughts": False}}}
    ).encode()
    assert (whole(hidden, HEAD).profile, streamed(hidden, HEAD).profile) == (SILENT, SILENT + LIST)


@pytest.mark.parametrize("body", [
    {"contents": {"parts": {"text": "Hi"}}},
    {"contents": [{"role": "user", "parts": {"text": "Hi"}}], "system_instruction": None},
    {"contents": [{"parts": [{"text": "Hi"}, {"text": ""}]}], "safetySettings": [{"category": "X"}], "labels": {"a_b": "c"}},
])  # fmt: skip
def test_a_list_of_one_may_be_its_element(body: dict[str, Any]) -> None:
    assert whole(json.dumps(body).encode(), HEAD).messages == (Message("user", (Text("Hi"),)),)


def test_names_may_be_in_snake_case() -> None:
    found = chat(
        system_instruction={"parts": [{"text": "Be brief"}]},
        generation_config={
            "max_output_tokens": 5,
            "top_p": 0.5,
            "stop_sequences": "a",
            "thinking_config": {"thinking_budget": 9},
        },
        tools=[
            {
                "function_declarations": [
                    {"name": "f", "parameters": {"type": "OBJECT", "properties": {"a_b": {}}}}
                ]
            }
        ],
        tool_config={"function_calling_config": {"mode": "any"}},
    )
    assert found.messages[0] == Message("system", (Text("Be brief"),))
    assert found.sampling == Sampling(5, None, 0.5, ("a",))
    assert found.reasoning == Reasoning(budget=9)
    assert found.tools == (Tool("f", "", {"type": "object", "properties": {"a_b": {}}}),)
    assert found.tool_choice == "required"
    with pytest.raises(BadRequest, match="maxOutputTokens: must be given once"):
        config(maxOutputTokens=5, max_output_tokens=6)


SAMPLING: list[tuple[dict[str, Any], Sampling]] = [
    ({"temperature": 0, "topP": 1, "topK": 40.0, "seed": 7, "presencePenalty": 0.5, "frequencyPenalty": -0.5},
     Sampling(None, 0.0, 1.0, (), 7, -0.5, 0.5, 40)),
    ({"maxOutputTokens": 0, "topK": -1, "mediaResolution": "LOW", "speechConfig": {}}, Sampling()),
    ({"stopSequences": ["a", "b"], "maxOutputTokens": 12}, Sampling(12, stop=("a", "b"))),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "sampling"), SAMPLING)
def test_generation_config_is_sampling(fields: dict[str, Any], sampling: Sampling) -> None:
    assert config(**fields).sampling == sampling


THINKING: list[tuple[dict[str, Any] | None, Reasoning | None]] = [
    (None, None), ({}, None), ({"includeThoughts": True}, None), ({"thinkingBudget": -1, "includeThoughts": True}, None),
    ({"thinkingBudget": 0}, Reasoning("none")), ({"thinkingBudget": 1024}, Reasoning(budget=1024)),
    ({"thinkingLevel": "HIGH"}, Reasoning("high")), ({"thinkingLevel": "minimal", "thinkingBudget": 5}, Reasoning("minimal")),
    ({"thinkingLevel": "THINKING_LEVEL_UNSPECIFIED"}, None),
]  # fmt: skip


@pytest.mark.parametrize(("thinking", "reasoning"), THINKING)
def test_thinking_is_reasoning(thinking: dict[str, Any] | None, reasoning: Reasoning | None) -> None:
    assert config(thinkingConfig=thinking).reasoning == reasoning


def test_formats() -> None:
    schema = {
        "type": "OBJECT",
        "properties": {"a": {"type": "STRING", "nullable": True}},
        "propertyOrdering": ["a"],
    }
    plain = {"type": "object", "properties": {"a": {"type": ["string", "null"]}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": plain}}
    assert config(responseMimeType="application/json", responseSchema=schema).response_format == wanted
    assert config(responseMimeType="application/json", responseJsonSchema=plain).response_format == wanted
    assert config(responseMimeType="application/json", _responseJsonSchema=plain).response_format == wanted
    assert config(responseMimeType="application/json").response_format == {"type": "json_object"}
    assert config(responseMimeType="text/plain").response_format is None


SCHEMAS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "INTEGER", "format": "int32", "minimum": 1, "example": 2}, {"type": "integer", "format": "int32", "minimum": 1}),
    ({"type": "STRING", "format": "enum", "enum": ["a"], "nullable": True}, {"type": ["string", "null"], "enum": ["a", None]}),
    ({"type": "ARRAY", "items": {"type": "NUMBER"}, "minItems": "2", "max_items": 3},
     {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}),
    ({"any_of": [{"type": "STRING"}, {"type": "BOOLEAN"}], "nullable": True},
     {"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]}),
    ({"type": "OBJECT", "properties": {"type": {"type": "STRING"}, "nullable": {"type": "STRING"}}, "required": ["type"]},
     {"type": "object", "properties": {"type": {"type": "string"}, "nullable": {"type": "string"}}, "required": ["type"]}),
    ({"type": "TYPE_UNSPECIFIED", "description": "d"}, {"description": "d"}),
    ({"ref": "#/$defs/x", "defs": {"x": {"type": "NULL", "nullable": True}}},
     {"$ref": "#/$defs/x", "$defs": {"x": {"type": "null"}}}),
    ({"type": ["string", "null"], "additionalProperties": False, "const": 1}, {"type": ["string", "null"],
     "additionalProperties": False, "const": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "schema"), SCHEMAS)
def test_a_schema_of_googles_is_a_json_schema(given: dict[str, Any], schema: dict[str, Any]) -> None:
    assert json_schema(given) == schema
    assert json_schema(schema) == schema


def parts(*found: dict[str, Any]) -> ChatRequest:
    return chat(contents=[{"role": "user", "parts": list(found)}])


PARTS: list[tuple[dict[str, Any], Any]] = [
    ({"inlineData": {"mimeType": "image/PNG", "data": PNG}}, Image(f"data:image/png;base64,{PNG}")),
    ({"inline_data": {"mime_type": "audio/mpeg", "data": "AAAA"}},
     Other("input_audio", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}})),
    ({"inlineData": {"mimeType": "application/pdf", "data": "AA-_", "displayName": "a.pdf"}},
     Other("file", {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA+/", "filename": "a.pdf"}})),
    ({"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}},
     Other("video_url", {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}})),
    ({"fileData": {"fileUri": "gs://b/x.png", "mimeType": "image/png"}}, Image("gs://b/x.png")),
    ({"fileData": {"fileUri": "https://x/y", "mimeType": "video/mp4"}},
     Other("video_url", {"type": "video_url", "video_url": {"url": "https://x/y"}})),
    ({"fileData": {"fileUri": "https://x/y.pdf"}}, Other("file", {"type": "file", "file": {"file_data": "https://x/y.pdf"}})),
    ({"executableCode": {"language": "PYTHON", "code": "1+1"}}, Text("```python\n1+1\n```")),
    ({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}}, Text("```\n2\n```")),
]  # fmt: skip


@pytest.mark.parametrize(("given", "content"), PARTS)
def test_parts_of_every_kind(given: dict[str, Any], content: Any) -> None:
    assert parts({"text": "see"}, given).messages == (Message("user", (Text("see"), content)),)


def test_a_tool_loop_with_signatures() -> None:
    contents = [
        USER,
        {"role": "model", "parts": [
            {"text": "hm", "thought": True},
            {"text": "Let me see", "thoughtSignature": "R29vZ2xl"},
            {"functionCall": {"name": "f", "args": {"a": "ü"}}, "thoughtSignature": "c2ln"},
            {"functionCall": {"id": "own", "name": "f", "args": {}}},
            {"functionCall": {"name": "g"}},
        ]},
        {"role": "user", "parts": [
            {"text": "and this"},
            {"functionResponse": {"name": "f", "response": {"output": "first"}}},
            {"functionResponse": {"name": "g", "response": {"error": "gone"}}},
            {"functionResponse": {"id": "own", "name": "f", "response": {"n": 1},
                                  "parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}},
        ]},
    ]  # fmt: skip
    calls = (
        ToolCall("call_1_0", "f", '{"a":"ü"}', "c2ln"),
        ToolCall("own", "f", "{}"),
        ToolCall("call_1_2", "g", "{}"),
    )
    assert chat(contents=contents).messages == (
        Message("user", (Text("Hi"),)),
        Message(
            "assistant",
            (Text("Let me see"),),
            calls,
            thoughts=(Thought("hm"), Thought(signature="gemini:R29vZ2xl")),
        ),
        Message("tool", (Text("first"),), tool_call_id="call_1_0"),
        Message("tool", (Text("gone"),), tool_call_id="call_1_2", failed=True),
        Message("tool", (Text('{"n":1}'), Image(f"data:image/png;base64,{PNG}")), tool_call_id="own"),
        Message("user", (Text("and this"),)),
    )


@pytest.mark.parametrize("block", [ReasoningBlock(0, "hm ü", "c2ln+/=="), ReasoningBlock(1, redacted="secret"),
                                   ReasoningBlock(0, "", "openai:rs_1:xyz")])  # fmt: skip
@pytest.mark.parametrize("url_safe", [False, True])
def test_another_vendors_seal_comes_back_as_it_was(block: ReasoningBlock, url_safe: bool) -> None:
    signature = signature_of(block)
    signature = signature.replace("+", "-").replace("/", "_") if url_safe else signature
    given = [
        {"text": "hm", "thought": True},
        {"text": "", "thoughtSignature": signature},
        {"functionCall": {"name": "f"}},
    ]
    [_, message] = chat(contents=[USER, {"role": "model", "parts": given}]).messages
    assert message.thoughts == (Thought(block.text, block.signature, block.redacted),)


def test_googles_own_seal_is_passed_on() -> None:
    assert signature_of(ReasoningBlock(0, "hm", "gemini:c2ln")) == "c2ln"


DECLARED = [
    {
        "functionDeclarations": [
            {"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}},
            {"name": "g"},
        ]
    }
]
CHOICES: list[tuple[dict[str, Any], Any, list[str]]] = [
    ({"mode": "AUTO"}, "auto", ["f", "g"]), ({"mode": "NONE"}, "none", ["f", "g"]), ({"mode": "ANY"}, "required", ["f", "g"]),
    ({"mode": "ANY", "allowedFunctionNames": ["g"]}, ("function", "g"), ["g"]),
    ({"mode": "ANY", "allowedFunctionNames": ["g", "f"]}, "required", ["f", "g"]),
    ({"mode": "VALIDATED", "allowedFunctionNames": ["f"]}, "auto", ["f"]), ({}, None, ["f", "g"]),
]  # fmt: skip


@pytest.mark.parametrize(("calling", "choice", "names"), CHOICES)
def test_what_the_model_may_call(calling: dict[str, Any], choice: Any, names: list[str]) -> None:
    found = chat(tools=DECLARED, toolConfig={"functionCallingConfig": calling})
    assert (found.tool_choice, [tool.name for tool in found.tools]) == (choice, names)


ONLY: list[tuple[dict[str, Any], str]] = [
    ({"tools": [*DECLARED, {"googleSearch": {}}]}, "tools[1]: the tool googleSearch"),
    ({"tools": [{"code_execution": {}}]}, "tools[0]: the tool codeExecution"),
    ({"tools": {"urlContext": {}}}, "tools[0]: the tool urlContext"),
    ({"cachedContent": "cachedContents/1"}, "cachedContent: content that is cached at Google"),
    ({"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
     "generationConfig.responseModalities: an answer in image"),
    ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType: an answer of this type"),
    ({"tools": DECLARED, "generationConfig": {"responseModalities": ["TEXT"]}}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "reason"), ONLY)
def test_what_only_gemini_can_do_is_named(fields: dict[str, Any], reason: str) -> None:
    assert chat(**fields).dialect_only == reason


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"contents": []}, "contents"), ({"contents": None}, "contents"), ({"contents": [{"role": "nobody"}]}, "contents[0].role"),
    ({"contents": [1]}, "contents[0]"), ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
    ({"generationConfig": {"candidateCount": 0}}, "generationConfig.candidateCount"),
    ({"generationConfig": {"candidateCount": 1.5}}, "generationConfig.candidateCount"),
    ({"generationConfig": {"maxOutputTokens": 1e300}}, "generationConfig.maxOutputTokens"),
    ({"tools": [{"functionDeclarations": [{"name": ""}]}]}, "tools[0].functionDeclarations[0].name"),
    ({"tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
    ({"contents": [{"role": "model", "parts": [{"functionCall": {"name": ""}}]}]}, "contents[0].parts.functionCall.name"),
    ({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "!"}}]}]}, "contents[0].parts[0].inlineData"),
    ({"contents": [{"parts": [{"fileData": {"fileUri": ""}}]}]}, "contents[0].parts[0].fileData.fileUri"),
    ({"tools": DECLARED, "toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}, "toolConfig.functionCallingConfig.mode"),
    ({"tools": DECLARED, "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["x"]}}},
     "toolConfig.functionCallingConfig.allowedFunctionNames"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), WRONG)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        chat(**fields)
    assert refused.value.param == param
    assert "hot" not in refused.value.message


def test_candidates() -> None:
    assert (config(candidateCount=2.0).n, chat().n) == (2, 1)


# --- operations


@pytest.mark.parametrize("wrap", [False, True])
def test_tokens_are_counted_about(wrap: bool) -> None:
    body: dict[str, Any] = {"contents": [{"parts": [{"text": "x" * 40}]}]}
    body = {"generateContentRequest": {"model": "models/m", **body}} if wrap else body
    found = count(json.dumps(body).encode(), HEAD)
    assert (found.operation, found.tokens, found.longest) == ("count_tokens", 0, 10)
    assert json.loads(found.otherwise)["totalTokens"] == 10


def test_inputs_are_openais() -> None:
    one = {
        "content": {"parts": [{"text": "aaaa"}, {"text": "bbbb"}]},
        "taskType": "X",
        "output_dimensionality": 5,
    }
    found = embed(json.dumps({"model": "models/x", **one}).encode(), HEAD)
    assert (found.wire, found.dialect, found.profile) == (
        {"model": "a/b", "input": ["aaaabbbb"], "dimensions": 5},
        "openai",
        ONE,
    )
    found = embed_all(json.dumps({"requests": [one, {"content": {"parts": [{"text": "c"}]}}]}).encode(), HEAD)
    assert (found.wire, found.profile) == ({"model": "a/b", "input": ["aaaabbbb", "c"], "dimensions": 5}, "")


@pytest.mark.parametrize("body", [
    {}, {"requests": []}, {"requests": [{}]}, {"requests": [{"content": {"parts": []}}]},
    {"requests": [{"content": {"parts": [{"inlineData": {"data": "AAAA"}}]}}]},
    {"requests": [{"content": {"parts": [{"text": "a"}]}}] * 101},
    {"requests": [{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": n} for n in (1, 2)]},
])  # fmt: skip
def test_what_cannot_be_embedded_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        embed_all(json.dumps(body).encode(), HEAD)
