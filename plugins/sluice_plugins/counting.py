"""Counting tokens by an upstream that speaks the caller's dialect: its answer is passed on as it came.

Standards: https://platform.claude.com/docs/en/api/messages/count_tokens,
https://platform.openai.com/docs/api-reference/responses/input-tokens
"""

from typing import Any

import msgspec

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.errors import UpstreamGarbled
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim
from sluice.wire.jsonedit import with_known_string
from sluice.wire.upstream_errors import reported_error

MOST = 1 << 20
"""Bytes of an answer, which is one number."""


class _Count(msgspec.Struct):
    input_tokens: int


_count_of = msgspec.json.Decoder(_Count).decode


class Counting(msgspec.Struct, frozen=True):
    """Asks `url`."""

    url: str
    headers: Headers

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        body = with_known_string(chat.body, b'"model"', msgspec.json.encode(model)) if chat.body else None
        if body is None:
            wire: dict[str, Any] = chat.wire or {}
            body = msgspec.json.encode({**wire, "model": model})
        return UpstreamRequest(self.url, self.headers, body)

    def whole_decoder(self) -> Decoder:
        return CountDecoder()


class CountDecoder(Decoder):
    """Nothing is generated, and nothing is billed for it."""

    def __init__(self) -> None:
        self._body = bytearray()

    def feed(self, data: bytes) -> list[StreamEvent]:
        self._body += data
        if len(self._body) > MOST:
            raise UpstreamGarbled(f"The upstream sent a count longer than {MOST} bytes")
        return []

    def close(self) -> list[StreamEvent]:
        body = bytes(self._body)
        try:
            _count_of(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise reported_error(body) or UpstreamGarbled() from None
        return [Started(), TextDelta(""), Finished("stop", Usage()), Verbatim(body, whole=True)]
