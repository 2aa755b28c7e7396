"""The chat API of browser widgets: a JSON object in, lines of JSON out. It is specified in docs/api (the
widget's NDJSON).

A request is one turn of a session whose history the gateway keeps, and returns on request (`history.py`). A
request that has its own `messages` (OpenAI's, with OpenAI's other fields) in place of `sessionId` and
`message` is answered without a history. `sluice.frontends.widget.answer` writes the answers.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from sluice.errors import GatewayError, UpstreamError
from sluice.frontends import (
    AliasTerms,
    Answer,
    CallRoute,
    Encoder,
    Endpoint,
    Frontend,
    RequestHead,
    ResumeRoute,
    Route,
)
from sluice.frontends.gateway_errors import gateway_error_object
from sluice.frontends.openai.request import chat_of
from sluice.frontends.statuses import status_of
from sluice.frontends.widget.answer import NdjsonLines, Whole
from sluice.frontends.widget.checks import NO_SESSION, is_session, refused
from sluice.frontends.widget.history import messages
from sluice.model.chat import ChatRequest, Message, Text, with_system
from sluice.model.fields import UNKNOWN_FIELDS
from sluice.wire.jsontext import parse_object


class Widget(Frontend):
    name: ClassVar[str] = "widget"
    numbered: ClassVar[bool] = True
    claims: ClassVar[tuple[str, ...]] = ("/", "/v1/chat")
    credential_headers: ClassVar[tuple[str, ...]] = ("x-widget-api-key",)

    def routes(self) -> Sequence[Route]:
        return (
            CallRoute(path="/v1/chat/stream", also=("/chat",), parse=self.streamed, prepare=prepared),
            ResumeRoute(path="/v1/chat/stream/{stream}"),
            CallRoute(path="/v1/chat", parse=self.whole, prepare=prepared),
            Endpoint(path="/v1/chat/messages", answer=messages),
        )

    def streamed(self, body: bytes, head: RequestHead) -> ChatRequest:
        return _parse(
            body, stream=True, profile="full" if _wants_full(head.headers.get("accept", "")) else ""
        )

    def whole(self, body: bytes, head: RequestHead) -> ChatRequest:
        return _parse(body, stream=False, profile="")

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        return NdjsonLines(answer, full=chat.profile == "full") if chat.stream else Whole(answer)

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return gateway_error_object(error, request_id)

    def status(self, error: GatewayError) -> int:
        """Returns the HTTP status. All errors of an upstream that are not the caller's have the same status."""
        status = status_of(error)
        return 500 if isinstance(error, UpstreamError) and status not in (400, 429) else status


def prepared(chat: ChatRequest, alias: AliasTerms) -> ChatRequest:
    """Applies the alias's settings to a turn. Raises BadRequest if a message has more characters (code
    points) than it allows.
    """
    most = alias.max_message_chars
    if any(len(message.text) > most for message in chat.messages if message.role == "user"):
        raise refused([("message", f"must have 1 to {most} characters")])
    return (
        with_system(chat, alias.system) if chat.session is None else chat
    )  # a history already begins with it


# the request


def _parse(body: bytes, *, stream: bool, profile: str) -> ChatRequest:
    wire = parse_object(body)
    if "messages" in wire and "message" not in wire and "sessionId" not in wire:
        chat = chat_of(wire)
        if chat.n > 1:
            raise refused([("n", "must be 1")])
        return msgspec.structs.replace(
            chat, dialect="", stream=stream, profile=profile, wire=None, body=b"", fields=UNKNOWN_FIELDS
        )
    session, message, model = wire.get("sessionId"), wire.get("message"), wire.get("model")
    wrong = []
    if not isinstance(session, str) or not is_session(session):
        wrong.append(("sessionId", NO_SESSION))
    if not isinstance(message, str) or not message:
        wrong.append(("message", "must be a string of at least 1 character"))
    if not (model is None or isinstance(model, str)) or model == "":
        wrong.append(("model", "must be a string that names a model"))
    if wrong:
        raise refused(wrong)
    messages = (Message("user", (Text(str(message)),)),)
    return ChatRequest("", model, messages, stream=stream, session=session, profile=profile, only_texts=True)


def _wants_full(accept: str) -> bool:
    accept = accept.lower()
    if "profile" not in accept:  # as of most requests
        return False
    for offer in accept.split(","):
        media_type, *parameters = (piece.strip() for piece in offer.split(";"))
        if media_type == "application/x-ndjson" and any(
            p in ("profile=full", 'profile="full"') for p in parameters
        ):
            return True
    return False
