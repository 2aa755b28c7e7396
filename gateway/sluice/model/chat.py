"""Requests, in one vocabulary for every client dialect and every backend.

A frontend builds a `ChatRequest`; a backend translates it. Where both speak the same dialect the backend
starts from `wire` (the caller's own JSON object), so that unknown fields pass through.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from sluice.model.fields import UNKNOWN_FIELDS, DialectFields
from sluice.model.kept import Keep
from sluice.model.rules import Effort

Role = Literal["system", "user", "assistant", "tool"]
Cache = Mapping[str, Any]
"""Anthropic's `cache_control` object: the provider shall cache the prompt up to here."""


class Text(msgspec.Struct, frozen=True, gc=False):
    """`refusal`: an assistant declined to answer by it."""

    text: str
    cache: Cache | None = None
    refusal: bool = False


class Image(msgspec.Struct, frozen=True, gc=False):
    """`url` is http(s) or a data: URL (RFC 2397); `detail` is OpenAI's field for the resolution."""

    url: str
    cache: Cache | None = None
    detail: str = ""


class Other(msgspec.Struct, frozen=True):
    """Content of another kind: `wire` is its JSON object in OpenAI's form, whatever dialect it came in.

    Kinds that several dialects know: `{"type": "file", "file": {"file_data", "filename", "file_id"}}`, whose
    `file_data` is a data: URL or an http(s) URL; `{"type": "input_audio", "input_audio": {"data",
    "format"}}`, in base64; `{"type": "video_url", "video_url": {"url"}}`. `cache_control` may stand in each.
    """

    type: str
    wire: Mapping[str, Any]


Part = Text | Image | Other


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """`arguments` is JSON text, as the model wrote it. `signature` is Google's seal on the call."""

    id: str
    name: str
    arguments: str
    signature: str = ""


class Thought(msgspec.Struct, frozen=True, gc=False):
    """A block of an assistant's earlier reasoning.

    `signature` is Anthropic's signature of `text`; `redacted` is its encrypted block, sent in place of a
    text. A thought with neither is another vendor's.
    """

    text: str = ""
    signature: str = ""
    redacted: str = ""

    @property
    def sealed(self) -> bool:
        return bool(self.signature or self.redacted)


