"""botocore takes what we send for its own: every member, type, enumeration, pattern and bound of AWS's own
description of the service, the same URL, and the same body when it writes the request itself."""

import base64
import json
import random
from typing import Any

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
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
from sluice_plugins.bedrock.backend import Bedrock, Guardrail
from tests.plugins.credentials.oracle import ask

ORACLE = r"""
import base64, json, re, sys
from botocore.session import get_session
from botocore.serialize import create_serializer
from botocore.validate import validate_parameters

model = get_session().get_service_model("bedrock-runtime")
wrong = []

def walk(value, shape, place):
    meta = shape.metadata
    if shape.type_name == "structure":
        if getattr(shape, "is_document_type", False):
            return value
        if not isinstance(value, dict):
            wrong.append(f"{place}: no object"); return value
        unknown = value.keys() - shape.members.keys()
        if unknown: wrong.append(f"{place}: unknown {sorted(unknown)}")
        if getattr(shape, "is_tagged_union", False) and len(value) != 1: wrong.append(f"{place}: {len(value)} of a union")
        return {k: walk(v, shape.members[k], f"{place}.{k}") for k, v in value.items() if k in shape.members}
    if shape.type_name == "list":
        if not (meta.get("min", 0) <= len(value) <= meta.get("max", 10**9)): wrong.append(f"{place}: {len(value)} entries")
        return [walk(v, shape.member, f"{place}[{n}]") for n, v in enumerate(value)]
    if shape.type_name == "map":
        return {k: walk(v, shape.value, f"{place}.{k}") for k, v in value.items()}
    if shape.type_name == "blob":
        raw = base64.b64decode(value, validate=True)
        if len(raw) < meta.get("min", 0): wrong.append(f"{place}: empty")
        return raw
    if shape.type_name == "string":
        if getattr(shape, "enum", None) and value not in shape.enum: wrong.append(f"{place}: {value}")
        if meta.get("pattern") and not re.fullmatch(meta["pattern"], value): wrong.append(f"{place}: {value}: pattern")
        if not (meta.get("min", 0) <= len(value) <= meta.get("max", 10**9)): wrong.append(f"{place}: {len(value)} long")
    if shape.type_name in ("integer", "long", "float", "double"):
        if not (meta.get("min", -1e18) <= value <= meta.get("max", 1e18)): wrong.append(f"{place}: {value}")
    return value

found = []
for question in json.load(sys.stdin):
    operation = model.operation_model("ConverseStream")
    body = json.loads(question["body"])
    wrong = []
    parameters = walk(body, operation.input_shape, "body") | {"modelId": question["model"]}
    walk(question["model"], operation.input_shape.members["modelId"], "modelId")
    try:
        validate_parameters(parameters, operation.input_shape)
        made = create_serializer(model.metadata["protocol"]).serialize_to_request(parameters, operation)
        if json.loads(made["body"]) != body: wrong.append("botocore writes another body")
        if made["url_path"] != question["path"]: wrong.append(f"botocore asks {made['url_path']}")
    except Exception as error:
        wrong.append(str(error))
    found.append(wrong)
print(json.dumps(found))
"""

MODELS = [
    "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "global.anthropic.claude-opus-4-6-v1", "us.amazon.nova-2-lite-v1:0", "amazon.nova-micro-v1:0", "openai.gpt-oss-20b-1:0",
    "mistral.mistral-large-2407-v1:0", "us.meta.llama3-3-70b-instruct-v1:0", "us.deepseek.r1-v1:0", "cohere.command-r-v1:0",
    "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc123",
    "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abcdef012345",
]  # fmt: skip
MARK = {"type": "ephemeral", "ttl": "5m"}


def some_text(chance: random.Random) -> str:
    return "".join(chance.choices('ab \n\u00e4\u2028\U0001f600"\\{}', k=chance.randint(0, 12)))


