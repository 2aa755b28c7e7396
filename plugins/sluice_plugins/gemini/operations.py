"""Embeddings and token counts by Gemini's API and Vertex AI.

Embeddings are requested and answered in OpenAI's dialect, even for callers of Gemini's dialect, whose own
requests are in the field `own`. The Gemini API takes several contents in `batchEmbedContents`. On Vertex AI,
Gemini's embedding models have `embedContent`, which takes one content, and other models have `predict`.

The answer of a count is forwarded unmodified. The Gemini API takes fields other than contents only within
`generateContentRequest`, which Vertex AI does not have.

Standards: https://ai.google.dev/api/embeddings, https://ai.google.dev/api/tokens,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.errors import BadRequest
from sluice.model.chat import ChatRequest
from sluice_plugins.counting import CountDecoder
from sluice_plugins.vectors import Value, Vectors, VectorsDecoder, dimensions_of, task_of, texts_of

UrlOf = Callable[[str, str], str]
"""Returns the URL for a model and a method."""
_json = msgspec.json.Encoder().encode


class Counting(msgspec.Struct, frozen=True):
    """A token counting operation for callers of the same dialect."""

    url: UrlOf
    headers: Headers
    on_vertex: bool = False

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        name = model.removeprefix("models/")
        wire = chat.wire or {}
        inner = wire.get("generateContentRequest")
        body = {
            key: value for key, value in (inner if type(inner) is dict else wire).items() if key != "model"
        }
        if not self.on_vertex and body.keys() != {"contents"}:
            body = {"generateContentRequest": {**body, "model": f"models/{name}"}}
        return UpstreamRequest(self.url(name, "countTokens"), self.headers, _json(body))

    def whole_decoder(self) -> Decoder:
        return CountDecoder(_checked)


class _Count(msgspec.Struct):
    totalTokens: int = 0  # the API omits it if it is 0
    error: Any = None


_count_of = msgspec.json.Decoder(_Count).decode


def _checked(body: bytes) -> bytes | None:
    return body if _count_of(body).error is None else None


# --- embeddings


class Embeddings(msgspec.Struct, frozen=True):
    """Requests vectors of texts."""

    url: UrlOf
    headers: Headers
    on_vertex: bool = False

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        name = model.removeprefix("models/")
        contents = _embed_requests(chat)
        if not self.on_vertex:
            requests = [{**one, "model": f"models/{name}"} for one in contents]
            return UpstreamRequest(
                self.url(name, "batchEmbedContents"), self.headers, _json({"requests": requests})
            )
        if "gemini" in name.rpartition("/")[2]:
            if len(contents) > 1:
                raise BadRequest("This model takes one input per request", param="input")
            return UpstreamRequest(self.url(name, "embedContent"), self.headers, _json(contents[0]))
        body: Value = {"instances": [_instance(one) for one in contents]}
        if dimensions := contents[0].get("outputDimensionality"):
            body["parameters"] = {"outputDimensionality": dimensions}
        return UpstreamRequest(self.url(name, "predict"), self.headers, _json(body))

    def whole_decoder(self) -> Decoder:
        return VectorsDecoder(_read)


def _embed_requests(chat: ChatRequest) -> list[Value]:
    """Returns one request per content, in Google's form."""
    if chat.own is not None and type(own := chat.own.get("requests")) is list:
        return [{name: value for name, value in one.items() if name != "model"} for one in own]
    dimensions = dimensions_of(chat)
    more = {"outputDimensionality": dimensions} if dimensions is not None else {}
    return [{"content": {"parts": [{"text": text}]}, **more} for text in texts_of(chat)]


def _instance(one: Mapping[str, Any]) -> Value:
    named = task_of(one)
    text = "".join([part.get("text") or "" for part in one["content"]["parts"]])
    fields = {"task_type": named.get("taskType"), "title": named.get("title")}
    return {"content": text, **{name: value for name, value in fields.items() if value is not None}}


class _Statistics(msgspec.Struct):
    token_count: float = 0
    tokenCount: float = 0


class _Vector(msgspec.Struct):
    values: Raw = Raw(b"")
    statistics: _Statistics | None = None


class _Prediction(msgspec.Struct):
    embeddings: _Vector = msgspec.field(default_factory=_Vector)


class _Counts(msgspec.Struct):
    promptTokenCount: int = 0


class _Document(msgspec.Struct):
    embeddings: list[_Vector] = []  # of batchEmbedContents
    embedding: _Vector | None = None  # of embedContent
    predictions: list[_Prediction] = []
    usageMetadata: _Counts | None = None


_document_of = msgspec.json.Decoder(_Document).decode


def _read(body: bytes) -> Vectors:
    document = _document_of(body)
    vectors = [document.embedding] if document.embedding is not None else document.embeddings
    vectors = vectors or [prediction.embeddings for prediction in document.predictions]
    return Vectors([vector.values for vector in vectors], _tokens(document, vectors))


def _tokens(document: _Document, vectors: Sequence[_Vector]) -> float | None:
    """Returns the billed tokens; None if they are not reported."""
    if document.usageMetadata is not None and document.usageMetadata.promptTokenCount:
        return document.usageMetadata.promptTokenCount
    counts = [
        vector.statistics.token_count or vector.statistics.tokenCount
        for vector in vectors
        if vector.statistics
    ]
    return sum(counts) if counts else None