class Message(msgspec.Struct, frozen=True):
    """`parts` of an assistant may be empty when it only called tools; `tool_call_id` and `failed` belong to
    role tool.

    `thoughts` stand before the parts and tool calls of an assistant's message. `failed`: the tool says that
    it could not.
    """

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    thoughts: tuple[Thought, ...] = ()
    failed: bool = False

    @property
    def text(self) -> str:
        parts = self.parts
        if len(parts) == 1 and type(part := parts[0]) is Text:  # as most messages are
            return part.text
        return "".join(part.text for part in parts if isinstance(part, Text))


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call; `parameters` is a JSON Schema, to be followed to the letter where
    `strict`.

    `custom`: a tool of OpenAI's whose input is plain text: the string `input` in the arguments of its calls.
    `namespace`: the group of tools that it belongs to where the caller's dialect has groups; `name` then
    begins with it and two underscores.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    cache: Cache | None = None
    strict: bool | None = None
    custom: bool = False
    namespace: str = ""


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """Sampling parameters; None leaves one to the provider. Names are OpenAI's (`top_k`, which it lacks, is
    Anthropic's).

    `max_tokens` is at least 1: the values 0 and -1, by which callers mean "no maximum", are None here.
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
    """The amount of reasoning before the answer: `effort` (OpenAI's scale), or `budget` in tokens."""

    effort: Effort = ""
    budget: int | None = None


TOKENS_OF_AN_IMAGE = 1000


class ChatRequest(msgspec.Struct):
    """One call. `model` is the alias as the caller wrote it, None for the key's default.

    `tool_choice`: "auto", "none", "required", or the name of a function as ("function", name).
    `response_format`: OpenAI's object unmodified, None if absent. `session` is set where the gateway keeps
    the history; the pipeline then completes `messages`. `wire` is the caller's whole JSON object where
    `dialect` can be passed through ("openai"), else None; `system`/history is never merged into it: a request
    with a session has no wire. `body` is its text, if available and without escapes in its names. `n` is the
    number of answers; more than one only if caller and upstream speak the same dialect. `cache` requests the
    provider's automatic prompt caching. `only_texts`: the request has only system, user and assistant
    messages that are a single text each, and no other field that a rule of a model concerns, except
    `temperature`. `own`: fields of the caller's dialect that this vocabulary has no place for, for backends
    that speak the same one. `user` is the caller's own name of the person it acts for, where it was read (a
    vendor's abuse monitoring wants it). `dialect_only` says what of it stands in `wire` alone and cannot be
    left out ("tools[2]: a tool of type web_search"): targets of another dialect are not asked. "" where there
    is nothing. `own_tools`: types of tools that only its dialect has. `keep`: what it has to do with
    responses that are kept (`sluice.policies.kept`). `fields`: those of `wire`, where they differ from Chat
    Completions'.
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
    user: str = ""
    dialect_only: str = ""
    own_tools: tuple[str, ...] = ()
    keep: Keep | None = None
    own: Mapping[str, Any] | None = None
    fields: DialectFields = UNKNOWN_FIELDS

    generates: ClassVar[bool] = True
    """Its answer has tokens of its own, which limits reserve."""
    resumes: ClassVar[bool] = True
    """A stream of its answer can be resumed, where the alias says so."""

    def estimated_tokens(self) -> int:
        """About how many tokens the prompt has: a quarter of its UTF-8 bytes, and what an image usually
        costs."""
        messages = self.messages
        size = sum(
            text_size(message.text) + sum(text_size(call.arguments) for call in message.tool_calls)
            for message in messages
        )
        images = sum(isinstance(part, Image) for message in messages for part in message.parts)
        return size // 4 + TOKENS_OF_AN_IMAGE * images


def continued(chat: ChatRequest, answer: str) -> ChatRequest:
    """Returns the request with the assistant's partial answer as the last message, for a model to continue it
    (prefill). A `wire` of another dialect than OpenAI's is left out.

    Trailing white space is removed: some providers refuse it, and models continue badly after it. They write
    it again.
    """
    answer = answer.rstrip()
    wire = chat.wire if chat.fields.as_named else None
    if wire is not None:
        wire = {**wire, "messages": [*wire["messages"], {"role": "assistant", "content": answer}]}
    message = Message("assistant", (Text(answer),))
    return msgspec.structs.replace(chat, messages=(*chat.messages, message), wire=wire, body=b"")


def with_system(chat: ChatRequest, text: str) -> ChatRequest:
    """Returns the request with a system prompt added in front; "" leaves it unmodified."""
    if not text:
        return chat
    return msgspec.structs.replace(
        chat, messages=(Message("system", (Text(text),)), *chat.messages), wire=None, body=b""
    )


def with_messages(chat: ChatRequest, messages: Sequence[Message]) -> ChatRequest:
    """Returns the request with other messages. Unknown fields of the caller's JSON are left out."""
    return msgspec.structs.replace(chat, messages=tuple(messages), wire=None, body=b"", only_texts=False)


def without_seals(chat: ChatRequest) -> ChatRequest:
    """The same request without earlier reasoning that a provider has sealed; itself, where it has none."""
    if not any([thought.sealed for message in chat.messages for thought in message.thoughts]):
        return chat
    messages = []
    for message in chat.messages:
        kept = tuple([thought for thought in message.thoughts if not thought.sealed])
        messages.append(msgspec.structs.replace(message, thoughts=kept) if message.thoughts else message)
    wire = chat.wire
    if wire is not None and chat.fields.unsealed is not None:
        wire = chat.fields.unsealed(wire)
    return msgspec.structs.replace(chat, messages=tuple(messages), wire=wire, body=b"")


def transcript_of(audio: Any) -> str:
    """What was said in an earlier spoken answer, if its caller sends the transcript back beside the id; else
    ""."""
    match audio:
        case {"transcript": str(text)}:
            return text
        case _:
            return ""


def text_size(text: str) -> int:
    """UTF-8 bytes: beyond ASCII a character is more of a token."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def call_ids(messages: Sequence[Message]) -> frozenset[str]:
    """The ids of the tool calls that a conversation has."""
    return frozenset([call.id for message in messages for call in message.tool_calls])
