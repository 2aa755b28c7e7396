"""Token counts: requests to an upstream that speaks the caller's dialect, whose answer is forwarded
unmodified, and a decoder for answers that consist of one count.

Standards: https://platform.claude.com/docs/en/api/messages/count_tokens,
https://platform.openai.com/docs/api-reference/responses/input-tokens
"""

from collections.abc import Callable
from typing import Any

import msgspec

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.errors import UpstreamGarbled
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice.wire.jsonedit import with_known_string
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.decoding import MALFORMED

MAX_ANSWER = 1 << 20
"""Most bytes of an answer, which is one number."""
MAX_ERROR = 64 << 10
"""Bytes at the start of an answer that are searched for an error."""


class Counting(msgspec.Struct, frozen=True):
    """A token counting operation: sends the caller's own body, with the target's model, to `url`."""

    url: str
    headers: Headers

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        body = with_known_string(chat.body, b'"model"', msgspec.json.encode(model)) if chat.body else None
        if body is None:
            wire: dict[str, Any] = chat.wire or {}
            body = msgspec.json.encode({**wire, "model": model})
        return UpstreamRequest(self.url, self.headers, body)

    def whole_decoder(self) -> Decoder:
        return CountDecoder(_checked)


class _Count(msgspec.Struct):
    input_tokens: int


_count_of = msgspec.json.Decoder(_Count).decode


def _checked(body: bytes) -> bytes:
    _count_of(body)
    return body


Read = Callable[[bytes], bytes | None]
"""Returns the document for the caller, which is the body itself where the dialects are the same. None, or an
exception of MALFORMED: the body has no count."""


class CountDecoder(Decoder):
    """Decodes an answer that is one token count; raises UpstreamGarbled if it is longer than `max_answer`
    bytes. The call gets no usage, since vendors do not bill for counting."""

    def __init__(self, read: Read, max_answer: int = MAX_ANSWER) -> None:
        self._read = read
        self._max_answer = max_answer
        self._body = bytearray()

    def feed(self, data: bytes) -> list[StreamEvent]:
        self._body += data
        if len(self._body) > self._max_answer:
            raise UpstreamGarbled(f"The upstream sent a count longer than {self._max_answer} bytes")
        return []

    def close(self) -> list[StreamEvent]:
        body = bytes(self._body)
        try:
            document = self._read(body)
        except MALFORMED:
            document = None
        if document is None:
            raise reported_error(body[:MAX_ERROR]) or UpstreamGarbled(
                "The upstream's answer has no count of tokens"
            )
        answer = Verbatim(document, whole=True, made=document is not body)
        return [Started(), TextDelta(""), Finished("stop", Usage()), answer]
