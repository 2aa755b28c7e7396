"""The backend for Cohere's chat API, version 2: https://docs.cohere.com/reference/chat-stream

What is lost or changed in a request:
  - system messages are joined into one at the beginning, the only place where Cohere accepts one;
  - results of tools are text only: images and files in them follow in a user message after all results of the turn;
  - text files become `documents`, which answers cite; other files are refused;
  - `temperature` and penalties are limited to 0…1, `top_p` to 0.01…0.99: OpenAI's ranges are wider;
  - if the caller requires a certain function, it is sent as the only tool with tool_choice REQUIRED: Cohere has only REQUIRED
    and NONE;
  - `response_format` of type json_schema is sent as json_object with a schema;
  - earlier reasoning is sent as the tool plan of the calls that followed it, and is otherwise left out;
  - other fields that are left out (logprobs, logit_bias, parallel_tool_calls …) are in config/models.yaml, and counted.

`sluice_plugins.cohere.stream` decodes answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from sluice.backends.protocol import Headers, Operation, UpstreamRequest, unread
from sluice.config.types import Bytes, Secret
from sluice.errors import BadRequest, UpstreamError
from sluice.model.chat import ChatRequest, Image, Message, Other, Part, Reasoning, Text, Tool, ToolCall
from sluice.model.rules import NO_RULES, ModelRules
from sluice.wire.baseurl import endpoint
from sluice.wire.dataurl import inline_data, standard_base64
from sluice.wire.upstream_errors import upstream_error
from sluice_plugins.anthropic.thinking import BUDGETS
from sluice_plugins.cohere.stream import ChatDecoder
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.tool_ids import fitted_ids
from sluice_plugins.tool_order import results_first
from sluice_plugins.tool_schemas import object_schema
from sluice_plugins.translation import (
    OF_TOOLS,
    SHOWN,
    arguments_object,
    check_endpoint,
    decoded_text,
    inline_image,
    is_text,
    json_object,
    response_format,
    result_text,
    type_of_name,
)

if TYPE_CHECKING:
    from sluice.backends.transport import Transport

Block = dict[str, Any]
Citations = Literal["enabled", "disabled", "fast", "accurate", "off"]
InputType = Literal["search_document", "search_query", "classification", "clustering"]


class Cohere(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """Cohere's own API, or a private deployment of it at `base_url`, with or without /v2.

    `extra_body`: fields added to each request (`documents` are appended to those of the request). `billed`:
    usage counts billed tokens, which exclude Cohere's own part of the prompt. `strict`: malformed data in the
    stream is an error, otherwise it is skipped. `max_event`: most bytes of one event. `keep_stop`: COMPLETE
    after tool calls is reported as `stop`, not `tool_calls`.
    """

    dialect: ClassVar[str] = ""
    endings: ClassVar[tuple[str, ...]] = ("/v2/chat", "/v1/chat", "/v2", "/v1")
    credential_kinds: ClassVar[tuple[str, ...]] = ("static", "file", "exec")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_url", "image_data", "file_data", "tool_images", "tools", "tool_choice_required", "tool_choice_named",
        "json_object", "json_schema", "stop", "seed", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty",
        "reasoning_effort", "reasoning_budget",
    })  # fmt: skip
    rules: ClassVar[ModelRules] = NO_RULES

    base_url: str = "https://api.cohere.com"  # the address of its API
    api_key: Secret | None = None  # sent as a Bearer token
    headers: dict[str, str] = {}  # headers added to every request
    citations: Citations | None = None  # how answers cite documents and results of tools
    safety_mode: Literal["contextual", "strict", "off"] | None = None  # Cohere's safety mode
    strict_tools: bool | None = (
        None  # whether calls must follow their schemas strictly; null: as the tools say
    )
    extra_body: dict[str, Any] = {}  # fields added to every request
    input_type: InputType = "search_document"  # what embeddings are for, where the caller does not say
    billed: bool = False  # whether usage counts billed tokens
    strict: bool = False  # whether a malformed event is an error
    max_event: Bytes = MAX_EVENT  # most bytes of one event
    keep_stop: bool = False  # whether stop after tool calls is forwarded as it is, instead of as tool_calls

    def __post_init__(self) -> None:
        check_endpoint(self.base_url, self.headers)

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        documents: list[Block] = []
        body = {
            "model": model,
            "messages": _messages(fitted_ids(results_first(chat.messages), self.rules.tool_ids), documents),
            "stream": True,
            **self._tools(chat),
            "response_format": _response_format(chat),
            "thinking": _thinking(chat.reasoning) if self.rules.thinking != "never" else None,
            "citation_options": {"mode": self.citations.upper()} if self.citations else None,
            "safety_mode": self.safety_mode.upper() if self.safety_mode else None,
            **_sampling(chat),
            **self.extra_body,
        }
        if documents:
            body["documents"] = [*documents, *self.extra_body.get("documents", ())]
        given = {name: value for name, value in body.items() if value is not None}
        return UpstreamRequest(self._url, self._headers, msgspec.json.encode(given))

    def operation(self, name: str, dialect: str) -> Operation | None:
        """Reranking (https://docs.cohere.com/reference/rerank) and embeddings."""
        if (name, dialect) == ("embeddings", "openai"):
            from sluice_plugins.cohere.embeddings import Embeddings

            return Embeddings(
                endpoint(self.base_url, "/v2/embed", self.endings), self._whole_headers, self.input_type
            )
        if (name, dialect) != ("rerank", "rerank"):
            return None
        from sluice_plugins.openai.operations import Whole

        return Whole(endpoint(self.base_url, "/v2/rerank", self.endings), self._whole_headers, "rerank")

    def listing(self) -> UpstreamRequest | None:
        """https://docs.cohere.com/reference/list-models"""
        url = endpoint(self.base_url, "/v1/models", self.endings)
        url += f"{'&' if '?' in url else '?'}page_size=1000"
        return UpstreamRequest(url, unread(self._whole_headers), b"", "GET")

    def decoder(self, *, verbatim: bool = False) -> ChatDecoder:
        return ChatDecoder(
            strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop, billed=self.billed
        )

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)

    def transport(self) -> "Transport | None":
        return None

    def credentials(self) -> Headers:
        return (("authorization", f"Bearer {self.api_key.reveal()}"),) if self.api_key else ()

    def _tools(self, chat: ChatRequest) -> Block:
        """https://docs.cohere.com/v2/docs/tool-use-usage-patterns"""
        if not chat.tools:
            return {}
        tools, choice = chat.tools, None
        match chat.tool_choice:
            case "none":
                choice = "NONE"
            case "required":
                choice = "REQUIRED"
            case ("function", str(name)):
                tools, choice = tuple(tool for tool in tools if tool.name == name), "REQUIRED"
                if not tools:
                    raise BadRequest(
                        "tool_choice names a function that is none of the tools", param="tool_choice"
                    )
        strict = (
            self.strict_tools
            if self.strict_tools is not None
            else (all(tool.strict for tool in tools) or None)
        )
        return {"tools": [_tool(tool) for tool in tools], "tool_choice": choice, "strict_tools": strict}

    @cached_property
    def _url(self) -> str:
        return endpoint(self.base_url, "/v2/chat", self.endings)

    @cached_property
    def _whole_headers(self) -> Headers:
        return tuple(
            [(name, "application/json" if name == "accept" else value) for name, value in self._headers]
        )

    @cached_property
    def _headers(self) -> Headers:
        headers = {"accept": "text/event-stream", "content-type": "application/json"}
        return tuple((headers | {name.lower(): value for name, value in self.headers.items()}).items())


