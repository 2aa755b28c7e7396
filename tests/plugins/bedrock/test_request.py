"""What is sent to Converse: the request's URL, and each part of the vocabulary in its words."""

import json
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.config.types import Secret
from sluice.errors import BadRequest
from sluice.model.chat import (
    ChatRequest,
    Image,
    Message,
    Other,
    Part,
    Reasoning,
    Sampling,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from sluice.model.rules import rules_of
from sluice.wire.seals import BEDROCKS
from sluice_plugins.bedrock.backend import Bedrock, Guardrail

CLAUDE = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-2-lite-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
HI = Message("user", (Text("Hi"),))
PNG = "data:image/png;base64,aGk="
MARK = {"type": "ephemeral", "ttl": "1h"}
CALLING = Message("assistant", (), (ToolCall("t1", "f", '{"a":1}'),))
RESULT = Message("tool", (Text("ok"),), tool_call_id="t1")
TOOL = Tool("f", "Does it", {"type": "object", "properties": {"a": {"type": "integer"}}})


def body(
    *messages: Message, model: str = CLAUDE, options: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    backend = with_rules(
        Bedrock(region="eu-central-1", **(options or {})),
        rules_of(bundled_rules(), [], "bedrock", "h", model),
    )
    request = backend.request(ChatRequest("openai", None, messages or (HI,), **fields), model)
    found: dict[str, Any] = json.loads(request.body)
    return found


def turns(*messages: Message, model: str = CLAUDE, **fields: Any) -> Any:
    return body(*messages, model=model, **fields)["messages"]


URLS = [
    (CLAUDE, "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"),
    ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1%3A0"),
    (
        "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3",
        "arn%3Aaws%3Abedrock%3Aeu-central-1%3A123456789012%3Aapplication-inference-profile%2Fa1b2c3",
    ),
    ("a b/../c?d#e%", "a%20b%2F..%2Fc%3Fd%23e%25"),
]


@pytest.mark.parametrize(("model", "quoted"), URLS)
def test_the_models_name_is_one_segment_of_the_url(model: str, quoted: str) -> None:
    request = Bedrock(region="eu-central-1").request(ChatRequest("openai", None, (HI,)), model)
    assert request.url == f"https://bedrock-runtime.eu-central-1.amazonaws.com/model/{quoted}/converse-stream"
    assert dict(request.headers) == {
        "accept": "application/vnd.amazon.eventstream", "content-type": "application/json",
    }  # fmt: skip


def test_a_region_or_an_address_says_where() -> None:
    assert Bedrock(region="cn-north-1").base_url == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    assert Bedrock(region="us-gov-west-1").base_url == "https://bedrock-runtime.us-gov-west-1.amazonaws.com"
    own = Bedrock(base_url="https://vpce-1.example.com/x/?a=b", region="eu-west-1", headers={"X-A": "b"})
    request = own.request(ChatRequest("openai", None, (HI,)), "m")
    assert request.url == "https://vpce-1.example.com/x/model/m/converse-stream?a=b"
    assert ("x-a", "b") in request.headers
    for wrong in ("", "Frankfurt", "eu-central-1.evil.com/"):
        with pytest.raises(ValueError, match="region"):
            Bedrock(region=wrong)


def test_an_api_key_is_a_bearer_token() -> None:
    backend = Bedrock(region="eu-central-1", api_key=Secret("bedrock-api-key-x"))
    assert backend.credentials() == (("authorization", "Bearer bedrock-api-key-x"),)
    assert Bedrock(region="eu-central-1").credentials() == ()


def test_a_conversation_is_turns_of_two_roles_with_the_system_apart() -> None:
    found = body(
        Message("system", (Text("Be brief."),)), Message("assistant", (Text("Hello"),)), HI,
        Message("user", (Text(" "), Text("you"))),
        Message("system", (Text("Be kind."),)), Message("assistant", (Text("So "),)),
    )  # fmt: skip
    assert found == {
        "system": [{"text": "Be brief."}, {"text": "Be kind."}],
        "messages": [
            {"role": "user", "content": [{"text": "(The assistant begins this conversation.)"}]},
            {"role": "assistant", "content": [{"text": "Hello"}]},
            {"role": "user", "content": [{"text": "Hi"}, {"text": "you"}]},
            {"role": "assistant", "content": [{"text": "So"}]},
        ],
    }


def wire_file(data: str, name: str | None = None) -> Other:
    return Other("file", {"type": "file", "file": {"file_data": data} | ({"filename": name} if name else {})})


PARTS: list[tuple[Part, dict[str, Any]]] = [
    (Image(PNG), {"image": {"format": "png", "source": {"bytes": "aGk="}}}),
    (Image("data:image/JPG;charset=x;base64,aGk"), {"image": {"format": "jpeg", "source": {"bytes": "aGk="}}}),
    (Image("s3://bucket/a.webp"), {"image": {"format": "webp", "source": {"s3Location": {"uri": "s3://bucket/a.webp"}}}}),
    (wire_file("data:application/pdf;base64,aGk=", "My: report.v2.pdf"),
     {"document": {"format": "pdf", "name": "My report v2", "source": {"bytes": "aGk="}}}),
    (wire_file("aGk="), {"document": {"format": "pdf", "name": "document 1", "source": {"bytes": "aGk="}}}),
    (wire_file("aGk=", "a.CSV"), {"document": {"format": "csv", "name": "a", "source": {"bytes": "aGk="}}}),
    (wire_file("data:text/x-python;base64,aGk="),
     {"document": {"format": "txt", "name": "document 1", "source": {"bytes": "aGk="}}}),
    (wire_file("data:image/gif;base64,aGk="), {"image": {"format": "gif", "source": {"bytes": "aGk="}}}),
    (wire_file("s3://bucket/a.docx", "b.docx"),
     {"document": {"format": "docx", "name": "b", "source": {"s3Location": {"uri": "s3://bucket/a.docx"}}}}),
    (Other("input_audio", {"type": "input_audio", "input_audio": {"data": "aGk", "format": "wav"}}),
     {"audio": {"format": "wav", "source": {"bytes": "aGk="}}}),
    (Other("video_url", {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,aGk="}}),
     {"video": {"format": "mp4", "source": {"bytes": "aGk="}}}),
    (Other("video_url", {"type": "video_url", "video_url": {"url": "s3://bucket/a.mkv"}}),
     {"video": {"format": "mkv", "source": {"s3Location": {"uri": "s3://bucket/a.mkv"}}}}),
]  # fmt: skip


@pytest.mark.parametrize(("part", "block"), PARTS)
def test_content_is_sent_with_its_bytes_or_from_s3(part: Part, block: dict[str, Any]) -> None:
    assert turns(Message("user", (Text("Look"), part))) == [
        {"role": "user", "content": [{"text": "Look"}, block]}
    ]


REFUSED = [
    Image("https://e.com/a.png"), Image("data:image/tiff;base64,aGk="), Image("data:image/png,x"), Image("s3://bucket/a"),
    wire_file("https://e.com/a.pdf"), wire_file("data:application/zip;base64,aGk="), wire_file("\u00e4"),
    Other("file", {"type": "file", "file": {"file_id": "file-1"}}), Other("new", {"type": "new"}),
    Other("input_audio", {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "midi"}}),
    Other("video_url", {"type": "video_url", "video_url": {"url": "https://e.com/a.mp4"}}),
]  # fmt: skip


@pytest.mark.parametrize("part", REFUSED)
def test_what_cannot_be_sent_is_refused(part: Part) -> None:
    with pytest.raises(BadRequest):
        body(Message("user", (part,)))


@pytest.mark.parametrize(
    "messages",
    [
        (),
        (Message("system", (Text("x"),)),),
        (Message("user", (Text(" "),)),),
        (Message("system", (Image(PNG),)), HI),
    ],
)
def test_conversations_of_nothing_are_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(BadRequest):
        Bedrock(region="eu-central-1").request(ChatRequest("openai", None, messages), "m")


def test_documents_have_names_of_their_own_and_a_text_beside_them() -> None:
    file = wire_file("aGk=", "a.pdf")
    [turn] = turns(Message("user", (file, file)))
    assert [block.get("document", {}).get("name", block.get("text")) for block in turn["content"]] == [
        "a", "a 2", "(See the attached document.)",
    ]  # fmt: skip


def test_results_follow_their_calls_in_one_turn() -> None:
    messages = (
        HI,
        Message(
            "assistant",
            (Text("Well"),),
            (ToolCall("t1", "f", '{"a":1}'), ToolCall("functions.g:0", "g", ""), ToolCall("t2", "f", "")),
        ),
        Message("tool", (Text('{"b": 2.50}'),), tool_call_id="functions.g:0"),
        Message("tool", (Text("no file"), Image(PNG)), tool_call_id="t1", failed=True),
        Message("tool", (Text(""),), tool_call_id="t2"),
        Message("user", (Text("Go on"),)),
    )
    found = body(*messages, tools=(TOOL,))
    fitted = found["messages"][1]["content"][2]["toolUse"]["toolUseId"]
    assert found["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"text": "Well"},
                {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}},
                {"toolUse": {"toolUseId": fitted, "name": "g", "input": {}}},
                {"toolUse": {"toolUseId": "t2", "name": "f", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": fitted, "content": [{"json": {"b": 2.5}}]}},
                {
                    "toolResult": {
                        "toolUseId": "t1",
                        "content": [
                            {"text": "no file"},
                            {"image": {"format": "png", "source": {"bytes": "aGk="}}},
                        ],
                        "status": "error",
                    }
                },
                {"toolResult": {"toolUseId": "t2", "content": [{"text": "(no output)"}]}},
                {"text": "Go on"},
            ],
        },
    ]
    assert ":" not in fitted


def test_mistrals_models_get_ids_of_nine_characters() -> None:
    found = turns(HI, CALLING, RESULT, model="mistral.mistral-large-2407-v1:0")
    [fitted] = {
        found[1]["content"][0]["toolUse"]["toolUseId"],
        found[2]["content"][0]["toolResult"]["toolUseId"],
    }
    assert len(fitted) == 9


def test_sealed_thoughts_come_back_first_and_others_stay_away() -> None:
    thoughts = (
        Thought("a", "sig"), Thought(redacted="Ekg="), Thought(redacted=BEDROCKS + "/w=="), Thought("another's"),
        Thought(signature="gemini:x"), Thought(signature="openai:x:y"),
    )  # fmt: skip
    said = Message("assistant", (Text("Well"),), thoughts=thoughts)
    assert turns(HI, said, HI)[1]["content"] == [
        {"reasoningContent": {"reasoningText": {"text": "a", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": "RWtnPQ=="}},
        {"reasoningContent": {"redactedContent": "/w=="}},
        {"text": "Well"},
    ]


def test_cache_markers_become_cache_points_where_models_have_them() -> None:
    messages = (
        Message("system", (Text("Long", MARK),)),
        Message("user", (Text("a", {"type": "ephemeral"}), Image(PNG, MARK))),
        CALLING,
        Message("tool", (Text("r", MARK),), tool_call_id="t1"),
    )
    tools = (msgspec.structs.replace(TOOL, cache=MARK),)
    point, plain = {"cachePoint": {"type": "default", "ttl": "1h"}}, {"cachePoint": {"type": "default"}}
    found = body(*messages, tools=tools, cache={"type": "ephemeral"})
    assert found["system"] == [{"text": "Long"}, point]
    assert found["messages"][0]["content"][1::2] == [plain, point]
    assert found["messages"][2]["content"][1:] == [point]
    assert found["toolConfig"]["tools"][1:] == [point]
    assert body(cache=MARK)["messages"][0]["content"][1:] == [point]
    assert "cachePoint" not in json.dumps(body(*messages, tools=tools, cache=MARK, model=LLAMA))


CHOICES: list[tuple[Any, bool | None, Any, Any]] = [
    (None, None, None, None),
    (None, True, None, None),
    ("auto", None, {"auto": {}}, None),
    ("required", None, {"any": {}}, None),
    (("function", "f"), None, {"tool": {"name": "f"}}, None),
    ("none", None, None, {"type": "none"}),
    (None, False, None, {"type": "auto", "disable_parallel_tool_use": True}),
    ("required", False, None, {"type": "any", "disable_parallel_tool_use": True}),
    (("function", "f"), False, None, {"type": "tool", "name": "f", "disable_parallel_tool_use": True}),
]


@pytest.mark.parametrize(("choice", "parallel", "converse", "own"), CHOICES)
def test_the_choice_of_tools_is_converses_or_claudes_own(
    choice: Any, parallel: Any, converse: Any, own: Any
) -> None:
    found = body(tools=(TOOL, Tool("g")), tool_choice=choice, parallel_tool_calls=parallel)
    assert found["toolConfig"].get("toolChoice") == converse
    assert found.get("additionalModelRequestFields", {}).get("tool_choice") == own
    assert [tool["toolSpec"] for tool in found["toolConfig"]["tools"]] == [
        {"name": "f", "description": "Does it", "inputSchema": {"json": dict(TOOL.parameters or {})}},
        {"name": "g", "inputSchema": {"json": {"type": "object", "properties": {}}}},
    ]
    plain = body(tools=(TOOL,), tool_choice=choice, parallel_tool_calls=parallel, model=LLAMA)
    assert "additionalModelRequestFields" not in plain
    assert plain.get("toolConfig", {}).get("toolChoice") == (
        converse if own is None else (_plain_choice(choice))
    )
    assert ("toolConfig" in plain) == (choice != "none")


def _plain_choice(choice: Any) -> Any:
    return (
        {"required": {"any": {}}}.get(choice)
        if not isinstance(choice, tuple)
        else {"tool": {"name": choice[1]}}
    )


def test_a_history_of_calls_declares_them_where_the_request_has_no_tools() -> None:
    for fields in ({}, {"tools": (TOOL,), "tool_choice": "none"}):
        found = body(HI, CALLING, RESULT, model=LLAMA, **fields)
        assert [tool["toolSpec"]["name"] for tool in found["toolConfig"]["tools"]] == ["f"]
        assert "toolChoice" not in found["toolConfig"]


FULL = Sampling(9000, 1.7, 0.5, ("\n", "END"), 7, 0.1, 0.2, 5)


def test_sampling_is_inference_config_and_what_is_more_each_familys_own() -> None:
    found = body(sampling=FULL, model="anthropic.claude-3-7-sonnet-20250219-v1:0")
    assert found["inferenceConfig"] == {
        "maxTokens": 9000,
        "temperature": 1.0,
        "topP": 0.5,
        "stopSequences": ["END"],
    }
    assert found["additionalModelRequestFields"] == {"top_k": 5}
    assert found["additionalModelResponseFieldPaths"] == ["/delta/stop_sequence"]
    assert body(sampling=FULL, model=NOVA)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}
    assert body(sampling=FULL, model="cohere.command-r-v1:0")["additionalModelRequestFields"] == {"k": 5}
    assert body(sampling=FULL, model="mistral.mistral-7b")["additionalModelRequestFields"] == {"top_k": 5}
    assert body() == {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}


THINKING: list[tuple[str, Reasoning, int | None, Any, Any]] = [
    (CLAUDE, Reasoning("low"), None, {"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"maxTokens": 6144}),
    (CLAUDE, Reasoning("high"), 4000, {"thinking": {"type": "enabled", "budget_tokens": 3200}}, {"maxTokens": 4000}),
    (CLAUDE, Reasoning(budget=5000), 9000, {"thinking": {"type": "enabled", "budget_tokens": 5000}}, {"maxTokens": 9000}),
    (CLAUDE, Reasoning("none"), None, None, None),
    ("global.anthropic.claude-opus-4-6-v1", Reasoning("high"), None,
     {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}, None),
    ("anthropic.claude-3-5-haiku-20241022-v1:0", Reasoning("high"), None, None, None),
    (NOVA, Reasoning("none"), 500, {"reasoningConfig": {"type": "disabled"}}, {"maxTokens": 500}),
    (NOVA, Reasoning("minimal"), 5, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}, {"maxTokens": 5}),
    (NOVA, Reasoning(budget=9000), 500, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}, None),
    (NOVA, Reasoning(budget=0), None, {"reasoningConfig": {"type": "disabled"}}, None),
    ("amazon.nova-pro-v1:0", Reasoning("high"), 500, None, {"maxTokens": 500}),
    ("openai.gpt-oss-120b-1:0", Reasoning("max"), None, {"reasoning_effort": "high"}, None),
    ("openai.gpt-oss-120b-1:0", Reasoning("none"), None, {"reasoning_effort": "low"}, None),
    ("us.openai.gpt-5.2", Reasoning("medium"), None, {"reasoning": {"effort": "medium"}}, None),
    (LLAMA, Reasoning("high"), None, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("model", "wish", "limit", "additional", "inference"), THINKING)
def test_each_family_thinks_in_its_own_words(
    model: str, wish: Reasoning, limit: Any, additional: Any, inference: Any
) -> None:
    found = body(model=model, reasoning=wish, sampling=Sampling(limit))
    assert found.get("additionalModelRequestFields") == additional
    assert found.get("inferenceConfig") == inference


def test_claude_thinks_without_what_thinking_forbids() -> None:
    old = "anthropic.claude-3-7-sonnet-20250219-v1:0"
    found = body(sampling=FULL, reasoning=Reasoning("low"), model=old)
    assert found["inferenceConfig"] == {"maxTokens": 9000, "stopSequences": ["END"]}
    assert found["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 1800}}
    forced = body(reasoning=Reasoning("low"), tools=(TOOL,), tool_choice="required")
    assert "additionalModelRequestFields" not in forced
    unsigned = body(HI, CALLING, RESULT, reasoning=Reasoning("low"), tools=(TOOL,))
    assert "additionalModelRequestFields" not in unsigned
    signed = msgspec.structs.replace(CALLING, thoughts=(Thought("a", "sig"),))
    assert (
        "thinking"
        in body(HI, signed, RESULT, reasoning=Reasoning("low"), tools=(TOOL,))["additionalModelRequestFields"]
    )


def test_structured_output_is_a_schema_as_text_or_a_sentence() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
    found = body(
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "description": "d", "schema": schema},
        }
    )
    definition = found["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert found["outputConfig"]["textFormat"]["type"] == "json_schema"
    assert json.loads(definition.pop("schema")) == schema
    assert definition == {"name": "n", "description": "d"}
    assert "JSON object" in body(response_format={"type": "json_object"})["system"][0]["text"]
    assert body(response_format={"type": "text"}) == body()
    with pytest.raises(BadRequest):
        body(response_format={"type": "json_schema"})


def test_the_configuration_adds_guardrails_tiers_betas_and_fields() -> None:
    options = {
        "guardrail": Guardrail("g1", "3", "enabled", "async"), "latency": "optimized", "service_tier": "flex", "beta": ("b1",),
        "extra_body": {
            "requestMetadata": {"a": "b"},
            "additionalModelRequestFields": {"x": 1, "thinking": {"type": "enabled", "budget_tokens": 2000},
                                             "output_config": {"effort": "low"}},
        },
    }  # fmt: skip
    found = body(options=options, sampling=Sampling(5000))
    assert found.pop("messages")
    assert found == {
        "guardrailConfig": {
            "guardrailIdentifier": "g1", "guardrailVersion": "3", "trace": "enabled", "streamProcessingMode": "async",
        },
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "flex"},
        "requestMetadata": {"a": "b"},
        "inferenceConfig": {"maxTokens": 5000},
        "additionalModelRequestFields": {
            "x": 1, "thinking": {"type": "enabled", "budget_tokens": 2000}, "anthropic_beta": ["b1"],
            "output_config": {"effort": "low"},
        },
    }  # fmt: skip
    small = body(options=options, sampling=Sampling(900))["additionalModelRequestFields"]
    assert "thinking" not in small
    assert "anthropic_beta" not in json.dumps(body(options=options, model=LLAMA))
