"""Made-up conversations, as each upstream is sent them, are what the vendors' own SDKs take for requests.

That they mean the same is `test_requests`. The SDKs are those of scripts/test_tools.sh, in their own environment. Bedrock's
are in tests/plugins/bedrock/test_botocore.py, Cohere's also in tests/plugins/cohere/test_request.py.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sluice.errors import BadRequest
from sluice.proxy.capable import Capable, takes_of
from tests.matrix import clients
from tests.matrix.lanes import GEMINI_3, UPSTREAMS, Upstream, parsed, sent
from tests.matrix.talk import Talk, talks
from tests.plugins.credentials.oracle import ask

TALKS = 10
CLIENTS = ("openai", "anthropic", "responses", "ollama", "gemini")

ANTHROPIC = """
import json, sys
from anthropic.types.message_create_params import MessageCreateParamsStreaming as Params
from pydantic import ConfigDict, TypeAdapter
judge = TypeAdapter(Params)
known = Params.__required_keys__ | Params.__optional_keys__ | {"temperature", "top_p", "top_k"}  # gone with a later version
"""
RESPONSES = """
import json, sys
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming as Params
from pydantic import TypeAdapter
judge = TypeAdapter(Params)
known = Params.__required_keys__ | Params.__optional_keys__
"""
OF_TYPED_DICTS = """
found = []
for body in json.load(sys.stdin):
    wrong = sorted(set(body) - known)
    try:
        judge.validate_python(body)
    except Exception as error:
        wrong.append(str(error)[:600])
    found.append(wrong)
print(json.dumps(found))
"""
GEMINI = """
import json, sys
from google.genai import types
parts = {"systemInstruction": types.Content, "generationConfig": types.GenerationConfig, "toolConfig": types.ToolConfig}
lists = {"contents": types.Content, "tools": types.Tool, "safetySettings": types.SafetySetting}
found = []
for body in json.load(sys.stdin):
    wrong = sorted(set(body) - set(parts) - set(lists))
    try:
        for name, kind in parts.items():
            if name in body: kind.model_validate(body[name])
        for name, kind in lists.items():
            for value in body.get(name, ()): kind.model_validate(value)
    except Exception as error:
        wrong.append(str(error)[:600])
    found.append(wrong)
print(json.dumps(found))
"""
COHERE = """
import json, sys
from cohere.types import ChatMessages, ResponseFormatV2, Thinking, ToolV2
from pydantic import TypeAdapter
kinds = {"messages": ChatMessages, "tools": list[ToolV2], "response_format": ResponseFormatV2, "thinking": Thinking}
plain = {"model", "stream", "documents", "max_tokens", "stop_sequences", "temperature", "seed", "frequency_penalty",
         "presence_penalty", "k", "p", "tool_choice", "strict_tools"}

def unknown(value):
    if isinstance(value, list):
        return [name for inner in value for name in unknown(inner)]
    if not hasattr(value, "model_extra"):
        return []
    return sorted(value.model_extra or ()) + [n for f in type(value).model_fields for n in unknown(getattr(value, f))]

found = []
for body in json.load(sys.stdin):
    wrong = sorted(set(body) - set(kinds) - plain)
    try:
        for name, kind in kinds.items():
            if name in body: wrong += unknown(TypeAdapter(kind).validate_python(body[name]))
    except Exception as error:
        wrong.append(str(error)[:600])
    found.append(wrong)
