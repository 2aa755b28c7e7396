"""The backend for OpenAI's Chat Completions, and with another `base_url` for every server that speaks it
(vLLM, llama.cpp, Groq, Azure …).

If the caller speaks the same dialect, the upstream request is the caller's own JSON object with as few edits
as possible, so that unknown fields pass through; otherwise it is built from `sluice.model.chat`. Streams are
decoded by `sluice_plugins.openai.stream`, whole answers by `sluice_plugins.openai.document`.

Standard: https://platform.openai.com/docs/api-reference/chat
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import msgspec

from sluice.backends.protocol import Decoder, Headers, Operation, UpstreamRequest, unread
from sluice.backends.transport import Transport
from sluice.config.types import Bytes, Secret
from sluice.errors import UpstreamError
from sluice.model.chat import ChatRequest, Tool
from sluice.model.rules import LIMITS, NO_RULES, ModelRules
from sluice.wire.baseurl import endpoint
from sluice.wire.jsonedit import with_known_string, with_member
from sluice.wire.sse import EventStream
from sluice.wire.upstream_errors import upstream_error
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.openai.document import DocumentDecoder
from sluice_plugins.openai.embeddings import Embeddings
from sluice_plugins.openai.messages import (
    cache_options,
    in_order,
    is_blank,
    lacks_reasoning,
    messages_of,
    out_of_order,
    with_reasoning,
    without_blanks,
)
from sluice_plugins.openai.reasoning import effort_of
from sluice_plugins.openai.stream import ChunkDecoder
from sluice_plugins.tool_ids import fitted_ids, fitted_wire_ids, ids_fit
from sluice_plugins.tool_order import results_first
from sluice_plugins.tool_schemas import is_closed, plain_tool
from sluice_plugins.translation import account_headers, check_endpoint


class OpenAI(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """A backend that speaks Chat Completions.

    `base_url` may end in `/chat/completions`; its query is kept (Azure's api-version). `path` is appended to
    it, with the target's model in place of {model} (Azure's deployments). `headers` are added to every
    request. `max_tokens_field`: the name under which the token limit is sent; null: the name in the model's
    rules (config/models.yaml), else the caller's. `include_usage`: request the usage chunk. `strict`: a
    malformed event is an error instead of being skipped. `completions`: the server has /completions beside
    chats; it is used for callers of that endpoint, with suffix, tokens and all other fields. `always_stream`:
    request a stream even if a caller of this dialect wants a whole answer. `max_event`: most bytes of one
    event of a stream. `keep_stop`: forward the provider's `stop` after tool calls instead of `tool_calls`.
    `usage_is_end`: a stream that ends after its usage is complete even without a finish reason and [DONE].
    `count_tokens`: the kind of server, if it has a /tokenize endpoint beside /v1; it counts tokens for
    callers of Anthropic's, Gemini's and the Responses dialect.
    """

    base_url: str = "https://api.openai.com/v1"  # the address of its API, with /v1
    path: str = "/chat/completions"  # the path below base_url; {model} in it is the target's model
    api_key: Secret | None = None  # sent as a Bearer token
    organization: str | None = None  # the openai-organization header
    project: str | None = None  # the openai-project header
    headers: dict[str, str] = {}  # headers added to every request
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = (
        None  # the name under which the token limit is sent
    )
    include_usage: bool = True  # whether to request the usage chunk
    strict: bool = False  # whether a malformed event ends the stream
    always_stream: bool = False  # whether to request a stream for whole answers, too
    max_event: Bytes = MAX_EVENT  # most bytes of one event
    keep_stop: bool = False  # whether stop after tool calls is forwarded as it is, instead of as tool_calls
    completions: bool = False  # whether the server has /completions, which continues a text
    count_tokens: Literal["vllm", "llama.cpp"] | None = (
        None  # the kind of server whose /tokenize counts tokens; null: tokens are estimated
    )
    usage_is_end: bool = False  # whether usage and then the body's end complete an answer

    dialect: ClassVar[str] = "openai"
    endings: ClassVar[tuple[str, ...]] = ("/chat/completions", "/chat")
    credential_kinds: ClassVar[tuple[str, ...]] = ("static", "file", "exec", "aws", "google", "azure")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_url", "image_data", "file_data", "input_audio", "video", "tool_images", "tools",
        "tool_choice_required", "tool_choice_named", "json_object", "json_schema", "parallel_tool_calls", "stop",
        "seed", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "reasoning_effort",
        "reasoning_budget", "user",
    })  # fmt: skip
    rules: ClassVar[ModelRules] = NO_RULES

    def __post_init__(self) -> None:
        check_endpoint(self.base_url, self.headers)
        if not self.path.startswith("/") or set(self.path) & set("?#"):
            raise ValueError("path must begin with a slash, and have no query: that stands in base_url")

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        wire = chat.wire if chat.dialect == self.dialect else None
        if wire is not None and chat.body and (edited := self._edited(chat, wire, model, stream=True)):
            return UpstreamRequest(self._url_of(model), self._headers, edited)
        body = self._passed_through(chat, wire) if wire is not None else self._translated(chat)
        if self.rules.prefix:
            body["messages"] = _with_prefix(body["messages"])
        body["model"] = model
        body["stream"] = True
        if self._asks_usage:
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        return UpstreamRequest(url=self._url_of(model), headers=self._headers, body=_encode(body))

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        wire = chat.wire or {}  # the caller speaks this dialect, so there is one
        if chat.body and (edited := self._edited(chat, wire, model, stream=False)):
            return UpstreamRequest(self._url_of(model), self._whole_headers, edited)
        body = self._passed_through(chat, wire)
        if self.rules.prefix:
            body["messages"] = _with_prefix(body["messages"])
        body["model"] = model
        return UpstreamRequest(url=self._url_of(model), headers=self._whole_headers, body=_encode(body))

    def whole_decoder(self) -> Decoder:
        return DocumentDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

    def operation(self, name: str, dialect: str) -> Operation | None:
        if name == "completions":
            return self._completions if self.completions and dialect == "completions" else None
        if name != "embeddings" or dialect != self.dialect:
            return self._other_operation(name, dialect)
        return Embeddings(endpoint(self.base_url, "/embeddings", self.endings), self._whole_headers)

    def listing(self) -> UpstreamRequest | None:
        if self.path != "/chat/completions":
            return None  # Azure's deployments
        return UpstreamRequest(
            endpoint(self.base_url, "/models", self.endings), unread(self._whole_headers), b"", "GET"
        )

    def decoder(self, *, verbatim: bool = False) -> Decoder:
        return ChunkDecoder(
            verbatim=verbatim,
            keep_stop=self.keep_stop,
            strict=self.strict,
            stream=EventStream(self.max_event),
            usage_is_end=self.usage_is_end,
        )

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)

    def transport(self) -> Transport | None:
        return None

    def credentials(self) -> Headers:
        return self._credentials

    def _other_operation(self, name: str, dialect: str) -> Operation | None:
        from sluice_plugins.openai.operations import PATHS, Whole

        if (name, dialect) == ("speech", self.dialect):
            from sluice_plugins.openai.speech import Speech

            return Speech(self, endpoint(self.base_url, "/audio/speech", self.endings), self._whole_headers)
        if dialect == self.dialect and name in FORMS:
            from sluice_plugins.openai.forms import PATHS as OF_FORMS
            from sluice_plugins.openai.forms import Forms

            return Forms(
                self, endpoint(self.base_url, OF_FORMS[name], self.endings), self._whole_headers, name
            )
        if name == "count_tokens":
            return self._counting(dialect)
        path = PATHS.get((name, dialect))
        return Whole(endpoint(self.base_url, path, self.endings), self._whole_headers, name) if path else None

    def _counting(self, dialect: str) -> Operation | None:
        if self.count_tokens is None:
            return None
        from sluice_plugins.openai.counting import COUNT_DOCUMENTS, Counting

        if dialect not in COUNT_DOCUMENTS:
            return None
        url = endpoint(
            self.base_url, "/tokenize", (*[f"/v1{ending}" for ending in self.endings], "/v1", *self.endings)
        )
        return Counting(url, self._whole_headers, dialect, self._translated, self.count_tokens == "vllm")

    @cached_property
    def _asks_usage(self) -> bool:
        """Whether usage is requested; some vendors refuse the option `stream_options`, and report usage
        anyway."""
        return self.include_usage and "stream_options" not in self.rules.drop

    @cached_property
    def _completions(self) -> Operation:
        from sluice_plugins.openai.completions import Completions

        url = endpoint(
            self.base_url, self.path.removesuffix("/chat/completions") + "/completions", self.endings
        )
        return Completions(self, url, self._headers, include_usage=self._asks_usage, max_event=self.max_event)

    @cached_property
    def _limit_name(self) -> str:
        """The name under which the token limit must be sent; "" to keep the caller's."""
        return self.max_tokens_field or self.rules.limit_name

    @cached_property
    def _url(self) -> str:
        return endpoint(self.base_url, self.path, self.endings)

    def _url_of(self, model: str) -> str:
        url = self._url
        return url.replace("{model}", quote(model, safe="")) if "{model}" in url else url

    @cached_property
    def _headers(self) -> Headers:
        return self._headers_for("text/event-stream")

    @cached_property
    def _whole_headers(self) -> Headers:
        return self._headers_for("application/json")

    def _headers_for(self, accept: str) -> Headers:
        return account_headers(accept, self.organization, self.project, self.headers)

    @cached_property
    def _credentials(self) -> Headers:
        return () if self.api_key is None else (("authorization", f"Bearer {self.api_key.reveal()}"),)

    def _edited(self, chat: ChatRequest, wire: dict[str, Any], model: str, *, stream: bool) -> bytes:
        """Returns the caller's body with another model and usage requested; b"" if it needs other changes."""
        body = chat.body
        if self._orders and self._needs_order(chat):
            return b""
        if not (chat.only_texts or (self._limit_stands(chat, wire) and self._messages_stand(chat, wire))):
            return b""
        if wire.get("model") != model:
            edited = with_known_string(body, b'"model"', _encode(model)) if "model" in wire else None
            if edited is None:
                return b""
            body = edited
        if not stream:
            return body
        if wire.get("stream") is not True:
            return b""
        if not self._asks_usage:
            return body
        if "stream_options" in wire:
            return body if wire["stream_options"] == _USAGE else b""
        return with_member(body, b'"stream_options":{"include_usage":true}')

    def _messages_stand(self, chat: ChatRequest, wire: dict[str, Any]) -> bool:
        """Returns whether the messages can stay as they are: the ids of tool calls are valid, and no message
        has to be inserted or needs another field."""
        rules = self.rules
        return (not rules.tool_ids or ids_fit(chat.messages, rules.tool_ids)) and not (
            (self._fills_reasoning(chat) and lacks_reasoning(wire["messages"]))
            or (rules.thinking_switch and chat.reasoning is not None and "thinking" not in wire)
        )

    @cached_property
    def _orders(self) -> bool:
        """Whether even a conversation that has only texts may have to be changed."""
        return self.rules.prefix or self.rules.replies or not self.rules.blank_answers

    def _needs_order(self, chat: ChatRequest) -> bool:
        """Returns whether messages have to be marked, left out, moved or inserted."""
        rules, messages = self.rules, chat.messages
        return (
            (rules.prefix and any([message.role == "assistant" for message in messages[-1:]]))
            or (rules.replies and out_of_order([message.role for message in messages]))
            or (not rules.blank_answers and any([is_blank(message) for message in messages]))
        )

    def _fills_reasoning(self, chat: ChatRequest) -> bool:
        """Returns whether tool calls without reasoning get a blank one: not if the caller wants no reasoning,
        unless the model always thinks."""
        return self.rules.blank_reasoning and (
            self.rules.always_thinks or chat.reasoning is None or chat.reasoning.effort != "none"
        )

    def _limit_stands(self, chat: ChatRequest, wire: dict[str, Any]) -> bool:
        """Returns whether the token limit can stay: given once, as an integer, under the right name."""
        if "max_tokens" in wire:
            name = "" if "max_completion_tokens" in wire else "max_tokens"
        elif "max_completion_tokens" in wire:
            name = "max_completion_tokens"
        else:
            return True
        limit = chat.sampling.max_tokens
        return (
            bool(name)
            and name == (self._limit_name or name)
            and type(wire[name]) is int
            and wire[name] == limit
        )

    def _passed_through(self, chat: ChatRequest, wire: dict[str, Any]) -> dict[str, Any]:
        body = dict(wire)
        given = [name for name in LIMITS if name in body]
        for name in given:
            del body[name]
        if given and chat.sampling.max_tokens is not None:
            body[self._limit_name or given[0]] = chat.sampling.max_tokens
        if self.rules.tool_ids and not ids_fit(chat.messages, self.rules.tool_ids):
            body["messages"] = fitted_wire_ids(body["messages"], self.rules.tool_ids)
        if self._orders:
            body["messages"] = self._ordered(body["messages"])
        if self._fills_reasoning(chat):
            body["messages"] = with_reasoning(body["messages"])
        if self.rules.thinking_switch:
            self._switch(body, chat)
        return body

    def _ordered(self, messages: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        if not self.rules.blank_answers:
            messages = without_blanks(messages)
        return in_order(messages) if self.rules.replies else messages

    def _switch(self, body: dict[str, Any], chat: ChatRequest) -> None:
        """Write an effort as `thinking`, which this vendor has in its place."""
        body.pop("reasoning_effort", None)
        if chat.reasoning is not None:
            some, none = self.rules.thinking_switch
            body.setdefault("thinking", {"type": none if chat.reasoning.effort == "none" else some})

    def _translated(self, chat: ChatRequest) -> dict[str, Any]:
        sampling, rules = chat.sampling, self.rules
        messages = results_first(chat.messages)
        messages = fitted_ids(messages, rules.tool_ids) if rules.tool_ids else messages
        written = messages_of(
            messages,
            chat.dialect,
            reasoning="messages.reasoning_content" not in rules.drop,
            marks=rules.cache_marks,
        )
        if self._orders:
            written = list(self._ordered(written))
        if self._fills_reasoning(chat):
            written = with_reasoning(written)
        if (
            sampling is _NO_SAMPLING
            and not chat.tools
            and chat.tool_choice is None
            and chat.parallel_tool_calls is None
            and chat.response_format is None
            and chat.reasoning is None
            and not chat.user
            and not (rules.default or rules.force or rules.cache_marks or "system" in rules.roles)
        ):
            return {"messages": written}  # the most frequent case
        body: dict[str, Any] = {
            "messages": written,
            self._limit_name or LIMITS[0]: sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "stop": sampling.stop or None,
            "seed": sampling.seed,
            "tools": [_tool(tool) for tool in chat.tools] or None,
            "tool_choice": _tool_choice(chat.tool_choice)
            if chat.tools
            else None,  # OpenAI accepts it only together with tools
            "parallel_tool_calls": chat.parallel_tool_calls if chat.tools else None,
            "response_format": chat.response_format,
            "reasoning_effort": effort_of(chat.reasoning, rules.efforts)
            if chat.reasoning is not None
            else None,
            "user": chat.user if 0 < len(chat.user) <= MAX_USER_LENGTH and "user" not in rules.drop else None,
            "prompt_cache_options": cache_options(chat, rules.cache_marks),
        }
        if "system" in rules.roles:  # "developer", or another role that `sluice.model.chat` has no name for
            for message in body["messages"]:
                message["role"] = rules.roles.get(message["role"], message["role"])
        names = {
            name: new for name, new in rules.rename.items() if name not in LIMITS
        }  # the limit has its right name already
        given = {names.get(name, name): value for name, value in body.items() if value is not None}
        if rules.thinking_switch:
            self._switch(given, chat)
        if not (rules.default or rules.force):
            return given
        ours = {
            name: value
            for name, value in {**rules.default, **given, **rules.force}.items()
            if name not in LIMITS
        }
        return ours | {name: given[name] for name in LIMITS if name in given}


FORMS = frozenset({"transcriptions", "translations", "image_edits"})
"""Operations whose requests are multipart forms."""
MAX_USER_LENGTH = 64
"""The longest `user` that OpenAI accepts, in characters; a longer one is left out."""
_USAGE = {"include_usage": True}
_NO_SAMPLING = ChatRequest("", None, ()).sampling
_encode = msgspec.json.Encoder().encode


# the request, from `sluice.model.chat`


def _with_prefix(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the messages; a last assistant message is marked as the beginning of the answer."""
    last = [
        {**message, "prefix": True} if message["role"] == "assistant" else message
        for message in messages[-1:]
    ]
    return [*messages[:-1], *last]


def _tool(tool: Tool) -> dict[str, Any]:
    description, schema = plain_tool(tool)
    function: dict[str, Any] = {"name": tool.name}
    if description:
        function["description"] = description
    if tool.parameters is not None:
        function["parameters"] = schema
    if tool.strict and is_closed(schema):
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: str | tuple[str, str] | None) -> Any:
    match choice:
        case (kind, name):
            return {"type": kind, kind: {"name": name}}
        case _:
            return choice
