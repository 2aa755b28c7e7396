"""The backend for Anthropic's Messages API: https://docs.anthropic.com/en/api/messages and
.../build-with-claude/streaming.

If the caller speaks the same dialect, the request is the caller's own JSON object with as few edits as
possible (`sluice_plugins.anthropic.wire`), and the answer is forwarded (`sluice_plugins.anthropic.passing`).

How any other request is changed, where the API differs:
  - all system messages are joined into the one `system`;
  - consecutive messages of one role become one message; a conversation that begins with the assistant gets a user message
    first;
  - `max_tokens` is required: `default_max_tokens` is sent if the caller set none;
  - `temperature` above 1 (OpenAI's range ends at 2) is sent as 1: a caller cannot know which vendor an alias leads to,
    and refusing would break failover to it;
  - a final assistant message loses its trailing white space, which the API refuses in a prefill;
  - `response_format` of type json_object becomes a sentence at the end of `system`: there is no JSON mode without a schema;
  - reasoning without Anthropic's signature (another vendor's) is left out;
  - files become documents: PDF and text, inline or by URL; OpenAI's file ids are refused;
  - config/models.yaml says which fields are left out (seed, penalties, logprobs …), which sampling a model takes, the form
    of tool call ids and whether stop sequences may be blank. Fields left out are counted
    (`dropped_fields_total`).

`cache_control` is passed on from the request, from tools, and from system, user and tool messages and their
parts. `sluice_plugins.anthropic.thinking` sets `thinking`; `sluice_plugins.anthropic.stream` decodes answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from sluice.backends.credentials import KeyField
from sluice.backends.protocol import Headers, Operation, UpstreamRequest, unread
from sluice.config.types import Bytes, Secret
from sluice.errors import BadRequest, UpstreamError
from sluice.model.chat import (
    Cache,
    ChatRequest,
    Image,
    Message,
    Other,
    Part,
    Text,
    Thought,
    Tool,
    ToolCall,
)
from sluice.model.rules import NO_RULES, Effort, ModelRules
from sluice.wire.baseurl import endpoint
from sluice.wire.dataurl import inline_data, is_http, standard_base64
from sluice.wire.forwarding import Allowed
from sluice.wire.jsonedit import with_known_string
from sluice.wire.upstream_errors import upstream_error
from sluice_plugins.anthropic.passing import PassingDecoder, WholeMessageDecoder
from sluice_plugins.anthropic.schemas import answer_schema
from sluice_plugins.anthropic.stream import MessagesDecoder
from sluice_plugins.anthropic.thinking import LOWEST_TOP_P, ThinkingPlan, plan, thinks
from sluice_plugins.anthropic.threads import of_thread, without_thread
from sluice_plugins.anthropic.wire import FITTED, edits_of, is_own
from sluice_plugins.counting import Counting
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.tool_ids import fitted_ids
from sluice_plugins.tool_order import results_first
from sluice_plugins.tool_schemas import plain_tool
from sluice_plugins.translation import (
    arguments_object,
    check_endpoint,
    decoded_text,
    inline_image,
    is_text,
    response_format,
    type_of_name,
)

if TYPE_CHECKING:
    from sluice.backends.transport import Transport

Block = dict[str, Any]
OWN_HOST = "api.anthropic.com"
PDF = "application/pdf"
THINKING = frozenset({"thinking", "redacted_thinking"})
"""Blocks that must come first in an assistant's turn."""
THREADS = "message-threads"
"""The beta of message threads."""
BETAS = (
    "agent-memory", "advisor-tool", "cache-diagnosis", "claude-code", "code-execution", "compact", "computer-use",
    "context-1m", "context-management", "dev-full-thinking", "effort", "extended-cache-ttl", "fallback-credit", "fast-mode",
    "files-api", "fine-grained-tool-streaming", "inline-tools", "interleaved-thinking", "mcp-client", "mcp-tunnels",
    THREADS, "mid-conversation-output-config", "mid-conversation-system", "mid-conversation-system-clear-at",
    "mid-conversation-tool-changes", "model-context-window-exceeded", "oauth", "output-128k", "output-300k", "pdfs",
    "prompt-caching", "prompt-caching-scope", "search-results", "server-side-fallback", "skills", "structured-outputs",
    "task-budgets", "thinking-binding-controls", "thinking-display-updates", "thinking-token-count",
    "token-counting", "token-efficient-tools", "tool-search-tool", "advanced-tool-use", "web-fetch", "web-search",
)  # fmt: skip
"""What Anthropic's SDKs and Claude Code send of the anthropic-beta header for messages, without the values'
dates (anthropic-sdk-python 2.12, `AnthropicBetaParam`, and Claude Code 2.1; read on 2026-11-29)."""
FIRST_TURN = "(The assistant begins this conversation.)"
"""The user message sent before a leading assistant message: the API requires one."""