# ---- request


def _sampling(chat: ChatRequest) -> Block:
    sampling = chat.sampling
    return {
        "max_tokens": sampling.max_tokens,
        "temperature": _within(sampling.temperature, 0, 1),
        "p": _within(sampling.top_p, 0.01, 0.99),
        "k": _within(sampling.top_k, 0, 500),
        "seed": sampling.seed,
        "stop_sequences": list(sampling.stop) or None,
        "frequency_penalty": _within(sampling.frequency_penalty, 0, 1),
        "presence_penalty": _within(sampling.presence_penalty, 0, 1),
    }


def _within(value: float | None, least: float, most: float) -> float | None:
    return None if value is None else min(max(value, least), most)


def _thinking(wish: Reasoning | None) -> Block | None:
    """Returns Cohere's `thinking`: on or off, with a budget of tokens; the highest efforts have no budget:
    https://docs.cohere.com/docs/reasoning"""
    if wish is None or not (wish.effort or wish.budget is not None):
        return None
    if wish.effort == "none" or wish.budget == 0:
        return {"type": "disabled"}
    budget = (
        wish.budget
        if wish.budget
        else BUDGETS[wish.effort]
        if wish.effort in ("minimal", "low", "medium")
        else None
    )
    return {"type": "enabled"} | ({"token_budget": budget} if budget else {})


def _response_format(chat: ChatRequest) -> Block | None:
    wanted = response_format(chat.response_format)
    if wanted.json_schema is not None:
        return {"type": "json_object", "json_schema": wanted.json_schema.schema}
    return {"type": "json_object"} if wanted.type == "json_object" else None


