"""What is sent to Cohere: each part of the vocabulary in its words, and all of it as its SDK takes it."""

import base64
import json
import random
from typing import Any

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
    Reasoning,
    Sampling,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from sluice.model.rules import rules_of
from sluice_plugins.cohere.backend import Cohere
from tests.plugins.credentials.oracle import ask

MODEL = "command-a-reasoning-08-2025"
HI = Message("user", (Text("Hi"),))
PNG = "data:image/png;base64,aGk="
TOOL = Tool("f", "Does it", {"type": "object", "properties": {"a": {"type": "integer"}}})
WIRE_TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "Does it", "parameters": dict(TOOL.parameters or {})},
}
NOTE = Other(
    "file", {"type": "file", "file": {"filename": "n.txt", "file_data": "data:text/plain;base64,aGk="}}
)


def body(
    *messages: Message, model: str = MODEL, options: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    backend = with_rules(
        Cohere(**(options or {})), rules_of(bundled_rules(), [], "cohere", "api.cohere.com", model)
    )
    request = backend.request(ChatRequest("openai", None, messages or (HI,), **fields), model)
    found: dict[str, Any] = json.loads(request.body)
    return found


def added(**fields: Any) -> dict[str, Any]:
    found = body(**fields)
    return {name: value for name, value in found.items() if name not in ("model", "messages", "stream")}


def test_the_address_is_taken_as_people_write_it() -> None:
    for base in ("https://e.com", "https://e.com/v2/", "https://e.com/v2/chat", "https://e.com/v1"):
        request = Cohere(base_url=base, headers={"X-Client-Name": "a"}).request(
            ChatRequest("openai", None, (HI,)), "m"
        )
        assert request.url == "https://e.com/v2/chat"
        assert ("x-client-name", "a") in request.headers
    assert Cohere(api_key=Secret("k")).credentials() == (("authorization", "Bearer k"),)
    assert Cohere().credentials() == ()


def test_a_conversation_has_one_system_message_at_its_beginning() -> None:
    found = body(
        HI, Message("system", (Text("a"),)), Message("assistant", (Text("Hello"),), thoughts=(Thought("Hm"),)),
        Message("user", (Text("Look "), Image(PNG, detail="low"), Image("https://e.com/a.png"))),
        Message("system", (Text("b"),)),
        Message("assistant", ()), Message("user", (Text("x"), Text("y"))),
    )  # fmt: skip
    assert found == {
        "model": MODEL,
        "stream": True,
        "messages": [
            {"role": "system", "content": "a\n\nb"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look "},
                    {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}},
                ],
            },
            {"role": "user", "content": "xy"},
        ],
    }


