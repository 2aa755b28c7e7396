"""Requests, in one vocabulary for all client dialects and all backends.

A frontend builds a `ChatRequest`; a backend translates it. If both speak the same dialect, the backend starts
from `wire` (the caller's own JSON object), so that unknown fields pass through.
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
    """A text. `refusal`: with this text, an assistant declined to answer."""

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

    Kinds that several dialects have: `{"type": "file", "file": {"file_data", "filename", "file_id"}}`, whose
    `file_data` is a data: URL or an http(s) URL; `{"type": "input_audio", "input_audio": {"data",
    "format"}}`, in base64; `{"type": "video_url", "video_url": {"url"}}`. Each may have `cache_control`.
    """

    type: str
    wire: Mapping[str, Any]


Part = Text | Image | Other


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """`arguments` is JSON text, as the model wrote it. `signature`: Google's seal on the call."""

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
    """One message. `parts` may be empty if the assistant only called tools. `tool_call_id` and `failed`
    belong to role tool; `failed`: the tool reported an error. `thoughts` precede the parts and tool calls
    of an assistant's message."""

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
    """A function that the model may call.

    `parameters` is a JSON Schema, which has to be followed exactly if `strict`. `custom`: a tool of OpenAI's
    whose input is a text: the string `input` in the arguments of its calls. `namespace`: the group of the
    tool, if the caller's dialect has groups; `name` then begins with it and two underscores.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    cache: Cache | None = None
    strict: bool | None = None
    custom: bool = False
    namespace: str = ""


class Sampling(msgspec.Struct, frozen=True, gc=False):
    """Sampling parameters; None leaves one to the provider.

    Names are OpenAI's (`top_k`, which it lacks, is Anthropic's). `max_tokens` is at least 1: callers send 0
    and -1 for "no maximum", which is None here.
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
    """One chat call.

    `model`: the alias as the caller wrote it; None: the key's default. `tool_choice`: "auto", "none",
    "required", or ("function", name). `response_format`: OpenAI's object, unchanged; None if absent.
    `session` is set if the gateway keeps the history; the pipeline then completes `messages`. `n`: the number
    of answers; more than one only if caller and upstream speak the same dialect. `cache`: the provider's
    automatic prompt caching is requested. `user`: the caller's own name of the person it acts for, if there
    is one (a vendor's abuse monitoring uses it).

    `wire`: the caller's whole JSON object if `dialect` can be passed through ("openai"), else None. System
    prompt and history are never merged into it: a request with a session has no wire. `body`: its text, if
    available and without escapes in its names. `fields`: the names of fields in `wire`, if they differ from
    Chat Completions'. `own`: fields of the caller's dialect that this vocabulary lacks, for backends of the
    same dialect. `own_tools`: types of tools that only this dialect has.

    `only_texts`: all messages are system, user and assistant messages with a single text each, and no other
    field that a rule of a model concerns is set, except `max_tokens` and `temperature`. `dialect_only`: the
    part of the request that is in `wire` alone and cannot be left out ("tools[2]: a tool of type web_search"), so that
    targets of another dialect are not asked; "" if there is none. `keep`: what the request has to do with
    kept responses (`sluice.policies.kept`).
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
    """Whether its answer has tokens of its own, which limits reserve."""
    resumes: ClassVar[bool] = True
    """Whether a stream of its answer can be resumed, if the alias allows it."""

    def estimated_tokens(self) -> int:
        """The estimated number of tokens of the prompt: a quarter of its UTF-8 bytes, plus the usual number
        for each image."""
        messages = self.messages
        size = sum(
            text_size(message.text) + sum(text_size(call.arguments) for call in message.tool_calls)
            for message in messages
        )
        images = sum(isinstance(part, Image) for message in messages for part in message.parts)
        return size // 4 + TOKENS_OF_AN_IMAGE * images


def continued(chat: ChatRequest, answer: str) -> ChatRequest:
    """Returns the request with the assistant's partial answer as the last message, for a model to continue it
    (prefill).

    A `wire` of another dialect than OpenAI's is left out. Trailing white space is removed, because some
    providers refuse it, and models continue badly after it; they write it again.
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
    """Returns the request without earlier reasoning that a provider has sealed; the same object if there is
    none."""
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
    """Returns the transcript of an earlier spoken answer, if the caller sends it beside the answer's id; else
    ""."""
    match audio:
        case {"transcript": str(text)}:
            return text
        case _:
            return ""


def text_size(text: str) -> int:
    """Returns the UTF-8 bytes of a text, because a character beyond ASCII is a larger part of a token."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def call_ids(messages: Sequence[Message]) -> frozenset[str]:
    """Returns the ids of the tool calls in a conversation."""
    return frozenset([call.id for message in messages for call in message.tool_calls])
