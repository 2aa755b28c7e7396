"""The chat API of browser widgets: a JSON object in, lines of JSON out. Its contract is docs/api (the widget's NDJSON).

A request is one turn of a session whose history the gateway keeps. Beside it, one that brings its own `messages`
(OpenAI's, and OpenAI's other fields) in place of `sessionId` and `message` is answered without a history.

The answer's bytes are `sluice.frontends.widget.answer`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from sluice.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GatewayError,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    NotResumable,
    PayloadTooLarge,
    RateLimited,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
    UpstreamError,
)
from sluice.frontends import Answer, Encoder
from sluice.frontends.openai.request import chat_of
from sluice.frontends.widget.answer import INTERNAL, Lines, Whole
from sluice.model.chat import ChatRequest, Message, Text
from sluice.wire.jsontext import parse_object

INVALID = "Invalid request payload"
TEXTS: Mapping[type[GatewayError], str] = {
    BadRequest: INVALID, Unauthorized: "Unauthorized", Forbidden: "Forbidden", ModelNotFound: "Model not found",
    NotFound: "Not found", MethodNotAllowed: "Method not allowed", RequestTimeout: "Request timeout",
    PayloadTooLarge: "Payload too large", UnsupportedMediaType: "Unsupported media type",
    NotResumable: "Stream not resumable", RateLimited: "Too many requests", Unavailable: "Service unavailable",
    Conflict: "Conflict",
}  # fmt: skip
"""Those of BadRequest, Unauthorized and RateLimited, and `INTERNAL`, are the contract: clients compare them."""

_SESSION = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def check_message(chat: ChatRequest, limit: int) -> None:
    """Raises BadRequest where a message that was sent has more than `limit` characters (code points)."""
    if any(len(message.text) > limit for message in chat.messages if message.role == "user"):
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
        return Lines(answer, full=chat.profile == "full")


class WidgetWhole(_Widget):
    """`POST /v1/chat`."""

    def parse(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        return _parse(body, stream=False, profile="")

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        return Whole(answer)


# the request


def _parse(body: bytes, *, stream: bool, profile: str) -> ChatRequest:
    wire = parse_object(body)
    if "messages" in wire and "message" not in wire and "sessionId" not in wire:
        chat = chat_of(wire)
        if chat.n > 1:
            raise _refused([("n", "must be 1")])
        return msgspec.structs.replace(chat, dialect="", stream=stream, profile=profile, wire=None, body=b"")
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
    return ChatRequest("", model, messages, stream=stream, session=session, profile=profile, only_texts=True)


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
        case UpstreamError(kind="rate_limited" | "billing"):
            return TEXTS[RateLimited]
        case _:
            return TEXTS.get(type(error), INTERNAL)