ONLY_JSON = "Answer with one JSON object, and nothing before or after it."
"""Appended to `system` for `response_format: json_object`."""


class Anthropic(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The Messages API, of Anthropic or of another server at `base_url` (with or without its `/v1`).

    `beta`: values of the anthropic-beta header. `extra_body`: fields copied into each request; its `thinking`
    is adapted to the request, its `output_config` merged into the request's. `strict`: malformed data in the
    stream is an error, otherwise it is skipped. `max_event`: most bytes of one event. `beta_allowed`: values
    of the anthropic-beta header that callers may send, with or without their dates; "*" allows all.
    `count_tokens`: forward requests to count tokens; null: only if `base_url` is Anthropic's own. `threads`:
    the server keeps message threads (null: as with `count_tokens`); callers may use them if `message-threads`
    is an allowed beta. `always_stream`: request a stream even if a caller of this dialect wants a whole
    answer. `keep_stop`: forward `stop` after tool calls instead of `tool_calls`. `usage_is_end`: a stream
    that ends after its last usage is complete even without a stop reason.
    """

    dialect: ClassVar[str] = "anthropic"
    endings: ClassVar[tuple[str, ...]] = ("/v1/messages", "/messages", "/v1")
    credential_kinds: ClassVar[tuple[str, ...]] = ("static", "file", "exec", "aws", "google", "azure")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_url", "image_data", "file_data", "file_url", "tool_images", "tools", "tool_choice_required",
        "tool_choice_named", "json_object", "json_schema", "parallel_tool_calls", "stop", "temperature", "top_p",
        "top_k", "reasoning_effort", "reasoning_budget", "cache_control",
    })  # fmt: skip
    key_field: ClassVar[KeyField] = KeyField("x-api-key")
    rules: ClassVar[ModelRules] = NO_RULES

    base_url: str = "https://api.anthropic.com"  # the address of its API
    api_key: Secret | None = None  # sent as x-api-key
    version: str = "2023-06-01"  # the anthropic-version header
    beta: tuple[str, ...] = ()  # values of the anthropic-beta header
    beta_allowed: tuple[str, ...] = BETAS  # values of anthropic-beta that callers may send
    count_tokens: bool | None = None  # whether it counts tokens for callers; null: only Anthropic's own API
    threads: bool | None = None  # whether it keeps message threads; null: only Anthropic's own API
    headers: dict[str, str] = {}  # headers added to every request
    extra_body: dict[str, Any] = {}  # fields added to every request
    default_max_tokens: Annotated[int, Meta(ge=1, le=10**9)] = 4096  # max_tokens of requests without one
    strict: bool = False  # whether a malformed event is an error
    always_stream: bool = False  # whether to request a stream for whole answers, too
    max_event: Bytes = MAX_EVENT  # most bytes of one event
    keep_stop: bool = False  # whether stop after tool calls is forwarded as it is, instead of as tool_calls
    usage_is_end: bool = False  # whether usage and then the body's end complete an answer

    def __post_init__(self) -> None:
        check_endpoint(self.base_url, self.headers)

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        if chat.dialect == self.dialect and chat.wire is not None:
            return self.sent(model, self._headers, self._passed_on(chat, chat.wire, model, stream=True))
        return self.sent(model, self._headers, msgspec.json.encode(self.body(chat, model)))

    def sent(self, model: str, headers: Headers, body: bytes) -> UpstreamRequest:
        """Returns the request with this body, for streams and whole answers. Backends of platforms that offer
        the same API elsewhere (Vertex AI, Bedrock) override only this method."""
        return UpstreamRequest(self._url, headers, body)

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        if chat.wire is None:  # a rule could not be applied to the caller's own object
            body = msgspec.json.encode(self.body(chat, model) | {"stream": False})
        else:
            body = self._passed_on(chat, chat.wire, model, stream=False)
        return self.sent(model, self._whole_headers, body)

    def whole_decoder(self) -> WholeMessageDecoder:
        return WholeMessageDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

    def operation(self, name: str, dialect: str) -> Operation | None:
        counts = self._is_anthropics if self.count_tokens is None else self.count_tokens
        if name != "count_tokens" or dialect != self.dialect or not counts:
            return None
        return Counting(
            endpoint(self.base_url, "/v1/messages/count_tokens", self.endings), self._whole_headers
        )

    @cached_property
    def forwards(self) -> Allowed:
        """The headers of a caller that are passed on."""
        betas: Literal["any"] | tuple[str, ...] = "any" if "*" in self.beta_allowed else self.beta_allowed
        if betas != "any" and not self._keeps_threads:
            betas = tuple([beta for beta in betas if beta != THREADS])
        return {"anthropic-beta": betas, "anthropic-version": "any"}

    @cached_property
    def _keeps_threads(self) -> bool:
        keeps = self._is_anthropics if self.threads is None else self.threads
        return keeps and not {THREADS, "*"}.isdisjoint(self.beta_allowed)

    @cached_property
    def _is_anthropics(self) -> bool:
        return urlsplit(self.base_url).hostname == OWN_HOST

    def _passed_on(self, chat: ChatRequest, wire: dict[str, Any], model: str, *, stream: bool) -> bytes:
        """Returns the caller's own object, edited for the target."""

        def planned() -> ThinkingPlan:
            turns = _messages(chat.messages, thoughts=True)
            return plan(chat, self.rules, self.extra_body, turns, self.default_max_tokens)

        edits = edits_of(
            chat, wire, self.rules, self.extra_body, plan=planned, default_max_tokens=self.default_max_tokens
        )
        if "thread" in wire and not self._keeps_threads:
            edits |= without_thread(chat)
        if (wire.get("stream") is True) is not stream:
            edits["stream"] = stream or None
        if not edits and chat.body:
            if wire.get("model") == model:
                return chat.body
            edited = (
                with_known_string(chat.body, b'"model"', msgspec.json.encode(model))
                if "model" in wire
                else None
            )
            if edited is not None:
                return edited
        body = {**wire, **edits, "model": model}
        for name in [name for name, value in edits.items() if value is None]:
            del body[name]
        return msgspec.json.encode(body)

    def body(self, chat: ChatRequest, model: str) -> Block:
        """Returns the body of a streamed request, built from `sluice.model.chat`. Raises BadRequest for what
        the API cannot express."""
        rules, extra = self.rules, self.extra_body
        messages = fitted_ids(results_first(chat.messages), rules.tool_ids)
        turns = _messages(messages, thoughts=rules.thinking != "never")
        planned = plan(chat, rules, extra, turns, self.default_max_tokens)
        body = {"model": model, "max_tokens": planned.max_tokens, "messages": turns, "stream": True}
        wanted = response_format(chat.response_format)
        schema = answer_schema(wanted.json_schema.schema) if wanted.json_schema else None
        sampling = _sampling(chat, rules, thinking=thinks(planned.thinking))
        optional = {
            "system": _system(chat.messages, ONLY_JSON if wanted.type == "json_object" else ""),
            "tools": [_tool(tool) for tool in chat.tools],
            "tool_choice": _tool_choice(chat) if chat.tools else None,
            "cache_control": chat.cache,
        }
        body |= {name: value for name, value in optional.items() if value}
        if sampling:
            body |= sampling
        if extra:
            body |= {name: value for name, value in extra.items() if name not in FITTED}
        if planned.thinking is not None:
            body["thinking"] = planned.thinking
        if config := _output_config(schema, planned.effort, extra.get("output_config")):
            body["output_config"] = config
        return body

    def listing(self) -> UpstreamRequest | None:
        """https://platform.claude.com/docs/en/api/models/list"""
        url = endpoint(self.base_url, "/v1/models", self.endings)
        url += f"{'&' if '?' in url else '?'}limit=1000"
        return UpstreamRequest(url, unread(self._whole_headers), b"", "GET")

    def decoder(self, *, verbatim: bool = False) -> MessagesDecoder:
        kind = PassingDecoder if verbatim else MessagesDecoder
        return kind(
            strict=self.strict,
            max_event=self.max_event,
            keep_stop=self.keep_stop,
            usage_is_end=self.usage_is_end,
        )

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return of_thread(upstream_error(status, headers, body))

    def transport(self) -> "Transport | None":
        return None

    def credentials(self) -> Headers:
        return (("x-api-key", self.api_key.reveal()),) if self.api_key else ()

    @cached_property
    def _url(self) -> str:
        return endpoint(self.base_url, "/v1/messages", self.endings)

    @cached_property
    def _headers(self) -> Headers:
        return self._headers_for("text/event-stream")

    @cached_property
    def _whole_headers(self) -> Headers:
        return self._headers_for("application/json")

    def _headers_for(self, accept: str) -> Headers:
        headers = {"accept": accept, "content-type": "application/json"}
        headers["anthropic-version"] = self.version
        if self.beta:
            headers["anthropic-beta"] = ",".join(self.beta)
        return tuple((headers | {name.lower(): value for name, value in self.headers.items()}).items())


# ---- request


def _sampling(chat: ChatRequest, rules: ModelRules, *, thinking: bool) -> dict[str, Any]:
    """Returns stop sequences and sampling fields that the API accepts; with thinking most of them are left
    out."""
    sampling = chat.sampling
    stops = (
        sampling.stop
        if rules.blank_stops or not sampling.stop
        else [stop for stop in sampling.stop if stop.strip()]
    )
    top_p = sampling.top_p
    found: dict[str, Any] = {"stop_sequences": stops} if stops else {}
    if top_p is not None and (not thinking or top_p >= LOWEST_TOP_P):
        found["top_p"] = top_p
    if sampling.temperature is not None and not thinking:
        found["temperature"] = min(sampling.temperature, 1.0)
    if sampling.top_k is not None and not thinking:
        found["top_k"] = sampling.top_k
    return found


def _system(messages: Sequence[Message], behind: str) -> str | list[Block]:
    """Returns the system prompt as one text, or as blocks if one of them has cache_control. `behind` is
    appended."""
    texts: list[Text] = []
    cached = False
    for message in messages:
        if message.role == "system":
            if any(not isinstance(part, Text) for part in message.parts):
                raise BadRequest("A system message can only be text for this model", param="messages")
            parts = [part for part in message.parts if isinstance(part, Text)]
            marked = any(part.cache is not None for part in parts)
            texts += parts if marked else [Text(message.text)]
            cached = cached or marked
    texts = [text for text in (*texts, Text(behind)) if text.text.strip()]
    return [_block(text) for text in texts] if cached else "\n\n".join([text.text for text in texts])


def _messages(messages: Sequence[Message], *, thoughts: bool) -> list[Block]:
    """Returns the turns of a conversation: user and assistant alternate, and the first turn is a user's.
    Raises BadRequest if there is none."""
    turns: list[Block] = []
    for message in messages:
        role, blocks = _turn(message, thoughts=thoughts)
        if not blocks:
            continue
        if not turns and role == "assistant":
            turns.append({"role": "user", "content": [{"type": "text", "text": FIRST_TURN}]})
        if turns and turns[-1]["role"] == role:
            begun = turns[-1]["content"]
            begun += (
                blocks
                if begun[0]["type"] in THINKING
                else [block for block in blocks if block["type"] not in THINKING]
            )
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise BadRequest(
            "This model needs at least one message that is not empty and not the system's", param="messages"
        )
    _trim_prefill(turns[-1])
    return turns


def _turn(message: Message, *, thoughts: bool) -> tuple[str, list[Block]]:
    """Returns the role and the content blocks of a message; no blocks for a system message, which is sent
    apart."""
    match message.role:
        case "system":
            return "", []
        case "user":
            return "user", _content(message.parts)
        case "assistant":
            blocks = _content(message.parts) + [_tool_use(call) for call in message.tool_calls]
            if blocks and thoughts and message.thoughts:
                blocks = [_thinking(thought) for thought in message.thoughts if is_own(thought)] + blocks
            return "assistant", blocks
        case "tool":
            failed = {"is_error": True} if message.failed else {}
            content = _content(message.parts)
            marks = [block.pop("cache_control") for block in content if "cache_control" in block]
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": content}
            return "user", [_marked({**result, **failed}, marks[-1] if marks else None)]


def _trim_prefill(turn: Block) -> None:
    last = turn["content"][-1]
    if turn["role"] == "assistant" and last["type"] == "text":
        last["text"] = last["text"].rstrip()


def _content(parts: Iterable[Part]) -> list[Block]:
    """Returns content blocks, without blocks of blank text, which the API refuses."""
    return [_block(part) for part in parts if not (isinstance(part, Text) and not part.text.strip())]


def _thinking(thought: Thought) -> Block:
    if thought.redacted:
        return {"type": "redacted_thinking", "data": thought.redacted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def _block(part: Part) -> Block:
    match part:
        case Text(text=text, cache=None):
            return {"type": "text", "text": text}
        case Text(text=text, cache=cache):
            return _marked({"type": "text", "text": text}, cache)
        case Image(url=url, cache=cache):
            return _marked({"type": "image", "source": _image_source(url)}, cache)
        case Other(type="file", wire=wire):
            return _marked(_document(wire.get("file")), wire.get("cache_control"))
        case _:
            raise BadRequest(f"Content of type {part.type!r} cannot be sent to this model", param="messages")


def _image_source(url: str) -> Block:
    inline = inline_image(url)
    if inline is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": inline.media_type, "data": inline.data}


def _marked(block: Block, cache: Cache | None) -> Block:
    return {**block, "cache_control": cache} if type(cache) is dict else block


def _document(file: Any) -> Block:
    """Returns a document block: https://platform.claude.com/docs/en/build-with-claude/pdf-support"""
    match file:
        case {"file_data": str(data), **rest} if data:
            name = rest.get("filename")
        case _:
            raise BadRequest(
                "A file can only be sent to this model with its bytes (file_data)", param="messages"
            )
    title = {"title": name} if isinstance(name, str) and name else {}
    if is_http(data):
        return {"type": "document", "source": {"type": "url", "url": data}, **title}
    inline = inline_data(data)
    media_type, encoded = (
        (inline.media_type, inline.data)
        if inline is not None
        else (type_of_name(name) or PDF, standard_base64(data))
    )
    if media_type == PDF and encoded:
        return {"type": "document", "source": {"type": "base64", "media_type": PDF, "data": encoded}, **title}
    if is_text(media_type) and encoded:
        return {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": decoded_text(encoded)},
            **title,
        }
    if media_type.startswith("image/") and inline is not None:
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": encoded}}
    raise BadRequest(
        "A file can only be a PDF, plain text or an image for this model, in base64", param="messages"
    )


def _tool_use(call: ToolCall) -> Block:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments_object(call.arguments)}


def _tool(tool: Tool) -> Block:
    description, schema = plain_tool(tool)
    described = {"description": description} if description else {}
    return _marked({"name": tool.name, **described, "input_schema": schema}, tool.cache)


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


def _output_config(schema: Mapping[str, Any] | None, effort: Effort, configured: Any) -> Block:
    """Returns `output_config`, with structured outputs and effort:
    https://platform.claude.com/docs/en/build-with-claude/structured-outputs, .../effort"""
    config: Block = {"format": {"type": "json_schema", "schema": schema}} if schema is not None else {}
    if effort:
        config["effort"] = effort
    return config | (configured if isinstance(configured, dict) else {})
