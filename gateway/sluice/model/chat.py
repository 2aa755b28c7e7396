"""What is asked, in one vocabulary for every client dialect and every backend.

A frontend builds a `ChatRequest`; a backend translates it. Where both speak the same dialect the backend
starts from `wire` (the caller's own JSON object), so that fields nobody here interprets pass through.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from sluice.model.rules import Effort

Role = Literal["system", "user", "assistant", "tool"]
Cache = Mapping[str, Any]
"""Anthropic's `cache_control` object: the prompt up to here is to be kept in the provider's cache."""


class Text(msgspec.Struct, frozen=True, gc=False):
    text: str
    cache: Cache | None = None


class Image(msgspec.Struct, frozen=True, gc=False):
    """`url` is http(s) or a data: URL (RFC 2397); `detail` is OpenAI's word for how closely to look."""

    url: str
    cache: Cache | None = None
    detail: str = ""


class Other(msgspec.Struct, frozen=True):
    """A kind of content that only the caller's own dialect knows (audio, file …): `wire` is its JSON object, in OpenAI's form
    for the widget's, too."""

    type: str
    wire: Mapping[str, Any]


Part = Text | Image | Other


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """`arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class Thought(msgspec.Struct, frozen=True, gc=False):
    """A block of an assistant's earlier reasoning.

    `signature` is Anthropic's seal on `text`; `redacted` is its encrypted block, which comes in place of a text. A thought
    without either is another vendor's, and nothing but text.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""

    @property
    def sealed(self) -> bool:
        return bool(self.signature or self.redacted)


class Message(msgspec.Struct, frozen=True):
    """`parts` of an assistant may be empty when it only called tools; `tool_call_id` belongs to role tool.

    `thoughts` stand before the parts and tool calls of an assistant's message.
    """

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    thoughts: tuple[Thought, ...] = ()

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    cache: Cache | None = None


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """How to sample; None leaves it to the provider. Names are OpenAI's, but for `top_k`, which it has not.

    `max_tokens` is at least 1: what callers write for "no maximum" (0, -1) is None here.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_k: int | None = None


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """How much the model is to think before it answers: `effort` (OpenAI's scale), or `budget` in tokens."""

    effort: Effort = ""
    budget: int | None = None


class ChatRequest(msgspec.Struct):
    """One call. `model` is the alias as the caller wrote it, None for the key's default.

    `tool_choice`: "auto", "none", "required", or the name of a function as ("function", name).
    `response_format`: OpenAI's object as given, None where not asked for.
    `session` is set where the gateway keeps the history; the pipeline then completes `messages`.
    `wire` is the caller's whole JSON object where `dialect` can be passed through ("openai"), else None;
    `system`/history is never merged into it: a request with a session has no wire. `body` is its text, where that is at
    hand and no letter of its names is written as an escape.
    `n` is how many answers are asked for; more than one only where caller and upstream speak the same dialect.
    `cache` asks for the provider's automatic prompt caching. `only_texts`: the caller gave nothing but messages of the system,
    users and assistants that are a text and nothing else, beside what no rule of a model is about but `temperature`.
    """

    dialect: str
    model: str | None
    messages: tuple[Message, ...]
    stream: bool = True
    session: str | None = None
    sampling: Sampling = Sampling()
    tools: tuple[Tool, ...] = ()
    tool_choice: str | tuple[str, str] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None
    include_usage: bool = False
    profile: str = ""
    wire: dict[str, Any] | None = None
    body: bytes = b""
    n: int = 1
    reasoning: Reasoning | None = None
    cache: Cache | None = None
    only_texts: bool = False


def continued(chat: ChatRequest, said: str) -> ChatRequest:
    """The same request, ended by what an assistant has said so far, for a model that goes on from there (prefill).

    Without the white space at its end: some providers refuse it, and models go on badly from there. They say it again.
    """
    said = said.rstrip()
    wire = chat.wire
    if wire is not None:
        wire = {**wire, "messages": [*wire["messages"], {"role": "assistant", "content": said}]}
    message = Message("assistant", (Text(said),))
    return msgspec.structs.replace(chat, messages=(*chat.messages, message), wire=wire, body=b"")


def with_system(chat: ChatRequest, text: str) -> ChatRequest:
    """The same request, opened by a system prompt; "" leaves it as it is."""
    if not text:
        return chat
    return msgspec.structs.replace(chat, messages=(Message("system", (Text(text),)), *chat.messages), wire=None, body=b"")


def with_messages(chat: ChatRequest, messages: Sequence[Message]) -> ChatRequest:
    """The same request with other messages. Fields of the caller's JSON that nobody here interprets are left out."""
    return msgspec.structs.replace(chat, messages=tuple(messages), wire=None, body=b"", only_texts=False)


def estimated_tokens(chat: ChatRequest) -> int:
    """About how many tokens the prompt has: a quarter of its UTF-8 bytes, and what an image usually costs."""
    size = sum(_size(message.text) + sum(_size(call.arguments) for call in message.tool_calls) for message in chat.messages)
    images = sum(isinstance(part, Image) for message in chat.messages for part in message.parts)
    return size // 4 + 1000 * images


def _size(text: str) -> int:
    """UTF-8 bytes: beyond ASCII a character is more of a token."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def call_ids(messages: Sequence[Message]) -> frozenset[str]:
    """The ids of the tool calls that a conversation has."""
    return frozenset([call.id for message in messages for call in message.tool_calls])
