"""Ollama's API as a client dialect: what its SDKs, Open WebUI, ChatOllama of LangChain, Home Assistant and
editors use.

Requests of chats are `request.py`, their answers `answer.py`; embeddings `embeddings.py`, lists of models
`models.py`. Where the upstream is Ollama, too, its own answers are passed on (`passed_on.py`). What manages a
server's models (pull, create, delete …) is not here: aliases are the configuration's.

Standard: https://github.com/ollama/ollama/blob/main/docs/api.md and api/types.go there
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sluice.errors import GatewayError
from sluice.frontends import Answer, CallRoute, Encoder, Endpoint, Frontend, Route
from sluice.frontends.ollama import embeddings, models
from sluice.frontends.ollama.answer import OllamaLines, Whole
from sluice.frontends.ollama.errors import ModelLoaded, error_object
from sluice.frontends.ollama.passed_on import PassedOn, WholePassedOn
from sluice.frontends.ollama.request import GENERATE, chat_of, generate_of
from sluice.frontends.statuses import status_of
from sluice.model.chat import ChatRequest
from sluice.model.operations import OperationRequest


class Ollama(Frontend):
    """`wall`: seconds since the epoch."""

    name: ClassVar[str] = "ollama"
    dialect: ClassVar[str] = "ollama"
    claims: ClassVar[tuple[str, ...]] = ("/api/",)
    greeting: ClassVar[str] = "Ollama is running"
    any_content_type: ClassVar[bool] = True  # its documentation's examples are `curl -d` without one

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall

    def routes(self) -> Sequence[Route]:
        return (
            CallRoute(path="/api/chat", parse=chat_of),
            CallRoute(path="/api/generate", parse=generate_of),
            CallRoute(path="/api/embed", parse=embeddings.embed, operation="embeddings"),
            CallRoute(path="/api/embeddings", parse=embeddings.embeddings, operation="embeddings"),
            Endpoint(path="/api/tags", answer=models.tags),
            Endpoint(path="/api/ps", answer=models.running),
            Endpoint(path="/api/show", methods=("POST",), answer=models.show),
            Endpoint(path="/api/pull", methods=("POST",), answer=models.pull),
            Endpoint(path="/api/version", answer=models.version),
        )

    def encoder(self, chat: ChatRequest, answer: Answer, *, verbatim: bool = False) -> Encoder:
        if isinstance(chat, OperationRequest):
            return embeddings.Vectors(answer, one=chat.profile == embeddings.ONE)
        generates = chat.profile == GENERATE
        if chat.stream:
            lines = OllamaLines(answer, generates=generates)
            return PassedOn(answer, lines, generates=generates) if verbatim else lines
        whole = Whole(answer, generates=generates)
        return WholePassedOn(answer, whole, generates=generates) if verbatim else whole

    def error(self, error: GatewayError, request_id: str) -> dict[str, Any]:
        if isinstance(error, ModelLoaded):
            return {"created_at": models.time_of(self._wall()), **error.fields}
        return error_object(error)

    def status(self, error: GatewayError) -> int:
        return 200 if isinstance(error, ModelLoaded) else status_of(error)

    def other_name(self, model: str) -> str:
        return models.other_name(model)
