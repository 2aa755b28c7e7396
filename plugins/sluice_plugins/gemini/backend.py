"""The backend for Gemini's generateContent: https://ai.google.dev/api/generate-content, also on Vertex AI:
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference

Which API is used: with `project`, Vertex AI in `location` (a region, a multi-region, or `global`), by
credentials of the kind `google`; with `vertex` and an API key, Vertex AI's express mode; otherwise the Gemini
API with its key.

What is lost or changed in a request:
  - system messages, wherever they are, are joined into `systemInstruction`;
  - consecutive messages of one role become one message; a conversation that begins with the model gets a user message
    first;
  - calls and results have no ids in this API: results are in the order of their calls, with the name of the function;
  - a result that is not a JSON object, or has a `$ref`, is sent as {"output": …}, that of a tool that failed as
    {"error": …}; its images follow it, and from Gemini 3 on are part of it;
  - images and files by URL become `fileData` (gs://, https://), inline ones `inlineData`; OpenAI's file ids are refused;
  - parallel calls cannot be forbidden; other fields that are left out are in config/models.yaml.

Signatures of thoughts are sent back with the calls and parts that had them; those of other vendors are left
out. Gemini 3 and later refuse a turn whose first call has no signature: such a call is sent with the
placeholder that Google documents (https://ai.google.dev/gemini-api/docs/thought-signatures).
`sluice_plugins.gemini.thinking` sets the amount of thinking, `sluice_plugins.gemini.stream` decodes answers.

If the caller speaks the same dialect, the request is the caller's own JSON object with as few edits as
possible (`sluice_plugins.gemini.wire`), and the answer is forwarded (`sluice_plugins.gemini.passing`).
Embeddings and token counts are in `sluice_plugins.gemini.operations`.
"""

import mimetypes
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Raw

from sluice.backends.credentials import KeyField
from sluice.backends.protocol import Headers, Operation, UpstreamRequest, unread
from sluice.config.types import Bytes, Secret
from sluice.errors import BadRequest, UpstreamError
from sluice.model.chat import ChatRequest, Image, Message, Other, Part, Text, Tool, ToolCall
from sluice.model.rules import NO_RULES, ModelRules
from sluice.wire.baseurl import base_of
from sluice.wire.dataurl import inline_data, is_http, standard_base64
from sluice.wire.seals import GOOGLES
from sluice.wire.upstream_errors import upstream_error
from sluice_plugins.decoding import MAX_EVENT
from sluice_plugins.gemini.operations import Counting, Embeddings
from sluice_plugins.gemini.passing import PassingDecoder, WholeAnswerDecoder
from sluice_plugins.gemini.schemas import google_schema
from sluice_plugins.gemini.stream import GenerateDecoder
from sluice_plugins.gemini.thinking import generation, thinking_config
from sluice_plugins.gemini.wire import UNSIGNED, edits_of, with_extra
from sluice_plugins.tool_order import results_first
from sluice_plugins.translation import arguments_object, check_endpoint, inline_image, response_format
from sluice_plugins.vertex import check_place, vertex_address

if TYPE_CHECKING:
    from sluice.backends.transport import Transport

Block = dict[str, Any]
STREAMED = "streamGenerateContent?alt=sse"
GEMINI = "https://generativelanguage.googleapis.com"
FIRST_TURN = "(The assistant begins this conversation.)"
AUDIO = {
    "mp3": "audio/mp3",
    "mpeg": "audio/mp3",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "aiff": "audio/aiff",
}
PDF = "application/pdf"
_VERSION = re.compile(r"/(v\d\w*)\Z")


