"""Splits bodies of Bedrock's answers into event stream messages, or a document in their place; converts
exceptions."""

from collections.abc import Sequence
from typing import Any

from sluice.errors import UpstreamError, UpstreamGarbled
from sluice.wire.eventstream import EventMessage, MessageStream
from sluice.wire.lenient import parse
from sluice.wire.upstream_errors import stream_error


class MessagesOrDocument:
    """Messages of an event stream, or a JSON document in their place: then `document` is the body, else None.

    A stream cannot begin with a brace, which would be the first byte of a length of two gigabytes.
    """

    __slots__ = ("_document", "_known", "_messages")

    def __init__(self, limit: int) -> None:
        self._messages = MessageStream(limit)
        self._document: bytearray | None = None
        self._known = False

    @property
    def document(self) -> bytes | None:
        return None if self._document is None else bytes(self._document)

    def feed(self, data: bytes) -> Sequence[EventMessage]:
        if not self._known:
            start = data.lstrip(b" \t\r\n")
            self._known = bool(start)
            if start.startswith((b"{", b"[", b"<")):
                self._document = bytearray()
        if self._document is None:
            return self._messages.feed(data)
        self._document += data
        if len(self._document) > self._messages.limit:
            raise UpstreamGarbled("The upstream's answer is too long")
        return ()

    def close(self) -> bool:
        return self._messages.close()


def failed(message: EventMessage) -> UpstreamError:
    """Returns the error for a message of the type exception (defined by the service) or error (by the
    protocol)."""
    if message.text(":message-type") == "error":
        return stream_error({"code": message.text(":error-code"), "message": message.text(":error-message")})
    return exception(message.text(":exception-type"), message.payload)


def exception(name: str, payload: bytes) -> UpstreamError:
    """Returns the error for an exception in a stream. Its name gives the kind; the status of the model's own
    server, if it is included, is more precise.

    https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html
    """
    try:
        value = parse(payload)
    except (ValueError, RecursionError):
        value = None
    error: dict[str, Any] = {"code": name}
    if type(value) is dict:
        error["message"] = value.get("originalMessage") or value.get("message") or value.get("Message")
        error["status"] = value.get("originalStatusCode")
    return stream_error(error)
