"""Ollama's own chat API, /api/chat: https://github.com/ollama/ollama/blob/main/docs/api.md (NDJSON, one object a line).

What the request loses: `tool_choice` can only be "auto" (or "none": the tools are left out), any other is refused; files
are refused; Anthropic's thinking blocks lose their signatures; a tool that failed says so in its result's first word.
Other fields that are left out (logprobs, logit_bias, parallel_tool_calls …) are listed in config/models.yaml, and
counted (`dropped_fields_total`).

Callers of Ollama's own dialect also set what no other vendor knows: further `options` of models, and `think` as it is.
Embeddings are asked for at its endpoint of OpenAI's dialect, /v1/embeddings.

Penalties, `top_k` and `reasoning_effort` become what Ollama's own OpenAI endpoint makes of them (openai/openai.go there,
read on 2026-11-29): `options`, and `think` from "low" to "max". Without a token limit `num_predict` is not sent.

The answer ends with the line that has done:true; a body that ends without one is cut, and a `done_reason` that means
failure is an error (`sluice_plugins.decoding.FAILURES`). A last line without line end counts. Where tools were called,
`stop` becomes `tool_calls` unless `keep_stop`. A tool call comes in one piece; if it has no id, one is generated. An
error within a stream is a line {"error": "…"} under status 200. A line that msgspec refuses, because a field has another
type, is read field by field (`sluice.wire.lenient`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from msgspec import Raw

from sluice.backends.protocol import Headers, Operation, UpstreamRequest, unread
from sluice.config.types import Bytes, Secret
from sluice.errors import BadRequest, UpstreamError, UpstreamGarbled, UpstreamTruncated
from sluice.model.chat import ChatRequest, Image, Message, Reasoning, Text, Tool, ToolCall
from sluice.model.events import (
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
from sluice.wire.baseurl import endpoint
from sluice.wire.lenient import REPLACEMENT, Halves, fit, parse, whole_characters
from sluice.wire.ndjson import JSONLines
from sluice.wire.upstream_errors import reported_error, stream_error, upstream_error
from sluice_plugins.decoding import MAX_EVENT, FrameDecoder, arguments_of, failure_of
from sluice_plugins.openings import LinesOrDocument
from sluice_plugins.translation import check_endpoint, inline_image, json_object, response_format, result_text

if TYPE_CHECKING:
    from sluice.backends.transport import Transport

DONE_REASONS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}


class Ollama(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """`base_url` with or without /api. `api_key`, if the server needs one (ollama.com), is sent as Bearer.

    `think`: true, false, or how hard ("low" … "max"), for models that can. `keep_alive`: how long the model stays loaded,
    in seconds or as Ollama writes it ("10m"). `model_options`: Ollama's `options` (num_ctx, min_p …). A call's own max_tokens,
    sampling, penalties, seed and stop override them, and its reasoning_effort `think`. `strict`: a malformed line is an
    error, else it is skipped. `max_event`: bytes of one line. `keep_stop`: pass on `stop` after tool calls.
    """

    dialect: ClassVar[str] = ""
    endings: ClassVar[tuple[str, ...]] = ("/api/chat", "/api", "/v1")
    credential_kinds: ClassVar[tuple[str, ...]] = ("static", "file", "exec")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_data", "tool_images", "tools", "json_object", "json_schema", "stop", "seed", "temperature", "top_p",
        "top_k", "frequency_penalty", "presence_penalty", "reasoning_effort", "reasoning_budget",
    })  # fmt: skip

    base_url: str = "http://localhost:11434"  # where its server is
    api_key: Secret | None = None  # sent as a Bearer token
    headers: dict[str, str] = {}  # headers of every request
    think: bool | Literal["low", "medium", "high", "max"] | None = None  # whether, or how hard, models think
    keep_alive: float | str | None = None  # how long a model stays loaded
    model_options: dict[str, Any] = {}  # Ollama's own options (num_ctx …)
    strict: bool = False  # whether a malformed line ends the stream
    max_event: Bytes = MAX_EVENT  # bytes of one line
    keep_stop: bool = False  # whether stop stays stop where tools were called

    def __post_init__(self) -> None:
        check_endpoint(self.base_url, self.headers)

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        if chat.tools and chat.tool_choice not in (None, "auto", "none"):
            raise BadRequest("This model cannot be made to call a tool: tool_choice can be auto or none", param="tool_choice")
        body = {
            "model": model,
            "messages": _messages(chat.messages),
            "stream": True,
            "tools": [_tool(tool) for tool in chat.tools] if chat.tool_choice != "none" else None,
            "format": _format(chat),
            "think": _think(chat.reasoning, self.think),
            "keep_alive": self.keep_alive,
            "options": self.model_options | _options(chat),
            **_own(chat, self.model_options),
        }
        given = {name: value for name, value in body.items() if value is not None and value != {} and value != []}
        return UpstreamRequest(self._url, self._headers, msgspec.json.encode(given))

    def operation(self, name: str, dialect: str) -> Operation | None:
        """Embeddings and completions by Ollama's own endpoints of OpenAI's dialect."""
        if (name, dialect) == ("completions", "completions"):
            from sluice_plugins.openai.completions import Completions

            url = endpoint(self.base_url, "/v1/completions", self.endings)
            return Completions(self, url, self._headers, include_usage=True, max_event=self.max_event)
        if (name, dialect) != ("embeddings", "openai"):
            return None
        from sluice_plugins.openai.embeddings import Embeddings

        headers = tuple([(name, "application/json" if name == "accept" else value) for name, value in self._headers])
        return Embeddings(endpoint(self.base_url, "/v1/embeddings", self.endings), headers)

    def listing(self) -> UpstreamRequest | None:
        """https://github.com/ollama/ollama/blob/main/docs/api.md#list-local-models"""
        headers = tuple([(name, "application/json" if name == "accept" else value) for name, value in unread(self._headers)])
        return UpstreamRequest(endpoint(self.base_url, "/api/tags", self.endings), headers, b"", "GET")

    def decoder(self, *, verbatim: bool = False) -> "ChatDecoder":
        return ChatDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

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
    def _headers(self) -> Headers:
        headers = {"accept": "application/x-ndjson", "content-type": "application/json"}
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
    """The options of a caller of Ollama's dialect that no other vendor has."""
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
    """The value of `think`; the API takes no budget of tokens, so a budget only turns thinking on."""
    if wish is None:
        return configured
    return _EFFORTS[wish.effort] if wish.effort else configured or True


