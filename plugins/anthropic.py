"""Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and .../build-with-claude/streaming.

What the request loses or changes on the way, because the API has no word for it:
  - system messages are gathered, wherever they stand, into the one `system` text;
  - neighbouring messages of one role become one, and a conversation that an assistant begins is given a user turn first;
  - `max_tokens` is required there: `default_max_tokens` where the caller set none;
  - `temperature` above 1 (OpenAI's scale ends at 2) is sent as 1: a caller cannot know which vendor an alias leads to,
    and refusing would break failing over to it;
  - `seed` is left out: it is a wish in every dialect;
  - an assistant's last words lose their trailing white space, which the API refuses in a prefill.

The answer is plugins.anthropic_stream.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from gateway.backends import Headers, UpstreamRequest
from gateway.chat import ChatRequest, Image, Message, Part, Text, Tool, ToolCall
from gateway.config import Secret
from gateway.errors import BadRequest, UpstreamError
from gateway.wire.baseurl import endpoint
from gateway.wire.upstream_errors import upstream_error
from plugins.anthropic_stream import MessagesDecoder
from plugins.translation import check_endpoint, inline_image, json_object, response_format

if TYPE_CHECKING:
    from gateway.transport import Transport

Block = dict[str, Any]

FIRST_TURN = "(The assistant begins this conversation.)"
"""Said for the user where an assistant's message comes first; the API wants a user's there."""


class Anthropic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The Messages API, at Anthropic or at whoever serves the same at `base_url` (with or without its `/v1`).

    `beta`: values of the anthropic-beta header. `extra_body`: fields put into each request as they are ("thinking" …).
    `strict`: data in the stream that is no event is an error, else it is skipped.
    """

    dialect: ClassVar[str] = ""
    endings: ClassVar[tuple[str, ...]] = ("/v1/messages", "/messages", "/v1")

    base_url: str = "https://api.anthropic.com"
    api_key: Secret | None = None
    version: str = "2023-06-01"
    beta: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    extra_body: dict[str, Any] = {}
    default_max_tokens: Annotated[int, Meta(ge=1)] = 4096
    strict: bool = False

    def __post_init__(self) -> None:
        check_endpoint(self.base_url, self.headers)

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

    def decoder(self, *, verbatim: bool = False) -> MessagesDecoder:
        return MessagesDecoder(strict=self.strict)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)

    def transport(self) -> "Transport | None":
        return None

    def credentials(self) -> Headers:
        return (("x-api-key", self.api_key.reveal()),) if self.api_key else ()

    @cached_property
    def _url(self) -> str:
        return endpoint(self.base_url, "/v1/messages", self.endings)

    @cached_property
    def _headers(self) -> Headers:
        headers = {"accept": "text/event-stream", "content-type": "application/json"}
        headers["anthropic-version"] = self.version
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