print(json.dumps(found))
"""
JUDGES: Mapping[str, tuple[str, str, Sequence[Upstream]]] = {
    "anthropic": ("anthropic", ANTHROPIC + OF_TYPED_DICTS, [UPSTREAMS["anthropic"]]),
    "responses": ("openai", RESPONSES + OF_TYPED_DICTS, [UPSTREAMS["responses"]]),
    "gemini": ("google.genai", GEMINI, [UPSTREAMS["gemini"], GEMINI_3]),
    "cohere": ("cohere", COHERE, [UPSTREAMS["cohere"]]),
}
"""By upstream dialect: the package, the script that reads bodies and writes what is wrong with each, and the
targets."""
BEYOND: Mapping[str, frozenset[str]] = {
    "responses": frozenset(
        {"input_audio"}
    ),  # of servers with audio models; OpenAI's type of a message has no audio
    "cohere": frozenset({"file_data"}),  # of files only texts
}
"""Kinds of content that are not asked about."""


def made_up() -> list[Talk]:
    """The same talks in each run."""
    found: list[Talk] = []

    @settings(
        max_examples=TALKS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(talk=talks())
    def collect(talk: Talk) -> None:
        found.append(talk)

    collect()
    return found


@pytest.mark.parametrize("dialect", JUDGES)
def test_generated_requests_are_of_the_sdks_types(dialect: str) -> None:
    package, script, targets = JUDGES[dialect]
    bodies = []
    for talk in made_up():
        for client in CLIENTS:
            if client == dialect:  # passed on as its caller made it
                continue
            body = json.dumps(clients.WRITERS[client](talk)).encode()
            chat = parsed(client, body, stream=talk.stream)
            bodies += [sent(target, chat) for target in targets]
    assert judged(package, script, bodies) == []


def judged(package: str, script: str, bodies: list[Any]) -> list[Any]:
    """The bodies that are wrong, and why."""
    return [(wrong, body) for wrong, body in zip(ask(package, script, bodies), bodies, strict=True) if wrong]


DATA = base64.b64encode(b"%PDF-1.4 x").decode()
PDF = f"data:application/pdf;base64,{DATA}"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": 1}'}}
TOOL = {
    "type": "function",
    "function": {"name": "look_up", "parameters": {"type": "object", "properties": {"q": {}}}},
}
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "Look"}, *parts]}


KINDS: Mapping[str, dict[str, Any]] = {
    "image_data": {"messages": [user(IMAGE)]},
    "image_url": {"messages": [user({"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}})]},
    "file_data": {"messages": [user({"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}})]},
    "input_audio": {"messages": [user({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}})]},
    "tool_images": {
        "tools": [TOOL],
        "messages": [
            user(),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "r"}, IMAGE]},
        ],
    },
    "reasoning": {
        "reasoning_effort": "high",
        "messages": [
            user(),
            {"role": "assistant", "content": "So", "reasoning_content": "Hm", "thinking_blocks": [
                {"type": "thinking", "thinking": "Hm", "signature": "c2ln"},
                {"type": "thinking", "thinking": "Hm", "signature": "gemini:c2ln"},
                {"type": "thinking", "thinking": "Hm", "signature": "openai:rs_1:ZW5j"},
            ]},
            user(),
        ],
    },
    "cache_control": {
        "messages": [user({"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}})],
    },
    "citations": {
        "messages": [
            user(),
            {"role": "assistant", "content": "So", "annotations": [{"type": "url_citation", "url_citation": {
                "url": "https://x.test", "title": "x", "start_index": 0, "end_index": 2}}]},
            user(),
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("dialect", JUDGES)
def test_each_kind_of_content_is_of_the_sdks_types(dialect: str) -> None:
    package, script, targets = JUDGES[dialect]
    bodies = []
    for kind, fields in KINDS.items():
        if kind in BEYOND.get(dialect, ()):
            continue
        body = json.dumps({"model": "chat", "stream": True, "max_tokens": 9000, **fields}).encode()
        chat = parsed("openai", body, stream=True)
        for target in targets:
            capable = Capable(takes_of(target.backend) or frozenset(), "drop", lambda _: None, frozenset())
            try:
                fitting = capable.without(chat) if capable.check(chat) else chat
            except BadRequest:  # content that the target has not is refused
                continue
            bodies.append(sent(target, fitting))
    assert len(bodies) >= 5 * len(targets)
    assert judged(package, script, bodies) == []