def test_calls_have_their_plan_and_results_are_documents_where_they_are_objects() -> None:
    calls = (ToolCall("t1", "f", '{"a": 1}'), ToolCall("t2", "g", ""))
    thoughts = (Thought("I will"), Thought("Anthropic's", "sig"))
    found = body(
        HI, Message("assistant", (), calls, thoughts=thoughts), Message("tool", (Text('{"b": 2}'),), tool_call_id="t1"),
        Message("tool", (Text("done"),), tool_call_id="t2"), tools=(TOOL,),
    )  # fmt: skip
    assert found["messages"][1:] == [
        {
            "role": "assistant",
            "tool_plan": "I will",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {
            "role": "tool",
            "tool_call_id": "t1",
            "content": [{"type": "document", "document": {"data": {"b": 2}}}],
        },
        {"role": "tool", "tool_call_id": "t2", "content": "done"},
    ]


def test_a_tool_that_failed_says_so_in_its_result() -> None:
    called = Message("assistant", (), (ToolCall("t", "f", "{}"), ToolCall("u", "f", "{}")))
    said = [
        Message("tool", (Text(text),), tool_call_id=id, failed=True)
        for id, text in (("t", '{"a": 1}'), ("u", "Error 5"))
    ]
    assert [turn["content"] for turn in body(HI, called, *said)["messages"][2:]] == [
        'Error: {"a": 1}',
        "Error 5",
    ]


def test_images_of_results_follow_them_in_a_users_message() -> None:
    called = Message("assistant", (), (ToolCall("t", "f", "{}"), ToolCall("u", "f", "{}")))
    results = [
        Message("tool", parts, tool_call_id=id)
        for id, parts in (("t", (Text("a"), Image(PNG))), ("u", (Image(PNG),)))
    ]
    image = {"type": "image_url", "image_url": {"url": PNG}}
    _, first, second, shown, hi = body(called, *results, HI)["messages"]
    assert (first["content"], second["content"]) == ("a", "(The content of this tool's result follows.)")
    assert shown == {
        "role": "user",
        "content": [{"type": "text", "text": "From the tools' results:"}, image, image],
    }
    assert hi == {"role": "user", "content": "Hi"}
    assert body(HI, called, *results)["messages"][-1] == shown


def test_files_of_text_are_documents() -> None:
    found = body(Message("user", (Text("Sum up"), NOTE)), options={"extra_body": {"documents": ["more"]}})
    assert found["messages"] == [{"role": "user", "content": "Sum up"}]
    assert found["documents"] == [{"id": "file:0", "data": {"title": "n.txt", "text": "hi"}}, "more"]


def file(data: Any) -> Other:
    return Other("file", {"type": "file", "file": {"file_data": data}})


@pytest.mark.parametrize(
    "messages",
    [
        (), (Message("system", (Text("a"),)),), (Message("system", (Image(PNG),)), HI), (Message("user", (file("aGk="),)),),
        (Message("user", (file("data:application/pdf;base64,aGk="),)),), (Message("user", (file(None),)),),
        (Message("user", (Other("input_audio", {}),)),), (Message("user", (Image("data:image/png,x"),)),),
        (HI, Message("assistant", (Image(PNG),))),
    ],
)  # fmt: skip
def test_what_cohere_has_no_word_for_is_refused(messages: tuple[Message, ...]) -> None:
    with pytest.raises(BadRequest):
        Cohere().request(ChatRequest("openai", None, messages), "m")


CHOICES: list[tuple[Any, dict[str, Any]]] = [
    (None, {}), ("auto", {}), ("none", {"tool_choice": "NONE"}), ("required", {"tool_choice": "REQUIRED"}),
    (("function", "f"), {"tool_choice": "REQUIRED"}),
]  # fmt: skip


@pytest.mark.parametrize(("choice", "wire"), CHOICES)
def test_the_choice_of_tools(choice: Any, wire: dict[str, Any]) -> None:
    found = added(tools=(TOOL, Tool("g")), tool_choice=choice)
    plain = {
        "type": "function",
        "function": {"name": "g", "parameters": {"type": "object", "properties": {}}},
    }
    assert found == {"tools": [WIRE_TOOL] if isinstance(choice, tuple) else [WIRE_TOOL, plain], **wire}
    assert added(tool_choice="required") == {}
    with pytest.raises(BadRequest):
        body(tools=(TOOL,), tool_choice=("function", "h"))


def test_tools_are_strict_where_all_say_so_or_the_configuration_does() -> None:
    strict = Tool("f", strict=True)
    assert added(tools=(strict,))["strict_tools"] is True
    assert "strict_tools" not in added(tools=(strict, TOOL))
    assert added(tools=(TOOL,), options={"strict_tools": True})["strict_tools"] is True
    assert added(tools=(strict,), options={"strict_tools": False})["strict_tools"] is False


def test_sampling_is_held_to_what_cohere_takes() -> None:
    assert added(sampling=Sampling(9, 1.7, 1.0, ("END",), 7, -0.5, 1.5, 900)) == {
        "max_tokens": 9, "temperature": 1, "p": 0.99, "k": 500, "seed": 7, "stop_sequences": ["END"], "frequency_penalty": 0,
        "presence_penalty": 1,
    }  # fmt: skip
    assert added(sampling=Sampling(None, 0, 0.5)) == {"temperature": 0, "p": 0.5}


@pytest.mark.parametrize(
    ("wish", "thinking"),
    [
        (Reasoning("none"), {"type": "disabled"}),
        (Reasoning(budget=0), {"type": "disabled"}),
        (Reasoning("low"), {"type": "enabled", "token_budget": 2048}),
        (Reasoning("high"), {"type": "enabled"}),
        (Reasoning(budget=500), {"type": "enabled", "token_budget": 500}),
        (Reasoning(), None),
    ],
)
def test_thinking_is_on_or_off_with_a_budget(wish: Reasoning, thinking: Any) -> None:
    assert added(reasoning=wish).get("thinking") == thinking
    assert "thinking" not in added(reasoning=wish, model="command-a-03-2025")


def test_formats_and_the_configurations_own() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert added(response_format=wanted) == {
        "response_format": {"type": "json_object", "json_schema": schema}
    }
    assert added(response_format={"type": "json_object"}) == {"response_format": {"type": "json_object"}}
    assert added(response_format={"type": "text"}) == {}
    options = {"citations": "fast", "safety_mode": "strict", "extra_body": {"priority": 2}}
    assert added(options=options) == {
        "citation_options": {"mode": "FAST"},
        "safety_mode": "STRICT",
        "priority": 2,
    }


SDK = """
import json, sys
import httpx
import cohere
from cohere.types import ChatMessages, ResponseFormatV2, Thinking, ToolV2, CitationOptions, Document
from pydantic import TypeAdapter

def unknown(value, place):
    if isinstance(value, list):
        return [w for n, v in enumerate(value) for w in unknown(v, f"{place}[{n}]")]
    if not hasattr(value, "model_extra"):
        return []
    extra = [f"{place}: unknown {sorted(value.model_extra)}"] if value.model_extra else []
    return extra + [w for n in type(value).model_fields for w in unknown(getattr(value, n), f"{place}.{n}")]

types = {"messages": ChatMessages, "tools": list[ToolV2], "response_format": ResponseFormatV2, "thinking": Thinking,
         "citation_options": CitationOptions}
sent = []
def take(request):
    sent.append([str(request.url), json.loads(request.content)])
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"data: [DONE]\\n\\n")
client = cohere.ClientV2("key", httpx_client=httpx.Client(transport=httpx.MockTransport(take)))
found = []
for body in json.load(sys.stdin):
    wrong = []
    for name, kind in types.items():
        if name in body:
            wrong += unknown(TypeAdapter(kind).validate_python(body[name]), name)
    sent.clear()
    fields = {name: value for name, value in body.items() if name != "stream"}
    list(client.chat_stream(**fields))
    url, theirs = sent[0]
    if url != "https://api.cohere.com/v2/chat": wrong.append(url)
    theirs = {name: value for name, value in theirs.items() if value is not None}
    if theirs != body: wrong.append("the SDK sends another body")
    found.append(wrong)
print(json.dumps(found))
"""


def some_chat(chance: random.Random) -> ChatRequest:
    messages = [Message("system", (Text("Be brief."),))] * chance.randint(0, 2)
    data = base64.b64encode(chance.randbytes(9)).decode()
    messages.append(
        Message(
            "user",
            (
                Text("Hi"),
                *chance.sample((Image(f"data:image/jpeg;base64,{data}"), NOTE), chance.randint(0, 2)),
            ),
        )
    )
    for turn in range(chance.randint(0, 3)):
        calls = tuple(
            ToolCall(f"c{turn}.{n}", "f", json.dumps({"a": n})) for n in range(chance.randint(0, 2))
        )
        thoughts = (Thought("I\u00e4"),) if chance.random() < 0.5 else ()
        messages.append(
            Message(
                "assistant",
                (Text("So"),) if chance.random() < 0.5 or not calls else (),
                calls,
                thoughts=thoughts,
            )
        )
        for call in calls:
            messages.append(
                Message("tool", (Text(chance.choice(["", "ok", '{"b": [1, null]}'])),), tool_call_id=call.id)
            )
        messages.append(Message("user", (Text("And?"),)))
    formats: list[Any] = [None, {"type": "json_object"},
                          {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}]  # fmt: skip
    return ChatRequest(
        "openai", None, tuple(messages), tools=(TOOL, Tool("g", strict=True)) if chance.random() < 0.6 else (),
        tool_choice=chance.choice([None, "none", "required", ("function", "f")]), response_format=chance.choice(formats),
        sampling=Sampling(chance.choice([None, 9]), chance.choice([None, 2.0]), 1.0, ("x",), 1, None, 0.5, 3),
        reasoning=chance.choice([None, Reasoning("none"), Reasoning("medium"), Reasoning("max")]),
    )  # fmt: skip


def test_coheres_sdk_takes_and_sends_the_same_for_odd_conversations() -> None:
    chance = random.Random(3)
    bodies = []
    for _ in range(150):
        backend = Cohere(
            citations=chance.choice([None, "accurate"]), safety_mode=chance.choice([None, "off"]),
            extra_body=chance.choice([{}, {"priority": 3}, {"documents": ["a"]}]),
        )  # fmt: skip
        bodies.append(json.loads(backend.request(some_chat(chance), MODEL).body))
    for sent, wrong in zip(bodies, ask("cohere", SDK, bodies), strict=True):
        assert wrong == [], sent
