"""Translates /api/embed, and its predecessor /api/embeddings, to OpenAI's embeddings for upstreams that carry
them, and back. `truncate`, `keep_alive` and `options` are Ollama's own and left out.

Standard: https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError, UpstreamGarbled
from sluice.frontends import Answer, RequestHead
from sluice.frontends.checks import explained, refused
from sluice.frontends.ollama.errors import error_object
from sluice.frontends.openai.fields import FIELDS
from sluice.frontends.vectors import vectors_in
from sluice.model.chat import text_size
from sluice.model.events import Finished, Started, StreamEvent, Verbatim
from sluice.model.operations import OperationRequest
from sluice.wire.jsontext import parse_object

ONE = "one"
"""The `profile` of a request to /api/embeddings, which has one prompt and is answered with one vector."""
_json = msgspec.json.Encoder().encode


class _Embed(msgspec.Struct):
    input: str | list[str] | None = None
    model: str | None = None
    dimensions: int | None = None


class _Embeddings(msgspec.Struct):
    prompt: str
    model: str | None = None


def embed(body: bytes, head: RequestHead) -> OperationRequest:
    request = _typed(body, _Embed)
    inputs = [request.input] if isinstance(request.input, str) else request.input or []
    if not inputs:
        raise refused("input", "must be a text or a list of texts, and not empty")
    dimensions = {"dimensions": request.dimensions} if request.dimensions and request.dimensions > 0 else {}
    return _request(request.model, inputs, dimensions, "")


def embeddings(body: bytes, head: RequestHead) -> OperationRequest:
    request = _typed(body, _Embeddings)
    return _request(request.model, [request.prompt], {}, ONE)


def _typed(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.convert(parse_object(body), kind)
    except msgspec.ValidationError as error:
        raise explained(str(error)) from None


def _request(model: str | None, inputs: list[str], more: dict[str, Any], profile: str) -> OperationRequest:
    sizes = [text_size(text) // 4 for text in inputs]
    wire = {"model": model, "input": inputs, **more}
    return OperationRequest(
        "openai",
        model,
        (),
        stream=False,
        profile=profile,
        wire=wire,
        operation="embeddings",
        tokens=sum(sizes),
        longest=max(sizes),
        fields=FIELDS,
    )


class Vectors:
    """Translates OpenAI's document to Ollama's. Vectors are forwarded as written; `one`: for /api/embeddings."""

    content_type = "application/json; charset=utf-8"

    def __init__(self, answer: Answer, *, one: bool) -> None:
        self._answer = answer
        self._one = one

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        finished = next((event for event in events if isinstance(event, Finished)), None)
        document = next((event.data for event in events if isinstance(event, Verbatim) and event.whole), None)
        model = next((event.model for event in events if isinstance(event, Started) and event.model), "")
        if finished is None or document is None:
            return b""
        try:
            vectors = vectors_in(document)
        except UpstreamGarbled as error:
            return self.fail(error)
        if self._one:
            return _json({"embedding": vectors[0]})
        answer = self._answer
        fields: dict[str, Any] = {
            "model": model if answer.reveal and model else answer.model,
            "embeddings": vectors,
        }
        fields["total_duration"] = max(1, int((answer.clock() - answer.received) * 1e9))
        fields["load_duration"] = 0
        if finished.usage is not None:
            fields["prompt_eval_count"] = finished.usage.input
        return _json(fields)

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def resume(self, started: Started) -> None:
        """Does nothing: nothing is written before the end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""
