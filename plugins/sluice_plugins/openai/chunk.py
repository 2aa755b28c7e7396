"""The types of a chunk of Chat Completions: only what is used, and every field as loose as the vendors are.

Standard: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from typing import Any

import msgspec


class ContentPart(msgspec.Struct, gc=False):
    """Mistral's reasoning models: content as a list of {"type": "text"} and {"type": "thinking"} parts."""

    type: str = ""
    text: str | None = None
    thinking: "str | list[ContentPart] | None" = None


class Function(msgspec.Struct, gc=False):
    """`arguments` is JSON text, or the value itself (vendors that translate from another dialect)."""

    name: str | None = None
    arguments: Any = None

    @property
    def says_something(self) -> bool:
        return bool(self.name) or self.arguments is not None


class ToolCallPart(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None

    @property
    def says_something(self) -> bool:
        return bool(self.id) or (self.function is not None and self.function.says_something)


class Delta(msgspec.Struct, gc=False):
    """Reasoning is `reasoning_content` (DeepSeek and most) or `reasoning` (Groq, OpenRouter, Ollama); some send both."""

    content: str | list[ContentPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPart] | None = None
    function_call: Function | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class ReportedUsage(msgspec.Struct, gc=False):
    """`cached_tokens` and `prompt_cache_hit_tokens` stand for the details at Moonshot and DeepSeek, `input_tokens` and
    `output_tokens` for the counts at servers that translate from another dialect."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    cached_tokens: int | None = None
    prompt_cache_hit_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class Choice(msgspec.Struct, gc=False):
    """`usage` is Moonshot's place for it, `error` OpenRouter's for one; `finish_reason` is "" at some until there is one."""

    delta: Delta | None = None
    index: int | None = None
    finish_reason: str | None = None
    usage: ReportedUsage | None = None
    error: Any = None


class _Groq(msgspec.Struct, gc=False):
    usage: ReportedUsage | None = None


class Chunk(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: ReportedUsage | None = None
    error: Any = None
    x_groq: _Groq | None = None
    id: str | None = None
    model: str | None = None


decode = msgspec.json.Decoder(Chunk).decode

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
