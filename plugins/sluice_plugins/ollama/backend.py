"""The backend for Ollama's own chat API, /api/chat: https://github.com/ollama/ollama/blob/main/docs/api.md
(NDJSON: one JSON object per line).

What the request loses: `tool_choice` can only be "auto" (or "none": the tools are left out), any other value
is refused; files are refused; Anthropic's thinking blocks lose their signatures; the result of a tool that
failed begins with a word that says so. Other fields that are left out (logprobs, logit_bias,
parallel_tool_calls …) are listed in config/models.yaml, and counted (`dropped_fields_total`).

If the request of a caller of Ollama's dialect has to be built anew (the alias has a prompt, or keeps the
history), its further `options` are kept, and `think` unmodified. Embeddings are requested from Ollama's
OpenAI-compatible endpoint, /v1/embeddings.

Penalties, `top_k` and `reasoning_effort` are translated as Ollama's own OpenAI endpoint does it
(openai/openai.go there, read on 2026-11-29): into `options`, and `think` from "low" to "max". Without a token
limit `num_predict` is not sent.

`sluice_plugins.ollama.stream` decodes answers. If the caller speaks the same dialect, the request is its own
JSON object with as few edits as possible (`sluice_plugins.ollama.wire`), sent to the endpoint that the caller
used, and the answer is forwarded (`sluice_plugins.ollama.passing`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from sluice.backends.protocol import Headers, Operation, UpstreamRequest, unread
from sluice.config.types import Bytes, Secret
from sluice.errors import BadRequest, UpstreamError
from sluice.model.chat import ChatRequest, Image, Message, Reasoning, Text, Tool, ToolCall
from sluice.wire.baseurl import endpoint
from sluice.wire.jsonedit import with_string
from sluice.wire.upstream_errors import upstream_error
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.ollama.passing import PassingDecoder, WholeAnswerDecoder
from sluice_plugins.ollama.stream import ChatDecoder
from sluice_plugins.ollama.wire import edits_of
from sluice_plugins.translation import (
    arguments_object,
    check_endpoint,
    inline_image,
    response_format,
    result_text,
)

if TYPE_CHECKING:
    from sluice.backends.transport import Transport

GENERATE = "generate"
"""The `profile` of a request to /api/generate."""


class Ollama(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """`base_url` with or without /api. `api_key`, if the server needs one (ollama.com), is sent as a Bearer
    token.

    `think`: true, false, or an effort ("low" … "max"), for models that can think. `keep_alive`: how long the
    model stays loaded, in seconds or as Ollama writes it ("10m"). `model_options`: Ollama's `options`
    (num_ctx, min_p …). A call's own max_tokens, sampling, penalties, seed and stop override them, and its
    reasoning_effort overrides `think`. `strict`: a malformed line is an error, otherwise it is skipped.
    `max_event`: most bytes of one line. `keep_stop`: forward `stop` after tool calls as it is.
    `always_stream`: request a stream even if a caller of this dialect wants a whole answer.
    """

    dialect: ClassVar[str] = "ollama"
    endings: ClassVar[tuple[str, ...]] = ("/api/chat", "/api", "/v1")
    credential_kinds: ClassVar[tuple[str, ...]] = ("static", "file", "exec")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_data", "tool_images", "tools", "json_object", "json_schema", "stop", "seed", "temperature", "top_p",
        "top_k", "frequency_penalty", "presence_penalty", "reasoning_effort", "reasoning_budget",
    })  # fmt: skip

    base_url: str = "http://localhost:11434"  # the address of the server
    api_key: Secret | None = None  # sent as a Bearer token
    headers: dict[str, str] = {}  # headers added to every request
    think: bool | Literal["low", "medium", "high", "max"] | None = None  # whether to think, or the effort
    keep_alive: Annotated[float, Meta(ge=-1, le=10**9)] | str | None = None  # how long a model stays loaded
    model_options: dict[str, Any] = {}  # Ollama's own options (num_ctx …)
    strict: bool = False  # whether a malformed line is an error
    always_stream: bool = False  # whether to request a stream for whole answers, too
    max_event: Bytes = MAX_EVENT  # most bytes of one line
    keep_stop: bool = False  # whether stop after tool calls is forwarded as it is, instead of as tool_calls

    def __post_init__(self) -> None:
        check_endpoint(self.base_url, self.headers)

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(self._url_of(chat), self._headers, self._written(chat, model, stream=True))

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(
            self._url_of(chat), self._whole_headers, self._written(chat, model, stream=False)
        )

    def whole_decoder(self) -> WholeAnswerDecoder:
        return WholeAnswerDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

    def _url_of(self, chat: ChatRequest) -> str:
        return (
            self._url
            if chat.wire is None or chat.dialect != self.dialect or chat.profile != GENERATE
            else self._generate
        )

    def _written(self, chat: ChatRequest, model: str, *, stream: bool) -> bytes:
        wire = chat.wire
        if wire is None or chat.dialect != self.dialect:
            return self._translated(chat, model, stream=stream)
        edits = edits_of(
            wire, self.model_options, think=self.think, keep_alive=self.keep_alive, stream=stream
        )
        if edits.get("messages", ()) is None:
            edits["messages"] = _messages(chat.messages)
        if (
            not edits
            and chat.body
            and (edited := with_string(chat.body, b'"model"', msgspec.json.encode(model))) is not None
        ):
            return edited
        body = {name: value for name, value in {**wire, **edits, "model": model}.items() if value is not None}
        return msgspec.json.encode(body)

    def _translated(self, chat: ChatRequest, model: str, *, stream: bool) -> bytes:
        if chat.tools and chat.tool_choice not in (None, "auto", "none"):
            raise BadRequest(
                "This model cannot be made to call a tool: tool_choice can be auto or none",
                param="tool_choice",
            )
        body = {
            "model": model,
            "messages": _messages(chat.messages),
            "stream": stream,
            "tools": [_tool(tool) for tool in chat.tools] if chat.tool_choice != "none" else None,
            "format": _format(chat),
            "think": _think(chat.reasoning, self.think),
            "keep_alive": self.keep_alive,
            "options": self.model_options | _options(chat),
            **_own(chat, self.model_options),
        }
        given = {
            name: value for name, value in body.items() if value is not None and value != {} and value != []
        }
        return msgspec.json.encode(given)

    def operation(self, name: str, dialect: str) -> Operation | None:
        """Embeddings and completions use Ollama's OpenAI-compatible endpoints."""
        if (name, dialect) == ("completions", "completions"):
            from sluice_plugins.openai.completions import Completions

            url = endpoint(self.base_url, "/v1/completions", self.endings)
            return Completions(self, url, self._headers, include_usage=True, max_event=self.max_event)
        if (name, dialect) != ("embeddings", "openai"):
            return None
        from sluice_plugins.openai.embeddings import Embeddings

        headers = tuple(
            [(name, "application/json" if name == "accept" else value) for name, value in self._headers]
        )
        return Embeddings(endpoint(self.base_url, "/v1/embeddings", self.endings), headers)

    def listing(self) -> UpstreamRequest | None:
        """https://github.com/ollama/ollama/blob/main/docs/api.md#list-local-models"""
        headers = tuple(
            [
                (name, "application/json" if name == "accept" else value)
                for name, value in unread(self._headers)
            ]
        )
        return UpstreamRequest(endpoint(self.base_url, "/api/tags", self.endings), headers, b"", "GET")

    def decoder(self, *, verbatim: bool = False) -> ChatDecoder:
        kind = PassingDecoder if verbatim else ChatDecoder
        return kind(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)

    def transport(self) -> "Transport | None":
        return None

    def credentials(self) -> Headers:
        return (("authorization", f"Bearer {self.api_key.reveal()}"),) if self.api_key else ()

    @cached_property
    def _url(self) -> str:
        return endpoint(self.base_url, "/api/chat", self.endings)

    @cached_property
    def _generate(self) -> str:
        return endpoint(self.base_url, "/api/generate", self.endings)

    @cached_property
    def _headers(self) -> Headers:
        return self._headers_for("application/x-ndjson")

    @cached_property
    def _whole_headers(self) -> Headers:
        return self._headers_for("application/json")

    def _headers_for(self, accept: str) -> Headers:
        headers = {"accept": accept, "content-type": "application/json"}
        return tuple((headers | {name.lower(): value for name, value in self.headers.items()}).items())


