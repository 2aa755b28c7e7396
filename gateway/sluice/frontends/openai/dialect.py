"""OpenAI's Chat Completions as a client dialect: what its SDKs, LangChain, the AI SDK and the rest send and
read.

The request is `openai/request.py`, streamed answers are `chunks.py`, whole ones `whole.py`. Where the
upstream speaks the same dialect, its chunks are passed on as they came (`verbatim`), under the alias's name
where the model's is hidden.

Standard: https://platform.openai.com/docs/api-reference/chat, errors:
https://platform.openai.com/docs/guides/error-codes
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from sluice.errors import GatewayError
from sluice.frontends import (
    Answer,
    CallRoute,
    Encoder,
    Endpoint,
    Frontend,
    Parse,
    RequestHead,
    ResumeRoute,
    Route,
)
from sluice.frontends.openai.chunks import Chunks, PassedOn, Renamed
from sluice.frontends.openai.completions import completion_of
from sluice.frontends.openai.embeddings import InBase64, embeddings
from sluice.frontends.openai.errors import error_object
from sluice.frontends.openai.forms import edit, transcription, translation
from sluice.frontends.openai.models import model, models
from sluice.frontends.openai.operations import OPERATIONS, Passed
from sluice.frontends.openai.request import chat_of
from sluice.frontends.openai.texts import TextChunks, WholeText
from sluice.frontends.openai.whole import Accumulated, Whole
from sluice.model.chat import ChatRequest
from sluice.model.operations import BytesRequest, GeneratingRequest
from sluice.wire.jsontext import checked_object, unambiguous_object

STAINLESS = (
    "arch", "async", "lang", "os", "package-version", "retry-count", "runtime", "runtime-version", "timeout", "helper-method",
)  # fmt: skip
"""Headers by which SDKs made by this generator identify themselves (https://www.stainless.com)."""


class OpenAI(Frontend):
    """Returns the paths with and without their /v1: many clients have a base URL that lacks it."""

    name: ClassVar[str] = "openai"
    dialect: ClassVar[str] = "openai"
    numbered: ClassVar[bool] = True
    claims: ClassVar[tuple[str, ...]] = (
        "/v1/", "/v1/chat/completions", "/chat/completions", "/completions", "/models", "/embeddings", "/engines/", "/openai/",
        "/images/", "/audio/", *(path for route in OPERATIONS for path in route.also),
    )  # fmt: skip
    request_headers: ClassVar[tuple[str, ...]] = tuple(f"x-stainless-{name}" for name in STAINLESS)

    def routes(self) -> Sequence[Route]:
        completions, short = "/v1/chat/completions", ("/chat/completions",)
        return (
            CallRoute(path=completions, also=short, parse=self.parse),
            ResumeRoute(path=completions, also=short),
            CallRoute(
                path="/v1/completions", also=("/completions",), parse=completion_of, operation="completions"
            ),
            CallRoute(path="/v1/embeddings", also=("/embeddings",), parse=embeddings, operation="embeddings"),
            *OPERATIONS,
            _form("/audio/transcriptions", transcription, "transcriptions"),
            _form("/audio/translations", translation, "translations"),
            _form("/images/edits", edit, "image_edits"),
            Endpoint(path="/v1/models", also=("/models",), answer=models),
            Endpoint(path="/v1/models/{+model}", also=("/models/{+model}",), answer=model),
        )

    def parse(self, body: bytes, head: RequestHead) -> ChatRequest:
        wire = unambiguous_object(body)
        return chat_of(checked_object(body)) if wire is None else chat_of(wire, body)

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        if type(chat) is not ChatRequest:
            if isinstance(chat, GeneratingRequest):
                return (
                    TextChunks(answer, include_usage=chat.include_usage) if chat.stream else WholeText(answer)
                )
            if isinstance(chat, BytesRequest) and chat.operation != "image_edits":
                return Passed(chat.media_type)
            if not (chat.stream or chat.generates) and (chat.wire or {}).get("encoding_format") == "base64":
                return InBase64(answer)
        if not chat.stream:
            return Accumulated(answer) if verbatim else Whole(answer)
        kind = Chunks if not verbatim else PassedOn if answer.reveal else Renamed
        return kind(answer, include_usage=chat.include_usage)

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return error_object(error)


def _form(path: str, parse: Parse, operation: str) -> CallRoute:
    return CallRoute(path=f"/v1{path}", also=(path,), parse=parse, operation=operation, form=True)
