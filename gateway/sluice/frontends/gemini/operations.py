"""Operations beside chat: counts of tokens, and embeddings.

Tokens are counted by the upstream if it can, otherwise estimated, as for limits. Embeddings are requested in
OpenAI's form from upstreams that carry them, and returned in Google's. Only texts can be embedded;
`taskType`, `title` and what else OpenAI's dialect has no word for reaches Google's own upstreams (`own`), and
is left out for others.

Standard: https://ai.google.dev/api/tokens and https://ai.google.dev/api/embeddings
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import GatewayError, UpstreamGarbled
from sluice.frontends import Encoder, RequestHead
from sluice.frontends.checks import refused, whole_number
from sluice.frontends.estimates import count_request, prompt_tokens
from sluice.frontends.gemini.errors import error_object
from sluice.frontends.gemini.parts import GeminiTurn
from sluice.frontends.gemini.request import chat_of, proto, typed
from sluice.frontends.openai.fields import FIELDS as OPENAIS_FIELDS
from sluice.frontends.vectors import vectors_in
from sluice.model.chat import text_size
from sluice.model.events import Started, StreamEvent, Verbatim
from sluice.model.operations import OperationRequest
from sluice.wire.jsontext import parse_object

ONE, PREDICTED = "one", "predict"
"""The `profile` of a request for one vector, and of one to Vertex AI's `:predict`."""
MAX_BATCH_REQUESTS = 100
"""Maximum requests of one batch: Google's own bound."""
_json = msgspec.json.Encoder().encode


def count(body: bytes, head: RequestHead) -> OperationRequest:
    """Parses the request. Raises BadRequest."""
    wire = proto(parse_object(body))
    inner = wire.get("generateContentRequest")
    model = head.parameters["model"]
    chat = chat_of(inner if isinstance(inner, dict) else wire, model, stream=False)
    tokens = prompt_tokens(chat)
    fields = {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}
    return count_request(chat, tokens, _json(fields), wire)


class _EmbedConfig(msgspec.Struct):
    outputDimensionality: float | None = None
    taskType: str | None = None
    title: str | None = None


class _Embed(msgspec.Struct):
    content: GeminiTurn
    outputDimensionality: float | None = None
    taskType: str | None = None  # this and the title are sent to upstreams unchanged (`own`)
    title: str | None = None
    embedContentConfig: _EmbedConfig | None = None


class _Batch(msgspec.Struct):
    requests: list[_Embed]


def embed(body: bytes, head: RequestHead) -> OperationRequest:
    wire = proto(parse_object(body))
    return _request([typed(wire, _Embed)], [wire], head.parameters["model"], ONE)


def embed_all(body: bytes, head: RequestHead) -> OperationRequest:
    wire = proto(parse_object(body))
    batch: _Batch = typed(wire, _Batch)
    if not 0 < len(batch.requests) <= MAX_BATCH_REQUESTS:
        raise refused("requests", f"must be from 1 to {MAX_BATCH_REQUESTS}")
    return _request(batch.requests, wire["requests"], head.parameters["model"], "")


class _Instance(msgspec.Struct):
    content: str
    task_type: str | None = None
    title: str | None = None


class _Parameters(msgspec.Struct):
    outputDimensionality: float | None = None


class _Prediction(msgspec.Struct):
    instances: list[_Instance]
    parameters: _Parameters | None = None


def predict(body: bytes, head: RequestHead) -> OperationRequest:
    """Parses Vertex AI's request for vectors of texts, each of which is an instance. Raises BadRequest.

    Standard: https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
    """
    prediction: _Prediction = typed(parse_object(body), _Prediction)
    if not 0 < len(prediction.instances) <= MAX_BATCH_REQUESTS:
        raise refused("instances", f"must be from 1 to {MAX_BATCH_REQUESTS}")
    size = (prediction.parameters or _Parameters()).outputDimensionality
    wires = []
    for one in prediction.instances:
        fields = {"taskType": one.task_type, "title": one.title, "outputDimensionality": size}
        given = {name: value for name, value in fields.items() if value is not None}
        wires.append({"content": {"parts": [{"text": one.content}]}, **given})
    return _request([typed(wire, _Embed) for wire in wires], wires, head.parameters["model"], PREDICTED)


def _request(requests: Sequence[_Embed], own: list[Any], model: str, profile: str) -> OperationRequest:
    texts = [_text(one.content, f"requests[{index}].content") for index, one in enumerate(requests)]
    sizes = [text_size(text) // 4 for text in texts]
    wire: dict[str, Any] = {"model": model, "input": texts}
    wanted = {_dimensions(one) for one in requests} - {None}
    if len(wanted) > 1:
        raise refused("requests", "must want vectors of one outputDimensionality")
    if wanted:
        wire["dimensions"] = whole_number(wanted.pop() or 0, "outputDimensionality")
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
        own={"requests": own},
        fields=OPENAIS_FIELDS,
    )


def _dimensions(one: _Embed) -> float | None:
    config = one.embedContentConfig
    return (
        one.outputDimensionality
        if config is None or config.outputDimensionality is None
        else config.outputDimensionality
    )


def _text(content: GeminiTurn, at: str) -> str:
    parts = content.parts or []
    if not parts or any(part.text is None for part in parts):
        raise refused(at, "must have parts, and texts only")
    return "".join([part.text or "" for part in parts])


def encoder(request: OperationRequest) -> Encoder:
    return Vectors(request.profile) if request.operation == "embeddings" else Passed()


class Passed:
    """Forwards an upstream's own answer unchanged."""

    content_type = "application/json; charset=utf-8"

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        return next((event.data for event in events if isinstance(event, Verbatim) and event.whole), b"")

    def fail(self, error: GatewayError) -> bytes:
        return _json(error_object(error))

    def resume(self, started: Started) -> None:
        """Does nothing: nothing is written before the end."""

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""


class Vectors(Passed):
    """Translates OpenAI's document to Google's. Vectors are forwarded as written; `profile`: of the request."""

    def __init__(self, profile: str) -> None:
        self._profile = profile

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        document = super().encode(events)
        if not document:
            return b""
        try:
            vectors = [{"values": vector} for vector in vectors_in(document)]
        except UpstreamGarbled as error:
            return self.fail(error)
        if self._profile == ONE:
            return _json({"embedding": vectors[0]})
        if self._profile == PREDICTED:
            return _json({"predictions": [{"embeddings": vector} for vector in vectors]})
        return _json({"embeddings": vectors})