# ---- request


def _options(chat: ChatRequest) -> dict[str, Any]:
    sampling = chat.sampling
    options = {
        "num_predict": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
    }
    return {name: value for name, value in options.items() if value is not None}


def _own(chat: ChatRequest, configured: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a caller of Ollama's dialect that no other vendor has."""
    if chat.dialect != "ollama" or chat.own is None:
        return {}
    more: dict[str, Any] = {"options": {**configured, **chat.own["options"], **_options(chat)}}
    if chat.reasoning is not None and type(chat.own["think"]) is bool:
        more["think"] = chat.own["think"]
    return more


_EFFORTS: Mapping[str, bool | str] = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max",
}  # fmt: skip


def _think(wish: Reasoning | None, configured: bool | str | None) -> bool | str | None:
    """Returns the value of `think`. The API takes no budget of tokens, so a budget only turns thinking on."""
    if wish is None:
        return configured
    return _EFFORTS[wish.effort] if wish.effort else configured or True


def _format(chat: ChatRequest) -> str | dict[str, Any] | None:
    wanted = response_format(chat.response_format)
    if wanted.json_schema is not None:
        return wanted.json_schema.schema
    return "json" if wanted.type == "json_object" else None


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # by call id; Ollama matches results by the name of the tool
    translated = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        translated.append(_message(message, names))
    return translated


def _message(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "role": message.role,
        "content": result_text(message) if message.failed else message.text,
    }
    if thinking := "\n\n".join([thought.text for thought in message.thoughts if thought.text]):
        wire["thinking"] = thinking
    if images := _images(message):
        wire["images"] = images
    if message.tool_calls:
        wire["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.role == "tool":
        wire |= {"tool_call_id": message.tool_call_id, "tool_name": names.get(message.tool_call_id, "")}
    return wire


def _images(message: Message) -> list[str]:
    images = []
    for part in message.parts:
        match part:
            case Text():
                pass
            case Image(url=url):
                inline = inline_image(url)
                if inline is None:
                    raise BadRequest(
                        "This model takes images only as data: URLs; it fetches none", param="messages"
                    )
                images.append(inline.data)
            case _:
                raise BadRequest(
                    f"Content of type {part.type!r} cannot be sent to this model", param="messages"
                )
    return images


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": arguments_object(call.arguments)}}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or {"type": "object"},
    }
    return {"type": "function", "function": function}