def _format(chat: ChatRequest) -> str | dict[str, Any] | None:
    wanted = response_format(chat.response_format)
    if wanted.json_schema is not None:
        return wanted.json_schema.schema
    return "json" if wanted.type == "json_object" else None


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    names: dict[str, str] = {}  # of the tool calls so far, by id: results are matched by the tool's name
    translated = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        translated.append(_message(message, names))
    return translated


def _message(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": result_text(message) if message.failed else message.text}
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
                    raise BadRequest("This model takes images only as data: URLs; it fetches none", param="messages")
                images.append(inline.data)
            case _:
                raise BadRequest(f"Content of type {part.type!r} cannot be sent to this model", param="messages")
    return images


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "function": {"name": call.name, "arguments": json_object(call.arguments)}}


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters or {"type": "object"}}
    return {"type": "function", "function": function}


# ---- answer


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Raw = Raw(b"{}")


class _ToolCall(msgspec.Struct):
    function: _Function | None = None
    id: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct):
    model: str | None = None
    message: _Message | None = None
    done: bool | None = None
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: Any = None


_LINE = msgspec.json.Decoder(_Line)
_TEXTS = ("thinking", "content")


class ChatDecoder(FrameDecoder[bytes]):
    """Decodes one answer. `skipped` counts malformed lines that were ignored (see `Ollama.strict`), `skipped_fields`
    fields of a wrong type, `finish_missing` answers without a done_reason."""

    __slots__ = (
        "_calls", "_halves", "_keep_stop", "_lines", "_started", "_strict",
        "finish_missing", "skipped", "skipped_fields",
    )  # fmt: skip

    def __init__(self, *, strict: bool = False, max_event: int = MAX_EVENT, keep_stop: bool = False) -> None:
        self._lines = JSONLines(max_event)
        super().__init__(LinesOrDocument(self._lines, max_event))
        self._calls = 0
        self._halves: Halves | None = None
        self._started = False
        self._strict = strict
        self._keep_stop = keep_stop
        self.skipped = 0
        self.skipped_fields = 0
        self.finish_missing = 0

    def _end(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        opening = self._framing
        for line in opening.close() if isinstance(opening, LinesOrDocument) else self._lines.close():
            try:
                self._take(line, events)
            except UpstreamGarbled:
                raise UpstreamTruncated from None
        if not self._done:
            raise UpstreamTruncated
        return events

    def _take(self, frame: bytes, events: list[StreamEvent]) -> None:
        line = self._decode(frame)
        if (line is None or (line.message is None and not line.done)) and (error := reported_error(frame)) is not None:
            raise error  # an error in another vendor's format
        if line is None:
            if self._strict or not self._started:
                raise UpstreamGarbled
            self.skipped += 1
            return
        if line.error:
            raise reported_error(frame) or stream_error(line.error)
        if not self._started:
            self._started = True
            if isinstance(self._framing, LinesOrDocument) and self._framing.is_lines:
                self._framing = self._lines
            events.append(Started(model=line.model or ""))
        if line.message is not None:
            self._message(line.message, events)
        if line.done:
            events.append(self._finish(line))

    def _decode(self, frame: bytes) -> _Line | None:
        if self._halves is None or not self._halves.pending:
            try:
                return _LINE.decode(frame)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        try:
            values, odd = fit(parse(frame), _Line)
            if self._halves is not None or b"\\u" in frame:
                self._join_halves(values)
                values = whole_characters(values)
        except (ValueError, RecursionError):
            return None
        self.skipped_fields += odd
        return msgspec.convert(values, _Line)

    def _join_halves(self, values: dict[str, Any]) -> None:
        """Join surrogate pairs split over two lines; a half left at the answer's end becomes U+FFFD."""
        halves = self._halves = self._halves or Halves()
        message = values.get("message")
        if type(message) is not dict:
            message = values["message"] = {}
        for name in _TEXTS:
            if type(message.get(name)) is str:
                message[name] = halves.join((name,), message[name])
            if values.get("done") and halves.pending.pop((name,), ""):
                message[name] = (message.get(name) or "") + REPLACEMENT

    def _message(self, message: _Message, events: list[StreamEvent]) -> None:
        if message.thinking:
            events.append(ReasoningDelta(message.thinking))
        if message.content:
            events.append(TextDelta(message.content))
        for call in message.tool_calls or ():
            if call.function is None:
                continue
            index = self._calls
            self._calls += 1
            events.append(ToolCallStarted(index, self._id(call.id or ""), call.function.name or ""))
            events.append(ToolCallDelta(index, arguments_of(call.function.arguments) or "{}"))

    def _id(self, given: str) -> str:
        """The call's id; "" if it has none or another call has the same."""
        if given in self._ids:
            return ""
        self._ids.add(given)
        return given

    def _finish(self, line: _Line) -> Finished:
        self._done = True
        native = line.done_reason or ""
        failure = failure_of(native)
        if failure is not None:
            raise failure
        if not native:
            self.finish_missing = 1
        reason = DONE_REASONS.get(native, "stop")
        if reason == "stop" and self._calls and not (self._keep_stop and native):
            reason = "tool_calls"
        if line.prompt_eval_count is None and line.eval_count is None:
            return Finished(reason, None, native)
        return Finished(reason, Usage(input=line.prompt_eval_count or 0, output=line.eval_count or 0), native)
