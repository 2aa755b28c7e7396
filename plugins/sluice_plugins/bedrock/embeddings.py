"""Embeddings on Bedrock by InvokeModel: Amazon's Titan and Nova, and Cohere's models, each in its maker's
form.

Requests come in OpenAI's dialect, and answers are its document. Which form a model takes is told by its id,
which profiles and the ARNs of models hold, too. Titan and Nova take one text per request. How many tokens
were read stands in Titan's answer, and for the others in a header.

Standards: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html,
https://docs.aws.amazon.com/nova/latest/userguide/embeddings-schema.html
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.errors import BadRequest
from sluice.model.chat import ChatRequest
from sluice_plugins.cohere.embeddings import fields_of as fields_for_cohere
from sluice_plugins.cohere.embeddings import read as read_coheres
from sluice_plugins.vectors import Value, Vectors, VectorsDecoder, dimensions_of, one_text_of, purpose_of

COUNT = "x-amzn-bedrock-input-token-count"
_PURPOSES = {
    "search_query": "GENERIC_RETRIEVAL",
    "classification": "CLASSIFICATION",
    "clustering": "CLUSTERING",
}
_json = msgspec.json.Encoder().encode


class Embeddings(msgspec.Struct, frozen=True):
    """Asks for vectors at `url`, which is a model's."""

    url: Callable[[str], str]
    headers: Headers
    input_type: str

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        fields = next((fields for part, fields in FIELDS.items() if part in model), None)
        if fields is None:
            known = ", ".join(FIELDS)
            raise BadRequest(
                f"Embeddings on Bedrock are those of models whose id has one of: {known}", param="model"
            )
        return UpstreamRequest(self.url(model), self.headers, _json(fields(chat, self.input_type)))

    def whole_decoder(self) -> Decoder:
        return InvokedVectors(_read)


class InvokedVectors(VectorsDecoder):
    """Reads the answer of any of these models; tokens that it does not tell are those of a header."""

    _counted: int | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        """Look for how many tokens were read."""
        count = headers.get(COUNT, "")
        if count.isascii() and count.isdigit() and len(count) < 10:
            self._counted = int(count)

    def used(self, found: Vectors) -> float | None:
        return self._counted if found.tokens is None else found.tokens


# ---- requests


def _for_titan(chat: ChatRequest, input_type: str) -> Value:
    wire, dimensions = chat.wire or {}, dimensions_of(chat)
    normalize = wire.get("normalize")
    return {
        "inputText": one_text_of(chat),
        **({"dimensions": dimensions} if dimensions is not None else {}),
        **({"normalize": normalize} if type(normalize) is bool else {}),
    }


def _for_titans_images(chat: ChatRequest, input_type: str) -> Value:
    dimensions = dimensions_of(chat)
    return {
        "inputText": one_text_of(chat),
        **({"embeddingConfig": {"outputEmbeddingLength": dimensions}} if dimensions is not None else {}),
    }


def _for_nova(chat: ChatRequest, input_type: str) -> Value:
    dimensions = dimensions_of(chat)
    wanted: dict[str, Any] = {
        "embeddingPurpose": _PURPOSES.get(purpose_of(chat, input_type), "GENERIC_INDEX"),
        **({"embeddingDimension": dimensions} if dimensions is not None else {}),
        "text": {"truncationMode": "NONE", "value": one_text_of(chat)},
    }
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": wanted}


FIELDS: Mapping[str, Callable[[ChatRequest, str], Value]] = {
    "cohere.embed-": fields_for_cohere,
    "amazon.titan-embed-image": _for_titans_images,
    "amazon.titan-embed-": _for_titan,
    "amazon.nova-2-multimodal-embeddings": _for_nova,
}
"""By a part of a model's id: the fields of its requests."""

# ---- answers


class _Of(msgspec.Struct):
    embedding: Raw = Raw(b"null")


class _Document(msgspec.Struct):
    embedding: Raw = Raw(b"")  # Titan's
    inputTextTokenCount: int | None = None
    embeddings: Raw = Raw(b"")  # Nova's, a list of objects; Cohere's


_document_of = msgspec.json.Decoder(_Document).decode
_novas_of = msgspec.json.Decoder(list[_Of]).decode


def _read(body: bytes) -> Vectors:
    document = _document_of(body)
    if bytes(document.embedding):
        return Vectors([document.embedding], document.inputTextTokenCount)
    try:
        return Vectors([one.embedding for one in _novas_of(document.embeddings)])
    except msgspec.DecodeError:
        return read_coheres(body)