class Gemini(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """The Gemini API, or Vertex AI if `project` or `vertex` is set. `base_url` may include the version
    (/v1beta, /v1).

    `safety_settings`: Google's threshold for each category. `extra_body`: fields added to each request, those
    of `generationConfig` one by one. `thoughts`: request summaries of thoughts even if the caller requests no
    reasoning. `strict`: malformed data in the stream is an error, otherwise it is skipped. `max_event`: most
    bytes of one event. `keep_stop`: forward Google's `stop` after tool calls as it is instead of as
    `tool_calls`. `always_stream`: request a stream even if a caller of this dialect wants a whole answer.
    """

    dialect: ClassVar[str] = "gemini"
    endings: ClassVar[tuple[str, ...]] = (
        "/v1beta/models",
        "/v1/models",
        "/v1beta",
        "/v1alpha",
        "/v1beta1",
        "/v1",
        "/models",
    )
    credential_kinds: ClassVar[tuple[str, ...]] = ("static", "file", "exec", "google")
    takes: ClassVar[frozenset[str]] = frozenset({
        "image_url", "image_data", "file_data", "file_url", "input_audio", "video", "tool_images", "tools",
        "tool_choice_required", "tool_choice_named", "json_object", "json_schema", "stop", "seed", "temperature",
        "top_p", "top_k", "frequency_penalty", "presence_penalty", "reasoning_effort", "reasoning_budget",
    })  # fmt: skip
    key_field: ClassVar[KeyField] = KeyField("x-goog-api-key")
    rules: ClassVar[ModelRules] = NO_RULES

    base_url: str = ""  # the address of its API; "": Google's address for the API in use
    api_key: Secret | None = None  # sent as x-goog-api-key
    project: str = ""  # the project of Google Cloud, for Vertex AI
    location: str = "global"  # of Vertex AI: a region, us, eu, or global
    vertex: bool = False  # whether to use Vertex AI without a project: express mode, with an API key
    headers: dict[str, str] = {}  # headers added to every request
    safety_settings: dict[str, str] = {}  # threshold by category
    extra_body: dict[str, Any] = {}  # fields added to every request
    thoughts: bool = False  # whether to request summaries of thoughts always
    strict: bool = False  # whether a malformed event is an error
    always_stream: bool = False  # whether to request a stream for whole answers, too
    max_event: Bytes = MAX_EVENT  # most bytes of one event
    keep_stop: bool = False  # whether stop after tool calls is forwarded as it is, instead of as tool_calls

    def __post_init__(self) -> None:
        check_place(self.project, self.location)
        if not self.base_url:
            on_vertex = bool(self.project or self.vertex)
            address = vertex_address(self.location if self.project else "global") if on_vertex else GEMINI
            msgspec.structs.force_setattr(self, "base_url", address)
        check_endpoint(self.base_url, self.headers)

    def request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        name = model.removeprefix("models/")
        return UpstreamRequest(self._url(name, STREAMED), self._headers, self._written(chat, name))

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        name = model.removeprefix("models/")
        return UpstreamRequest(
            self._url(name, "generateContent"), self._whole_headers, self._written(chat, name)
        )

    def whole_decoder(self) -> WholeAnswerDecoder:
        return WholeAnswerDecoder(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

    def operation(self, name: str, dialect: str) -> Operation | None:
        on_vertex = bool(self.project or self.vertex)
        match name, dialect:
            case "count_tokens", "gemini":
                return Counting(self._url, self._whole_headers, on_vertex=on_vertex)
            case "embeddings", "openai":
                return Embeddings(self._url, self._whole_headers, on_vertex=on_vertex)
            case _:
                return None

    def _written(self, chat: ChatRequest, model: str) -> bytes:
        """Returns the body; it is the same for streams and whole answers, which differ in their URL."""
        if chat.dialect != self.dialect or chat.wire is None:
            return msgspec.json.encode(with_extra(self._body(chat, model), self.extra_body))
        edits = edits_of(chat, chat.wire, model, thoughts=self.thoughts, safety=self.safety_settings)
        if not edits and chat.body and not self.extra_body:
            return chat.body
        body = {name: value for name, value in {**chat.wire, **edits}.items() if value is not None}
        return msgspec.json.encode(with_extra(body, self.extra_body))

    def _body(self, chat: ChatRequest, model: str) -> Block:
        newer = generation(model) >= (3, 0)
        body: Block = {"contents": _contents(results_first(chat.messages), newer=newer)}
        optional = {
            "systemInstruction": _system(chat.messages),
            "tools": [{"functionDeclarations": [_declaration(tool) for tool in chat.tools]}]
            if chat.tools
            else None,
            "toolConfig": _tool_config(chat) if chat.tools else None,
            "generationConfig": self._config(chat, model),
            "safetySettings": [
                {"category": name, "threshold": level} for name, level in self.safety_settings.items()
            ],
        }
        return body | {name: value for name, value in optional.items() if value}

    def listing(self) -> UpstreamRequest | None:
        """https://ai.google.dev/api/models#method:-models.list; Vertex AI lists models by another service."""
        if self.project or self.vertex:
            return None
        base, query = self._around
        url = f"{base}/models?pageSize=1000{'&' if query else ''}{query}"
        return UpstreamRequest(url, unread(self._whole_headers), b"", "GET")

    def decoder(self, *, verbatim: bool = False) -> GenerateDecoder:
        kind = PassingDecoder if verbatim else GenerateDecoder
        return kind(strict=self.strict, max_event=self.max_event, keep_stop=self.keep_stop)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return upstream_error(status, headers, body)

    def transport(self) -> "Transport | None":
        return None

    def credentials(self) -> Headers:
        return (("x-goog-api-key", self.api_key.reveal()),) if self.api_key else ()

    def _url(self, model: str, method: str) -> str:
        before, query = self._around
        behind = f":{method}{'&' if query and '?' in method else '?' if query else ''}{query}"
        path = quote(model, safe="/@:.-_")
        if "/" not in model:
            path = f"models/{path}"
        elif self.project or self.vertex:  # "google/gemini-2.5-flash", as at Vertex AI's OpenAI endpoint
            publisher, _, rest = path.rpartition("/")
            if model.startswith(("publishers/", "endpoints/", "projects/")):
                return f"{before}/{path}{behind}"
            path = f"publishers/{publisher}/models/{rest}"
            return f"{before}/{path}{behind}"
        elif not model.startswith("tunedModels/"):
            path = f"models/{path}"
        return (
            f"{before}/publishers/google/{path}{behind}"
            if self.project or self.vertex
            else f"{before}/{path}{behind}"
        )

    @cached_property
    def _around(self) -> tuple[str, str]:
        """Returns the part of the URL before the model's path, and the configuration's own query."""
        base, query = base_of(self.base_url, ("/models",))
        version = _VERSION.search(base)
        base = base if version is not None else f"{base}/{'v1' if self.project or self.vertex else 'v1beta'}"
        if self.project:
            base += f"/projects/{self.project}/locations/{self.location}"
        return base, query

    @cached_property
    def _headers(self) -> Headers:
        return self._headers_for("text/event-stream")

    @cached_property
    def _whole_headers(self) -> Headers:
        return self._headers_for("application/json")

    def _headers_for(self, accept: str) -> Headers:
        headers = {"accept": accept, "content-type": "application/json"}
        return tuple((headers | {name.lower(): value for name, value in self.headers.items()}).items())

    def _config(self, chat: ChatRequest, model: str) -> Block:
        """https://ai.google.dev/api/generate-content#v1beta.GenerationConfig"""
        sampling = chat.sampling
        wanted = response_format(chat.response_format)
        config = {
            "maxOutputTokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "topP": sampling.top_p,
            "topK": sampling.top_k,
            "seed": sampling.seed,
            "stopSequences": list(sampling.stop) or None,
            "frequencyPenalty": sampling.frequency_penalty,
            "presencePenalty": sampling.presence_penalty,
            "responseMimeType": "application/json" if wanted.type != "text" else None,
            "responseJsonSchema": google_schema(wanted.json_schema.schema) if wanted.json_schema else None,
            "thinkingConfig": thinking_config(chat.reasoning, model, thoughts=self.thoughts) or None,
        }
        return {name: value for name, value in config.items() if value is not None}


# ---- contents


def _system(messages: Sequence[Message]) -> Block | None:
    texts = []
    for message in messages:
        if message.role == "system":
            if any(not isinstance(part, Text) for part in message.parts):
                raise BadRequest("A system message can only be text for this model", param="messages")
            texts += [part.text for part in message.parts if isinstance(part, Text) and part.text]
    return {"parts": [{"text": text} for text in texts]} if texts else None


def _contents(messages: Sequence[Message], *, newer: bool) -> list[Block]:
    """Returns the turns of a conversation, with results in the order of their calls. Raises BadRequest if
    there is none."""
    turns: list[Block] = []
    calls: list[ToolCall] = []  # calls of the latest assistant message without a result so far
    order: list[int] = []  # of the results in the current turn: the positions of their calls
    for message in messages:
        parts: list[Block] = []
        if message.role == "assistant":
            role, parts = "model", _assistant(message, newer=newer)
            if message.tool_calls:
                calls, order = list(message.tool_calls), []
        elif message.role == "tool":
            role = "user"
            at = next(
                (n for n, call in enumerate(calls) if call.id == message.tool_call_id and n not in order),
                None,
            )
            parts = _result(message, calls[at].name if at is not None else message.tool_call_id, newer=newer)
            if at is not None and turns and turns[-1]["role"] == "user" and any(n > at for n in order):
                _insert(turns[-1]["parts"], parts, sum(n < at for n in order))
                order.append(at)
                continue
            order += [at] if at is not None else []
        elif message.role == "user":
            role, parts = "user", _content(message.parts)
        if not parts:
            continue
        if not turns and role == "model":
            turns.append({"role": "user", "parts": [{"text": FIRST_TURN}]})
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"] += parts
        else:
            turns.append({"role": role, "parts": parts})
    if not turns:
        raise BadRequest(
            "This model needs at least one message that is not empty and not the system's", param="messages"
        )
    return turns


def _insert(turn: list[Block], parts: list[Block], after: int) -> None:
    """Insert a result after `after` other results: Google matches calls and results by their order."""
    starts = [n for n, part in enumerate(turn) if "functionResponse" in part]
    turn[starts[after] : starts[after]] = parts


def _content(parts: Iterable[Part]) -> list[Block]:
    return [_part(part) for part in parts if not (isinstance(part, Text) and not part.text)]


def _assistant(message: Message, *, newer: bool) -> list[Block]:
    """Returns the parts of an assistant message, with the signatures that Google gave them."""
    parts = _content(message.parts)
    signatures = [thought.signature for thought in message.thoughts if thought.signature.startswith(GOOGLES)]
    if signatures:
        if not parts or "text" not in parts[-1]:
            parts.append({"text": ""})
        parts[-1]["thoughtSignature"] = signatures[-1].removeprefix(GOOGLES)
    for number, call in enumerate(message.tool_calls):
        signature = call.signature or (UNSIGNED if newer and number == 0 else "")
        part: Block = {"functionCall": {"name": call.name, "args": arguments_object(call.arguments)}}
        parts.append(part | ({"thoughtSignature": signature} if signature else {}))
    return parts


def _result(message: Message, name: str, *, newer: bool) -> list[Block]:
    text = message.text
    response = _as_object(text)
    others = [_part(part) for part in message.parts if not isinstance(part, Text)]
    output: Any = response if response is not None else text
    if message.failed:
        output = {"error": output}
    answer: Block = {
        "name": name,
        "response": output if message.failed or response is not None else {"output": text},
    }
    if newer and others:
        return [{"functionResponse": answer | {"parts": others}}]
    return [{"functionResponse": answer}, *others]


def _as_object(text: str) -> Raw | None:
    """Returns the text if it is a JSON object without a `$ref`, which Google would resolve within the result
    (vercel/ai#14369, BerriAI/litellm#38223); else None."""
    if not text.lstrip().startswith("{") or '"$ref"' in text:
        return None
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    return Raw(text)


def _part(part: Part) -> Block:
    match part:
        case Text(text=text):
            return {"text": text}
        case Image(url=url):
            if url.startswith("gs://"):
                return _by_url(url, "image/jpeg")
            inline = inline_image(url)
            return _by_url(url, "image/jpeg") if inline is None else _inline(inline.media_type, inline.data)
        case Other(type="file", wire=wire):
            return _file(wire.get("file"))
        case Other(type="input_audio", wire=wire):
            return _audio(wire.get("input_audio"))
        case Other(type="video_url", wire={"video_url": {"url": str(url)}}):
            inline = inline_data(url)
            return _by_url(url, "video/mp4") if inline is None else _inline(inline.media_type, inline.data)
        case _:
            raise BadRequest(f"Content of type {part.type!r} cannot be sent to this model", param="messages")


def _inline(media_type: str, data: str) -> Block:
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _by_url(url: str, otherwise: str) -> Block:
    """Returns a `fileData` part: https://ai.google.dev/api/caching#FileData. Vertex AI requires the media
    type, which only the file's name can tell."""
    if not (is_http(url) or url.startswith("gs://")):
        raise BadRequest(
            "A file must be an http(s) or gs:// URL, or a data: URL in base64, for this model",
            param="messages",
        )
    media_type = mimetypes.guess_type(urlsplit(url).path)[0] or otherwise
    return {"fileData": {"fileUri": url, "mimeType": media_type}}


def _file(file: Any) -> Block:
    match file:
        case {"file_data": str(data)} if data:
            pass
        case {"file_id": str(data)} if is_http(data) or data.startswith(
            "gs://"
        ):  # a file that the caller has uploaded to Google
            pass
        case _:
            raise BadRequest(
                "A file can only be sent to this model with its bytes or URL (file_data)", param="messages"
            )
    if is_http(data) or data.startswith("gs://"):
        return _by_url(data, PDF)
    inline = inline_data(data)
    if inline is not None:
        return _inline(inline.media_type, inline.data)
    encoded = standard_base64(data)
    if not encoded:
        raise BadRequest("file_data must be base64, a data: URL in base64, or a URL", param="messages")
    name = file.get("filename")
    return _inline((mimetypes.guess_type(name)[0] if isinstance(name, str) else None) or PDF, encoded)


def _audio(audio: Any) -> Block:
    match audio:
        case {"data": str(data), **rest} if encoded := standard_base64(data):
            form = rest.get("format")
            form = form.lower().removeprefix("audio/").removeprefix("x-") if isinstance(form, str) else "wav"
            return _inline(AUDIO.get(form, f"audio/{form}"), encoded)
        case _:
            raise BadRequest("input_audio needs data in base64", param="messages")


# ---- tools


def _declaration(tool: Tool) -> Block:
    """https://ai.google.dev/api/caching#FunctionDeclaration"""
    declared: Block = {"name": tool.name}
    if tool.description:
        declared["description"] = tool.description
    if tool.parameters and (tool.parameters.get("properties") or tool.parameters.get("type") != "object"):
        declared["parametersJsonSchema"] = google_schema(tool.parameters)
    return declared


def _tool_config(chat: ChatRequest) -> Block | None:
    """https://ai.google.dev/api/caching#FunctionCallingConfig"""
    match chat.tool_choice:
        case "none":
            config: Block = {"mode": "NONE"}
        case "required":
            config = {"mode": "ANY"}
        case ("function", str(name)):
            config = {"mode": "ANY", "allowedFunctionNames": [name]}
        case "auto":
            config = {"mode": "AUTO"}
        case _:
            return None
    return {"functionCallingConfig": config}
