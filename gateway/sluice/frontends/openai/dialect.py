"""OpenAI's Chat Completions as a client dialect: what its SDKs, LangChain, the AI SDK and the rest send and read.

The request is `request`, streamed answers are `chunks`, whole ones `whole`. Where the upstream
speaks the same dialect, its chunks are passed on as they came (`verbatim`), under the alias's name where the model's is hidden.

Standard: https://platform.openai.com/docs/api-reference/chat, errors: https://platform.openai.com/docs/guides/error-codes
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from sluice.errors import GatewayError
from sluice.frontends import Answer, Encoder
from sluice.frontends.openai.chunks import Chunks, PassedOn, Renamed
from sluice.frontends.openai.errors import error_object
from sluice.frontends.openai.request import chat_of
from sluice.frontends.openai.whole import Accumulated, Whole
from sluice.model.chat import ChatRequest
from sluice.wire.jsontext import judged_object, plain_object


class OpenAI:
    """`POST /v1/chat/completions`."""

    name: ClassVar[str] = "openai"
    dialect: ClassVar[str] = "openai"

    def parse(self, body: bytes, headers: Mapping[str, str]) -> ChatRequest:
        wire = plain_object(body)
        return chat_of(judged_object(body)) if wire is None else chat_of(wire, body)

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        if not chat.stream:
            return Accumulated(answer) if verbatim else Whole(answer)
        kind = Chunks if not verbatim else PassedOn if answer.reveal else Renamed
        return kind(answer, include_usage=chat.include_usage)

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return error_object(error)
