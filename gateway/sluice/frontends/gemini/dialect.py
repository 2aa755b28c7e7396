"""Gemini's generateContent as a client dialect: what google-genai in each language, Gemini CLI and LangChain
send and read.

Requests are `request.py` (and `parts.py`, `schema.py`), answers `answer.py`, embeddings and counts of tokens
`operations.py`, lists of models `models.py`. Where the upstream speaks this dialect, too, its own answers are
passed on (`passed_on.py`). Paths go under /v1beta (the usual one), /v1 and /v1alpha; keys come in
`x-goog-api-key` or `?key=`.

Standard: https://ai.google.dev/api/generate-content
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from sluice.errors import GatewayError
from sluice.frontends import Answer, CallRoute, Encoder, Endpoint, Frontend, Parse, Route
from sluice.frontends.gemini import models, operations
from sluice.frontends.gemini.answer import Events, JsonListEvents, Whole
from sluice.frontends.gemini.errors import error_object, google_status
from sluice.frontends.gemini.passed_on import PassedOn, WholePassedOn
from sluice.frontends.gemini.request import LIST, SILENT, streamed, whole
from sluice.model.chat import ChatRequest
from sluice.model.operations import OperationRequest

VERSIONS = ("/v1beta", "/v1", "/v1alpha")


class Gemini(Frontend):
    name: ClassVar[str] = "gemini"
    dialect: ClassVar[str] = "gemini"
    marker: ClassVar[str] = "x-goog-api-key"
    claims: ClassVar[tuple[str, ...]] = ("/v1beta/", "/v1alpha/", "/v1/", "/upload/v1beta/")
    credential_headers: ClassVar[tuple[str, ...]] = ("x-goog-api-key",)
    credential_parameters: ClassVar[tuple[str, ...]] = ("key",)
    request_headers: ClassVar[tuple[str, ...]] = ("x-goog-api-client",)

    def routes(self) -> Sequence[Route]:
        return (
            _method("generateContent", whole),
            _method("streamGenerateContent", streamed),
            _method("countTokens", operations.count, operation="count_tokens"),
            _method("embedContent", operations.embed, operation="embeddings"),
            _method("batchEmbedContents", operations.embed_all, operation="embeddings"),
            _endpoint("/models", models.models),
            _endpoint("/models/{+model}", models.model),
            Endpoint(  # not under /v1, where no frontend has a POST to a model
                path="/v1beta/models/{+model}",
                also=("/v1alpha/models/{+model}",),
                answer=models.no_method,
                methods=("POST",),
            ),
        )

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        if isinstance(chat, OperationRequest):
            return operations.encoder(chat)
        shows_thoughts = SILENT not in chat.profile
        if not chat.stream:
            whole = Whole(answer, shows_thoughts=shows_thoughts)
            return WholePassedOn(answer, whole) if verbatim else whole
        events = (JsonListEvents if LIST in chat.profile else Events)(answer, shows_thoughts=shows_thoughts)
        return PassedOn(answer, events, continues=chat.n == 1) if verbatim else events

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        return error_object(error)

    def status(self, error: GatewayError) -> int:
        return google_status(error)


def _method(name: str, parse: Parse, *, operation: str = "") -> CallRoute:
    first, *others = [f"{version}/models/{{+model}}:{name}" for version in VERSIONS]
    return CallRoute(path=first, also=tuple(others), parse=parse, operation=operation)


def _endpoint(path: str, answer: models.Answering) -> Endpoint:
    first, *others = [version + path for version in VERSIONS]
    return Endpoint(path=first, also=tuple(others), answer=answer)