def _messages(messages: Sequence[Message], documents: list[Block]) -> list[Block]:
    """Returns the messages of the conversation; its files are appended to `documents`."""
    system = [message.text for message in messages if message.role == "system" and message.text.strip()]
    turns: list[Block] = [{"role": "system", "content": "\n\n".join(system)}] if system else []
    shown: list[Part] = []  # content of tool results that is not text
    for message in messages:
        if shown and message.role in ("user", "assistant"):
            turns.append({"role": "user", "content": _content([Text(OF_TOOLS), *shown], documents)})
            shown = []
        match message.role:
            case "system":
                if any(not isinstance(part, Text) for part in message.parts):
                    raise BadRequest("A system message can only be text for this model", param="messages")
            case "user":
                if content := _content(message.parts, documents):
                    turns.append({"role": "user", "content": content})
            case "assistant":
                turns += _assistant(message)
            case "tool":
                turns.append(
                    {"role": "tool", "tool_call_id": message.tool_call_id, "content": _result(message)}
                )
                shown += [part for part in message.parts if not isinstance(part, Text)]
    if shown:
        turns.append({"role": "user", "content": _content([Text(OF_TOOLS), *shown], documents)})
    if len(turns) == bool(system):
        raise BadRequest(
            "This model needs at least one message that is not empty and not the system's", param="messages"
        )
    return turns


def _assistant(message: Message) -> list[Block]:
    if any(not isinstance(part, Text) for part in message.parts):
        raise BadRequest("An assistant's message can only be text for this model", param="messages")
    turn: Block = {"role": "assistant"}
    if message.text:
        turn["content"] = message.text
    if message.tool_calls:
        turn["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
        if plan := "\n\n".join(
            [thought.text for thought in message.thoughts if thought.text and not thought.sealed]
        ):
            turn["tool_plan"] = plan
    return [turn] if len(turn) > 1 else []


def _content(parts: Iterable[Part], documents: list[Block]) -> str | list[Block]:
    """Returns a text, or content blocks if there are images."""
    blocks: list[Block] = []
    for part in parts:
        match part:
            case Text(text=text):
                if text:
                    blocks.append({"type": "text", "text": text})
            case Image(url=url, detail=detail):
                inline = inline_image(url)
                image = {"url": url if inline is None else f"data:{inline.media_type};base64,{inline.data}"}
                blocks.append(
                    {"type": "image_url", "image_url": image | ({"detail": detail} if detail else {})}
                )
            case Other(type="file", wire=wire):
                documents.append(_document(wire.get("file"), len(documents)))
            case _:
                raise BadRequest(
                    f"Content of type {part.type!r} cannot be sent to this model", param="messages"
                )
    if all(block["type"] == "text" for block in blocks):
        return "".join([block["text"] for block in blocks])
    return blocks


def _document(file: Any, number: int) -> Block:
    """Returns a text file as a document that answers can cite:
    https://docs.cohere.com/v2/docs/retrieval-augmented-generation-rag"""
    match file:
        case {"file_data": str(data), **rest} if data:
            name = rest.get("filename")
        case _:
            raise BadRequest(
                "A file can only be sent to this model with its bytes (file_data)", param="messages"
            )
    inline = inline_data(data)
    encoded = inline.data if inline is not None else standard_base64(data)
    if not encoded or not is_text(inline.media_type if inline is not None else type_of_name(name)):
        raise BadRequest("A file can only be text for this model, as a data: URL in base64", param="messages")
    titled = {"title": name} if isinstance(name, str) and name else {}
    return {"id": f"file:{number}", "data": {**titled, "text": decoded_text(encoded)}}


def _result(message: Message) -> str | list[Block]:
    """Returns a tool's result: a text, or a document if it is a JSON object, so that answers can cite it."""
    text = result_text(message)
    if not text and message.parts and not any(isinstance(part, Text) for part in message.parts):
        return SHOWN
    if not text.lstrip().startswith("{"):
        return text
    try:
        data = json_object(text)
    except BadRequest:
        return text
    return [{"type": "document", "document": {"data": data}}]


def _tool_call(call: ToolCall) -> Block:
    function = {"name": call.name, "arguments": bytes(arguments_object(call.arguments)).decode()}
    return {"id": call.id, "type": "function", "function": function}


def _tool(tool: Tool) -> Block:
    described = {"description": tool.description} if tool.description else {}
    function = {"name": tool.name, **described, "parameters": object_schema(tool.parameters)}
    return {"type": "function", "function": function}
