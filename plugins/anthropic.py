"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and .../build-with-claude/streaming.

What the request loses or changes on the way, because the API has no word for it:
  - system messages are gathered, wherever they stand, into the one `system` text;
  - neighbouring messages of one role become one, and a conversation that an assistant begins is given a user turn first;
  - `max_tokens` is required there: `default_max_tokens` where the caller set none;
  - `temperature` above 1 (OpenAI's scale ends at 2) is sent as 1: a caller cannot know which vendor an alias leads to,
    and refusing would break failing over to it;
  - `seed` is left out: it is a wish in every dialect;
  - an assistant's last words lose their trailing white space, which the API refuses in a prefill.

A stream is message_start, then content blocks (start, deltas, stop), message_delta (why it stopped, usage so far) and
message_stop, its terminator. Event types nobody here knows are skipped, as the vendor's versioning policy asks.
Redacted thinking, signatures, citations and the results of tools the provider ran have no event of ours.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Raw

from gateway.backends import Headers, UpstreamRequest
from gateway.chat import ChatRequest, Image, Message, Part, Text, Tool, ToolCall
from gateway.config import Secret
from gateway.errors import BadRequest, UpstreamError, UpstreamErrorKind, UpstreamGarbled, UpstreamTruncated
from gateway.events import (
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
)
from gateway.wire.retry_after import parse_retry_after

if TYPE_CHECKING:
    from gateway.transport import Transport

Block = dict[str, Any]

FIRST_TURN = "(The assistant begins this conversation.)"
"""Said for the user where an assistant's message comes first; the API wants a user's there."""

STOP_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

ERROR_TYPES: dict[str, UpstreamErrorKind] = {
    "invalid_request_error": "bad_request",
    "request_too_large": "bad_request",
    "authentication_error": "bad_credentials",
    "permission_error": "bad_credentials",
    "billing_error": "bad_credentials",
    "not_found_error": "not_found",
    "rate_limit_error": "rate_limited",
    "overloaded_error": "overloaded",
    "api_error": "server_error",
    "timeout_error": "server_error",
}

# The API calls these invalid_request_error too, though they are of another kind.
ERROR_WORDS: tuple[tuple[re.Pattern[str], UpstreamErrorKind], ...] = (
    (re.compile(r"prompt is too long|exceed(s|ed)? (the )?(model'?s? )?(context|maximum context)", re.I), "context_length"),
    (re.compile(r"credit balance is too low", re.I), "bad_credentials"),
    (re.compile(r"reached your specified .*usage limits", re.I), "rate_limited"),
    (re.compile(r"content filtering policy", re.I), "content_policy"),
)


class Anthropic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The Messages API, at Anthropic or at whoever serves the same at `base_url` (with or without its `/v1`).

    `beta`: values of the anthropic-beta header. `extra_body`: fields put into each request as they are ("thinking" …).
    `strict`: only message_stop ends an answer; else one that had said why it stopped is taken as complete.
    """

    dialect: ClassVar[str] = ""

    base_url: str = "https://api.anthropic.com"
    api_key: Secret | None = None
    version: str = "2023-06-01"
    beta: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    extra_body: dict[str, Any] = {}
    default_max_tokens: Annotated[int, Meta(ge=1)] = 4096
    strict: bool = False

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        sampling = chat.sampling
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": sampling.max_tokens or self.default_max_tokens,
            "messages": _messages(chat.messages),
            "stream": True,
        }
        optional = {
            "system": _system(chat.messages),
            "temperature": None if sampling.temperature is None else min(sampling.temperature, 1.0),
            "top_p": sampling.top_p,
            "stop_sequences": sampling.stop,
            "tools": [_tool(tool) for tool in chat.tools],
            "tool_choice": _tool_choice(chat) if chat.tools else None,
            "output_config": _output_config(chat),
        }
        body |= {name: value for name, value in optional.items() if value not in (None, "", (), [])}
        return UpstreamRequest(self._url, self._headers, msgspec.json.encode(body | self.extra_body))

    def decoder(self, *, verbatim: bool = False) -> "MessagesDecoder":
        return MessagesDecoder(strict=self.strict)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        raise NotImplementedError

    def transport(self) -> "Transport | None":
        return None

    def credentials(self) -> Headers:
        return (("x-api-key", self.api_key.reveal()),) if self.api_key else ()

    @property
    def _url(self) -> str:
        return self.base_url.rstrip("/").removesuffix("/v1") + "/v1/messages"

    @property
    def _headers(self) -> Headers:
        headers = {"content-type": "application/json", "accept": "text/event-stream", "anthropic-version": self.version}
        if self.beta:
            headers["anthropic-beta"] = ",".join(self.beta)
        return tuple((headers | {name.lower(): value for name, value in self.headers.items()}).items())


# ---- request


def _system(messages: Sequence[Message]) -> str:
    texts = []
    for message in messages:
        if message.role == "system":
            if any(not isinstance(part, Text) for part in message.parts):
                raise BadRequest("A system message can only be text for this model", param="messages")
            texts.append(message.text)
    return "\n\n".join(text for text in texts if text.strip())


def _messages(messages: Sequence[Message]) -> list[Block]:
    turns: list[Block] = []
    for message in messages:
        role, blocks = _turn(message)
        if not blocks:
            continue
        if not turns and role == "assistant":
            turns.append({"role": "user", "content": [{"type": "text", "text": FIRST_TURN}]})
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise BadRequest("This model needs at least one message that is not empty and not the system's", param="messages")
    _trim_prefill(turns[-1])
    return turns


def _turn(message: Message) -> tuple[str, list[Block]]:
    match message.role:
        case "system":
            return "", []
        case "user":
            return "user", _content(message.parts)
        case "assistant":
            return "assistant", _content(message.parts) + [_tool_use(call) for call in message.tool_calls]
        case "tool":
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": _content(message.parts)}
            return "user", [result]


def _trim_prefill(turn: Block) -> None:
    last = turn["content"][-1]
    if turn["role"] == "assistant" and last["type"] == "text":
        last["text"] = last["text"].rstrip()


def _content(parts: Iterable[Part]) -> list[Block]:
    """The API refuses blocks of blank text, so they are left out."""
    return [_block(part) for part in parts if not (isinstance(part, Text) and not part.text.strip())]


def _block(part: Part) -> Block:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Image(url=url):
            return {"type": "image", "source": _image_source(url)}
        case _:
            raise BadRequest(f"Content of type {part.type!r} cannot be sent to this model", param="messages")


def _image_source(url: str) -> Block:
    inline = inline_image(url)
    if inline is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": inline.media_type, "data": inline.data}


def _tool_use(call: ToolCall) -> Block:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": json_object(call.arguments)}


def _tool(tool: Tool) -> Block:
    schema = {"type": "object"} | dict(tool.parameters or {"properties": {}})
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "input_schema": schema}


def _tool_choice(chat: ChatRequest) -> Block | None:
    match chat.tool_choice:
        case "none":
            return {"type": "none"}
        case "required":
            choice = {"type": "any"}
        case ("function", str(name)):
            choice = {"type": "tool", "name": name}
        case None if chat.parallel_tool_calls is not False:
            return None
        case _:
            choice = {"type": "auto"}
    return choice | ({"disable_parallel_tool_use": True} if chat.parallel_tool_calls is False else {})


def _output_config(chat: ChatRequest) -> Block | None:
    """Structured outputs: https://docs.anthropic.com/en/docs/build-with-claude/structured-outputs"""
    wanted = response_format(chat.response_format)
    if wanted.type == "json_object":
        raise BadRequest("This model needs response_format of type json_schema, with a schema", param="response_format")
    return {"format": {"type": "json_schema", "schema": wanted.json_schema.schema}} if wanted.json_schema else None


# ---- answer


class _OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None


class _Message(msgspec.Struct):
    id: str = ""
    model: str = ""
    usage: _Usage | None = None


class _Block(msgspec.Struct):
    type: str
    id: str = ""
    name: str = ""
    text: str | None = None
    thinking: str | None = None
    input: Raw = Raw(b"")


class _Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class _Error(msgspec.Struct):
    type: str = ""
    message: str = ""


class _Event(msgspec.Struct):
    """Any event of the stream: one decode, no union, so that a type nobody here knows is no error."""

    type: str
    index: int = 0
    delta: _Delta | None = None
    content_block: _Block | None = None
    message: _Message | None = None
    usage: _Usage | None = None
    error: _Error | None = None


class _Typed(msgspec.Struct):
    type: str


class _Tool(msgspec.Struct):
    """A tool call that is being written. `whole`: its input, where it came at once; `said`: pieces have come."""

    index: int
    whole: str
    said: bool = False