def some_part(chance: random.Random, *, files: bool = True) -> Part:
    data = base64.b64encode(chance.randbytes(chance.randint(1, 30))).decode()
    mark = MARK if chance.random() < 0.2 else None
    match chance.randint(0, 5 if files else 2):
        case 0 | 1:
            return Text(some_text(chance), mark)
        case 2:
            return Image(
                f"data:image/{chance.choice(['png', 'jpeg', 'gif', 'webp', 'jpg'])};base64,{data}", mark
            )
        case 3:
            kind = chance.choice(
                ["application/pdf", "text/plain", "text/csv", "text/html", "application/msword", "text/x-c"]
            )
            name = chance.choice(["", "Bericht (neu).pdf", "a.b.c", "\u00fc", "x" * 300])
            named = {"filename": name} if name else {}
            return Other(
                "file", {"type": "file", "file": {"file_data": f"data:{kind};base64,{data}", **named}}
            )
        case 4:
            return Other(
                "video_url", {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}}
            )
        case _:
            return Other(
                "input_audio", {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
            )


def some_thoughts(chance: random.Random) -> tuple[Thought, ...]:
    every = (
        Thought("Hm\u00e4", "EqQBCkgIAR=="),
        Thought(redacted="EkgIBw=="),
        Thought(redacted="bedrock:/wA="),
        Thought("x"),
    )
    return tuple(chance.sample(every, chance.randint(0, 3)))


def some_conversation(chance: random.Random) -> tuple[Message, ...]:
    messages = [Message("system", (Text(some_text(chance), MARK if chance.random() < 0.3 else None),))]
    messages += [Message("assistant", (Text("Hello"),))] * chance.randint(0, 1)
    messages.append(Message("user", (Text("Hi"), *(some_part(chance) for _ in range(chance.randint(0, 3))))))
    for turn in range(chance.randint(0, 3)):
        ids = [
            chance.choice([f"call_{turn}_{n}", f"functions.f:{n}", "c" * 80, f"toolu_{n}"]) + str(n)
            for n in range(2)
        ]
        calls = tuple(
            ToolCall(id_, f"f{n}", json.dumps({"a": some_text(chance)}) if n else "")
            for n, id_ in enumerate(ids)
        )[: chance.randint(0, 2)]
        messages.append(
            Message("assistant", (Text(some_text(chance) or "So"),), calls, thoughts=some_thoughts(chance))
        )
        for call in calls:
            texts = [Text(chance.choice(["", "done", '{"a": [1, 2.5, null]}', "[1]", "{no json"]))]
            parts = texts + [some_part(chance, files=False) for _ in range(chance.randint(0, 1))]
            messages.append(Message("tool", tuple(parts), tool_call_id=call.id, failed=chance.random() < 0.3))
        messages.append(Message("user", (Text("And?"), some_part(chance))))
    return tuple(messages)


def some_chat(chance: random.Random) -> ChatRequest:
    tools = (
        Tool("f0", "Does it", {"type": "object", "properties": {"a": {"type": "string"}}}),
        Tool("f1", cache=MARK),
    )
    formats: list[Any] = [None, {"type": "json_object"},
                          {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}]  # fmt: skip
    sampling = Sampling(
        chance.choice([None, 1, 9000]), chance.choice([None, 0, 0.5, 2.0]), chance.choice([None, 0.3, 1.0]),
        chance.choice([(), ("END", " ")]), 1, 0.1, 0.2, chance.choice([None, 5]),
    )  # fmt: skip
    return ChatRequest(
        "openai", None, some_conversation(chance), sampling=sampling, tools=tools if chance.random() < 0.7 else (),
        tool_choice=chance.choice([None, "auto", "none", "required", ("function", "f0")]),
        parallel_tool_calls=chance.choice([None, True, False]), response_format=chance.choice(formats),
        reasoning=chance.choice([None, Reasoning("low"), Reasoning("high"), Reasoning("none"), Reasoning(budget=3000)]),
        cache=chance.choice([None, MARK]),
    )  # fmt: skip


def question(chance: random.Random) -> dict[str, str]:
    model = chance.choice(MODELS)
    plain = Bedrock(
        region="eu-central-1", beta=("output-128k-2025-02-19",), latency=chance.choice([None, "optimized"]),
        guardrail=chance.choice([None, Guardrail("abc123", "1"), Guardrail("abc123", trace="enabled", mode="async")]),
        service_tier=chance.choice([None, "priority"]),
    )  # fmt: skip
    backend = with_rules(plain, rules_of(bundled_rules(), [], "bedrock", "h", model))
    request = backend.request(some_chat(chance), model)
    path = request.url.removeprefix("https://bedrock-runtime.eu-central-1.amazonaws.com")
    return {"model": model, "path": path, "body": request.body.decode()}


def test_botocore_takes_and_writes_the_same_for_odd_conversations() -> None:
    chance = random.Random(7)
    questions = [question(chance) for _ in range(400)]
    for asked, wrong in zip(questions, ask("botocore", ORACLE, questions), strict=True):
        assert wrong == [], asked
