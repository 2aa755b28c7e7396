"""The types of a chunk of Chat Completions: only the fields that are used, typed as loosely as vendors send
them.

Standard: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sluice.model.events import MAX_TOKENS, Usage

FinishWord = Literal[
    "stop", "length", "max_tokens", "model_length", "tool_calls", "tool_use", "function_call", "content_filter", "sensitive",
    "safety", "recitation", "prohibited_content", "blocklist", "model_context_window_exceeded", "max_output_tokens",
]  # fmt: skip
"""Finish reasons of complete answers, as vendors write them; any other may mean a failure."""
NativeWord = Literal[
    "stop", "STOP", "end_turn", "completed", "complete", "eos", "length", "max_tokens", "MAX_TOKENS", "max_output_tokens",
    "tool_calls", "tool_use", "stop_sequence", "content_filter",
]  # fmt: skip
"""The usual values of `native_finish_reason`."""


class ContentPart(msgspec.Struct, gc=False):
    """A part of content that is a list, as Mistral's reasoning models send it. `type` is "text" or
    "thinking"."""

    type: str = ""
    text: str | None = None
    thinking: "str | list[ContentPart] | None" = None


class Function(msgspec.Struct, gc=False):
    """`arguments` is JSON text, or the JSON value itself (vendors that translate from another dialect)."""

    name: str | None = None
    arguments: Any = None

    @property
    def has_content(self) -> bool:
        return bool(self.name) or self.arguments is not None


class ToolCallPart(msgspec.Struct, gc=False):
    """`name` and `arguments` are refused here: they belong in `function` (see `openai.variants`)."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: Function | None = None
    name: None = None
    arguments: None = None

    @property
    def has_content(self) -> bool:
        return bool(self.id) or (self.function is not None and self.function.has_content)


class Delta(msgspec.Struct, gc=False):
    """Reasoning is in `reasoning_content` (DeepSeek and most vendors) or `reasoning` (Groq, OpenRouter,
    Ollama); some send both."""

    content: str | list[ContentPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPart] | None = None
    function_call: Function | None = None


class CacheLives(msgspec.Struct, gc=False):
    """Tokens written to the prompt cache by how long they are kept, under Anthropic's names (LiteLLM's
    proxy)."""

    ephemeral_1h_input_tokens: int | None = None


class _PromptDetails(msgspec.Struct, gc=False):
    """`cache_creation_tokens` is LiteLLM's name for `cache_write_tokens`."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_creation_tokens: int | None = None
    cache_creation_token_details: CacheLives | None = None


class _CompletionDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class ReportedUsage(msgspec.Struct, gc=False):
    """`cached_tokens` is Moonshot's and `prompt_cache_hit_tokens` DeepSeek's count of cached input tokens;
    `input_tokens` and `output_tokens` are the counts at servers that translate from another dialect."""

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
    """`usage` is where Moonshot reports it, `error` where OpenRouter reports one; `finish_reason` is "" at
    some servers until there is one. `text` is the field of /completions, which some servers send beside or
    instead of the delta. `native_finish_reason` is the finish reason of OpenRouter's own upstream, which may
    be the only sign of a failure (OleksandrChekhovskyi/hax#15)."""

    delta: Delta | None = None
    text: str | None = None
    index: int | None = None
    finish_reason: str | None = None
    usage: ReportedUsage | None = None
    error: Any = None
    native_finish_reason: Any = None


class _Groq(msgspec.Struct, gc=False):
    usage: ReportedUsage | None = None


class Chunk(msgspec.Struct, gc=False):
    """A chunk of any form. Groq reports usage in `x_groq`."""

    choices: list[Choice] | None = None
    usage: ReportedUsage | None = None
    error: Any = None
    x_groq: _Groq | None = None
    id: str | None = None
    model: str | None = None


decode = msgspec.json.Decoder(Chunk).decode


class _OrdinaryDelta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _OrdinaryChoice(msgspec.Struct, gc=False):
    delta: _OrdinaryDelta
    index: Literal[0]
    text: str | None = None
    finish_reason: FinishWord | None = None
    usage: None = None
    native_finish_reason: NativeWord | None = None


class OrdinaryChunk(msgspec.Struct, gc=False):
    """The form of nearly every chunk: one choice with text or a finish reason, or usage.

    The types are strict, so a decoded chunk needs no further check; msgspec refuses every other chunk.
    """

    choices: Annotated[list[_OrdinaryChoice], Meta(max_length=1)]
    usage: ReportedUsage | None = None
    error: None = None
    x_groq: None = None
    id: str | None = None
    model: str | None = None


Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]


class _PromptCounts(msgspec.Struct, gc=False):
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    cache_creation_tokens: Count | None = None
    cache_creation_token_details: CacheLives | None = None


class _CompletionCounts(msgspec.Struct, gc=False):
    reasoning_tokens: Count | None = None


def cache_writes(details: _PromptDetails | _PromptCounts) -> tuple[int, int]:
    """Returns how many tokens were written to the prompt cache, and how many of them are kept for an hour."""
    lives = details.cache_creation_token_details
    return (
        details.cache_write_tokens or details.cache_creation_tokens or 0,
        (lives.ephemeral_1h_input_tokens or 0) if lives is not None else 0,
    )


class OrdinaryUsage(msgspec.Struct, gc=False):
    """Usage that needs no correction if its total is the sum of input and output."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: _PromptCounts | None = None
    completion_tokens_details: _CompletionCounts | None = None
    cached_tokens: Count | None = None
    prompt_cache_hit_tokens: Count | None = None

    def used(self) -> Usage:
        prompt, completion = self.prompt_tokens_details, self.completion_tokens_details
        cached = prompt.cached_tokens if prompt is not None else None
        reasoning = completion.reasoning_tokens if completion is not None else None
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            cached or self.cached_tokens or self.prompt_cache_hit_tokens or 0,
            reasoning or 0,
            0,
            *(cache_writes(prompt) if prompt is not None else ()),
        )


class _OrdinaryMessage(msgspec.Struct, gc=False):
    content: Annotated[str, Meta(min_length=1)]
    reasoning_content: None = None
    reasoning: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _OrdinaryAnswer(msgspec.Struct, gc=False):
    message: _OrdinaryMessage
    index: Literal[0]
    finish_reason: FinishWord
    usage: None = None
    native_finish_reason: NativeWord | None = None


class OrdinaryDocument(msgspec.Struct, gc=False):
    """The form of nearly every whole answer: one choice with nothing but a complete text."""

    choices: Annotated[list[_OrdinaryAnswer], Meta(min_length=1, max_length=1)]
    usage: OrdinaryUsage | None = None
    error: None = None
    id: str | None = None
    model: str | None = None


decode_ordinary_document = msgspec.json.Decoder(OrdinaryDocument).decode
decode_ordinary = msgspec.json.Decoder(OrdinaryChunk).decode
