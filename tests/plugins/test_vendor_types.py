"""Bodies that backends send, held against the types of the vendors' own SDKs, which `make test` installs into
.cache.

Anthropic's are the parameters of `messages.create`, Ollama's the request of its client; OpenAI's SDK puts
deltas together.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sluice.backends.protocol import with_rules
from sluice.config.rule_file import bundled_rules
from sluice.frontends.openai.dialect import OpenAI as Frontend
from sluice.model.rules import rules_of
from sluice.proxy.fitting import Fitting
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.ollama.backend import Ollama
from tests.frontends.openai.test_reasoning import BLOCKS, DETAILS, deltas

PYTHON = Path(__file__).parents[2] / ".cache" / "clients-venv" / "bin" / "python"

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="the vendors' SDKs are not installed (scripts/test_tools.sh)"
)

CACHE = {"type": "ephemeral", "ttl": "1h"}
PDF = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}}
PNG = {"type": "image_url", "image_url": {"url": "data:image/JPG;charset=x;base64,aGk="}}
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}},
    "cache_control": CACHE,
}
CALL = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
ROUND = [
    {"role": "developer", "content": [{"type": "text", "text": "Be brief.", "cache_control": CACHE}]},
    {"role": "user", "content": [{"type": "text", "text": "Look", "cache_control": CACHE}, PNG, PDF]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "thinking_blocks": BLOCKS},
    {"role": "tool", "tool_call_id": "functions.f:0", "content": "r", "cache_control": CACHE},
]
EVERYTHING = {
    "max_tokens": 9000.0, "max_completion_tokens": -1, "temperature": 1.7, "top_p": 0.5, "top_k": 5.0, "stop": ["\n", "END"],
    "seed": 7, "frequency_penalty": 0.5, "presence_penalty": -0.5, "logit_bias": {"1": 2}, "user": "u", "tools": [TOOL],
    "parallel_tool_calls": False, "cache_control": CACHE, "messages": ROUND, "metadata": {"a": "b"}, "logprobs": True,
}  # fmt: skip
MODELS = ["m", "claude-3-5-haiku-20241022", "claude-opus-4-1", "claude-opus-4-5", "claude-sonnet-4-6", "claude-opus-4-8",
          "claude-opus-5-5", "claude-sonnet-5"]  # fmt: skip
ASKED: list[dict[str, Any]] = [
    {},
    {"reasoning_effort": "high"},
    {"reasoning_effort": "none"},
    {"reasoning_effort": "low", "tool_choice": "required"},
    {"thinking": {"type": "enabled", "budget_tokens": 2000}},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}},
]


def body(backend: str, model: str, **fields: Any) -> dict[str, Any]:
    """What is sent to a model by its rules."""
    rules = rules_of(bundled_rules(), [], backend, "h", model)
    chat = Frontend().parse(json.dumps({**EVERYTHING, **fields}).encode(), {})
    plain: Anthropic | Ollama = Anthropic() if backend == "anthropic" else Ollama()
    found: dict[str, Any] = msgspec.json.decode(
        with_rules(plain, rules).request(Fitting(rules)(chat), model).body
    )
    return found


def judged(script: str, given: Any) -> Any:
    """What the script, in the SDKs' Python, says of what it is given."""
    command = [str(PYTHON), "-c", script]
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, check=True, timeout=100
    )
    return json.loads(done.stdout)


ANTHROPIC = """
import json, sys
from pydantic import TypeAdapter, ValidationError
from anthropic.types.message_create_params import MessageCreateParamsStreaming as Params
judge = TypeAdapter(Params)
known = Params.__required_keys__ | Params.__optional_keys__ | {"temperature", "top_p", "top_k"}  # gone with a later version
wrong = []
for body in json.load(sys.stdin):
    try:
        judge.validate_python(body, strict=False)
    except ValidationError as error:
        wrong.append(str(error)[:400])
    wrong += sorted(set(body) - known)
print(json.dumps(wrong))
"""


def test_anthropics_types_take_what_is_sent() -> None:
    bodies = [body("anthropic", model, **fields) for model in MODELS for fields in ASKED]
    assert judged(ANTHROPIC, bodies) == []


OLLAMA = """
import json, sys
from ollama._types import ChatRequest, Options
wrong = []
for body in json.load(sys.stdin):
    unknown = set(body) - set(ChatRequest.model_fields), set(body["options"]) - set(Options.model_fields)
    try:
        ChatRequest.model_validate(body)
    except Exception as error:
        wrong.append(str(error)[:400])
    wrong += [sorted(names) for names in unknown if names]
print(json.dumps(wrong))
"""


def test_ollamas_types_take_what_is_sent() -> None:
    messages = [message for message in ROUND if message["role"] != "user"]
    asked = [fields for fields in ASKED if "tool_choice" not in fields]
    assert judged(OLLAMA, [body("ollama", "m", messages=messages, **fields) for fields in asked]) == []


OPENAI = """
import json, sys
from openai.lib.streaming._deltas import accumulate_delta
kept = {}
for delta in json.load(sys.stdin):
    kept = accumulate_delta(kept, delta)
print(json.dumps(kept))
"""


def test_openais_sdk_puts_thinking_blocks_together() -> None:
    kept = judged(OPENAI, deltas())
    assert kept["reasoning_details"] == DETAILS
    assert [
        {name: value for name, value in block.items() if name != "index"} for block in kept["thinking_blocks"]
    ] == BLOCKS
