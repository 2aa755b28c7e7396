"""The chat API of browser widgets: a JSON object in, lines of JSON out. Its contract is docs/api (the widget's NDJSON).

A request is one turn of a session whose history the gateway keeps. Beside it, one that brings its own `messages`
(OpenAI's, and OpenAI's other fields) in place of `sessionId` and `message` is answered without a history.

A stream is `start`, any `token`, then `done` or `error`, each one line. Only clients that ask for the full profile
(`Accept: application/x-ndjson; profile=full`) get `reasoning`, `tool_call`, `tool_call_delta` and `reset`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from gateway.chat import ChatRequest, Message, Text
from gateway.errors import (
    BadRequest,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpstreamError,
)
from gateway.events import Finished, ReasoningDelta, Started, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted, Usage
from gateway.frontends import Answer, Encoder
from gateway.frontends.openai_request import chat_of
from gateway.wire.jsontext import parse_object

INVALID = "Invalid request payload"
INTERNAL = "Internal server error"
TEXTS: Mapping[type[GatewayError], str] = {
    BadRequest: INVALID, Unauthorized: "Unauthorized", Forbidden: "Forbidden", ModelNotFound: "Model not found",
    NotFound: "Not found", MethodNotAllowed: "Method not allowed", RequestTimeout: "Request timeout",
    PayloadTooLarge: "Payload too large", UnsupportedMediaType: "Unsupported media type",
    RateLimited: "Too many requests", Unavailable: "Service unavailable",
}  # fmt: skip
"""The first, second and tenth of these, and `INTERNAL`, are the contract: clients compare them."""

_SESSION = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_json = msgspec.json.Encoder().encode


def check_message(chat: ChatRequest, limit: int) -> None:
    """Raises BadRequest where the message that was sent has more than `limit` characters (code points)."""
    if len(chat.messages[-1].text) > limit:
        raise _refused([("message", f"must have 1 to {limit} characters")])


class _Widget:
    name: ClassVar[str] = "widget"
    dialect: ClassVar[str] = ""

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        body: dict[str, Any] = {"error": _text_of(error), "code": error.code, "requestId": request_id}
        match error:
            case BadRequest(details=details):
                body["details"] = details
            case UpstreamError(callers_fault=True):
                body["details"] = [{"field": "body", "reason": error.message, "code": error.code}]
            case UpstreamError() | Unauthorized():
                pass
            case _ if type(error) in TEXTS:
                body["reason"] = error.message
        return body


class WidgetStream(_Widget):
    """`POST /v1/chat/stream` and `POST /chat`."""

    def parse(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        return _parse(body, stream=True, profile="full" if _wants_full(headers.get("accept", "")) else "")

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        return _Lines(answer, full=chat.profile == "full")


class WidgetWhole(_Widget):
    """`POST /v1/chat`."""

    def parse(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        return _parse(body, stream=False, profile="")

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        return _Object(answer)


# the request


def _parse(body: bytes, *, stream: bool, profile: str) -> ChatRequest:
    wire = parse_object(body)
    if "messages" in wire and "message" not in wire and "sessionId" not in wire:
        chat = chat_of(wire)
        return msgspec.structs.replace(chat, dialect="", stream=stream, profile=profile, wire=None)
    session, message, model = wire.get("sessionId"), wire.get("message"), wire.get("model")
    wrong = []
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        wrong.append(("sessionId", "must be a string of 1 to 128 letters, digits and . _ : -"))
    if not isinstance(message, str) or not message:
        wrong.append(("message", "must be a string of at least 1 character"))
    if not (model is None or isinstance(model, str)) or model == "":
        wrong.append(("model", "must be a string that names a model"))
    if wrong:
        raise _refused(wrong)
    messages = (Message("user", (Text(str(message)),)),)
    return ChatRequest("", model, messages, stream=stream, session=session, profile=profile)


def _refused(wrong: Sequence[tuple[str, str]]) -> BadRequest:
    field, reason = wrong[0]
    details = [{"field": field, "reason": reason} for field, reason in wrong]
    return BadRequest(f"{field}: {reason}", param=field, details=details)


def _wants_full(accept: str) -> bool:
    for offer in accept.lower().split(","):
        media_type, *parameters = (piece.strip() for piece in offer.split(";"))
        if media_type == "application/x-ndjson" and any(p in ("profile=full", 'profile="full"') for p in parameters):
            return True
    return False


def _text_of(error: GatewayError) -> str:
    match error:
        case UpstreamError(callers_fault=True):
            return INVALID
        case UpstreamError(kind="rate_limited"):
            return TEXTS[RateLimited]
        case _:
            return TEXTS.get(type(error), INTERNAL)


# the answer


class _Text:
    """What has been said; `message` is what history holds of it."""

    __slots__ = ("_answer", "_model", "_pieces")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._model = answer.model
        self._pieces: list[str] = []

    def _started(self, event: Started) -> None:
        if self._answer.reveal and event.model:
            self._model = event.model

    @property
    def _message(self) -> str:
        return "".join(self._pieces).strip()

    @property
    def _conversation(self) -> str:
        """Where no history is kept, the request is all there is of a conversation."""
        return self._answer.conversation or self._answer.id

    def _error(self, error: GatewayError) -> bytes:
        return _json({"type": "error", "error": INTERNAL, "code": error.code, "requestId": self._answer.id}) + b"\n"


_TOKEN = b'{"type":"token","token":'
_END = b"}\n"
_BETWEEN = _END + _TOKEN


class _Lines(_Text):
    """The stream. Of a batch that is nothing but text, one join makes the bytes."""

    __slots__ = ("_full",)

    content_type = "application/x-ndjson; charset=utf-8"

    def __init__(self, answer: Answer, *, full: bool) -> None:
        super().__init__(answer)
        self._full = full

    def start(self) -> bytes:
        return _json({"type": "start", "conversationId": self._conversation}) + b"\n"

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        lines: list[bytes] = []
        texts: list[str] = []
        for event in events:
            if type(event) is TextDelta:
                if event.text:
                    texts.append(event.text)
                continue
            if texts:
                lines.append(self._tokens(texts))
                texts = []
            lines.append(self._line(event))
        if texts:
            lines.append(self._tokens(texts))
        return b"".join(lines) if len(lines) != 1 else lines[0]

    def fail(self, error: GatewayError) -> bytes:
        return self._error(error)

    def restart(self) -> bytes:
        if not self._full:
            return b""
        self._pieces = []
        return b'{"type":"reset"}\n'

    def heartbeat(self) -> bytes:
        return b"\n"

    def _tokens(self, texts: list[str]) -> bytes:
        self._pieces += texts
        return b"%b%b%b" % (_TOKEN, _BETWEEN.join(map(_json, texts)), _END)

    def _line(self, event: StreamEvent) -> bytes:
        match event:
            case Finished(reason=reason, usage=usage):
                return self._done(reason, usage)
            case Started():
                self._started(event)
                return b""
            case _ if self._full:
                line = _extra(event)
                return _json(line) + b"\n" if line else b""
            case _:
                return b""

    def _done(self, reason: str, usage: Usage | None) -> bytes:
        line: dict[str, Any] = {
            "type": "done",
            "message": self._message,
            "conversationId": self._conversation,
            "model": self._model,
            "finishReason": reason,
        }
        if usage is not None:
            line["usage"] = {
                "inputTokens": usage.input,
                "outputTokens": usage.output,
                "cachedInputTokens": usage.cached_input,
                "reasoningTokens": usage.reasoning,
            }
        return _json(line) + b"\n"


def _extra(event: StreamEvent) -> dict[str, Any]:
    """The lines of the full profile."""
    match event:
        case ReasoningDelta(text=text) if text:
            return {"type": "reasoning", "text": text}
        case ToolCallStarted(index=index, id=call_id, name=name, kind=kind):
            return {"type": "tool_call", "index": index, "id": call_id, "name": name, "kind": kind}
        case ToolCallDelta(index=index, arguments=arguments) if arguments:
            return {"type": "tool_call_delta", "index": index, "arguments": arguments}
        case _:
            return {}


class _Object(_Text):
    """The whole answer, silent until it is complete."""

    __slots__ = ()

    content_type = "application/json"

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        for event in events:
            if type(event) is TextDelta:
                self._pieces.append(event.text)
            elif type(event) is Finished:
                return _json({"conversationId": self._conversation, "message": self._message})
        return b""

    def fail(self, error: GatewayError) -> bytes:
        return self._error(error)

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""
