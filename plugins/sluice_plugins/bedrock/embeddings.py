"""Embeddings on Bedrock by InvokeModel: Amazon's Titan and Nova, and Cohere's models, each with its own
format.

Requests come in OpenAI's dialect, and answers are written in it. The model id, which is also part of profile
ids and model ARNs, decides the format. Titan and Nova take one text per request, so several texts need
several requests. Titan's answer has the count of input tokens; for the other models it is in a header.

Standards: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html,
https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.backends.read_response import ReadResponse
from sluice.errors import BadRequest
from sluice.model.chat import ChatRequest
from sluice_plugins.cohere.embeddings import fields_of as fields_for_cohere
from sluice_plugins.cohere.embeddings import read as read_coheres
from sluice_plugins.vectors import Value, Vectors, VectorsDecoder, dimensions_of, purpose_of, texts_of

MAX_TEXTS = 256
"""Most texts of one call to a model that takes one text per request."""
COUNT = "x-amzn-bedrock-input-token-count"
_PURPOSES = {
    "search_query": "GENERIC_RETRIEVAL",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
_json = msgspec.json.Encoder().encode


class Embeddings(msgspec.Struct, frozen=True):
    """Requests vectors at `url(model)`."""

    url: Callable[[str], str]
    headers: Headers
    input_type: str

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        if COHERES in model:
            return self._request(model, [fields_for_cohere(chat, self.input_type)])
        fields = next((fields for part, fields in FIELDS.items() if part in model), None)
        if fields is None:
            known = ", ".join([COHERES, *FIELDS])
            raise BadRequest(
                f"Embeddings on Bedrock are those of models whose id has one of: {known}", param="model"
            )
        texts = texts_of(chat)
        if len(texts) > MAX_TEXTS:
            reason = f"input: must have at most {MAX_TEXTS} texts for this model, which takes one per request"
            raise BadRequest(reason, param="input")
        return self._request(model, [fields(text, chat, self.input_type) for text in texts])

    def _request(self, model: str, fields: Sequence[Value]) -> UpstreamRequest:
        body, *beside = [_json(one) for one in fields]
        return UpstreamRequest(self.url(model), self.headers, body, beside=tuple(beside))

    def joined(self, answers: Sequence[ReadResponse]) -> ReadResponse:
        """Returns the documents of several answers as a list, and the sum of their token counts."""
        counts = [_count(answer.headers) for answer in answers]
        known = [count for count in counts if count is not None]
        headers = {COUNT: str(sum(known))} if len(known) == len(counts) else {}
        return ReadResponse(200, headers, b"[%b]" % b",".join([answer.body for answer in answers]))

    def whole_decoder(self) -> Decoder:
        return InvokedVectors(_read)


class InvokedVectors(VectorsDecoder):
    """Decodes the answer of any of these models; if it has no token count, that of a header is used."""

    _counted: int | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        """Read the count of input tokens from the headers."""
        self._counted = _count(headers)

    def used(self, found: Vectors) -> float | None:
        return self._counted if found.tokens is None else found.tokens


def _count(headers: Mapping[str, str]) -> int | None:
    count = headers.get(COUNT, "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else None


# ---- requests


def _for_titan(text: str, chat: ChatRequest, input_type: str) -> Value:
    wire, dimensions = chat.wire or {}, dimensions_of(chat)
    normalize = wire.get("normalize")
    return {
        "inputText": text,
        **({"dimensions": dimensions} if dimensions is not None else {}),
        **({"normalize": normalize} if type(normalize) is bool else {}),
    }


def _for_titans_images(text: str, chat: ChatRequest, input_type: str) -> Value:
    dimensions = dimensions_of(chat)
    return {
        "inputText": text,
        **({"embeddingConfig": {"outputEmbeddingLength": dimensions}} if dimensions is not None else {}),
    }


def _for_nova(text: str, chat: ChatRequest, input_type: str) -> Value:
    dimensions = dimensions_of(chat)
    wanted: dict[str, Any] = {
        "embeddingPurpose": _PURPOSES.get(purpose_of(chat, input_type), "GENERIC_INDEX"),
        **({"embeddingDimension": dimensions} if dimensions is not None else {}),
        "text": {"truncationMode": "NONE", "value": text},
    }
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": wanted}


COHERES = "cohere.embed-"
FIELDS: Mapping[str, Callable[[str, ChatRequest, str], Value]] = {
    "amazon.titan-embed-image": _for_titans_images,
    "amazon.titan-embed-": _for_titan,
    "amazon.nova-2-multimodal-embeddings": _for_nova,
}
"""By a part of the model's id: a function that returns the fields of a request for one text."""

# ---- answers


class _Of(msgspec.Struct):
    embedding: Raw = Raw(b"null")


class _Document(msgspec.Struct):
    embedding: Raw = Raw(b"")  # Titan's
    inputTextTokenCount: int | None = None
    embeddings: Raw = Raw(b"")  # Nova's, a list of objects; Cohere's


_document_of = msgspec.json.Decoder(_Document).decode
_novas_of = msgspec.json.Decoder(list[_Of]).decode


_documents_of = msgspec.json.Decoder(list[Raw]).decode


def _read(body: bytes) -> Vectors:
    if body.startswith(b"["):
        return _together([_read_one(bytes(one)) for one in _documents_of(body)])
    return _read_one(body)


def _together(found: Sequence[Vectors]) -> Vectors:
    """Returns the vectors of all answers; tokens are None unless every answer has a count."""
    tokens = [one.tokens for one in found if one.tokens is not None]
    vectors = [vector for one in found for vector in one.vectors]
    return Vectors(vectors, sum(tokens) if len(tokens) == len(found) else None)


def _read_one(body: bytes) -> Vectors:
    document = _document_of(body)
    if bytes(document.embedding):
        return Vectors([document.embedding], document.inputTextTokenCount)
    try:
        return Vectors([one.embedding for one in _novas_of(document.embeddings)])
    except msgspec.DecodeError:
        return read_coheres(body)
