"""Embeddings by Cohere's models: from requests of OpenAI's dialect, and answers as its document.

Cohere wants to know what vectors are for (`input_type`), which OpenAI's dialect has no word for: callers may
give it as a field of that name, Gemini's as `taskType`, and an upstream has a default. `truncate` and
`max_tokens` are passed on. Vectors are asked for as floats; callers who want base64 get theirs by the
frontend.

Standard: https://docs.cohere.com/reference/embed
"""

import msgspec
from msgspec import Raw

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.model.chat import ChatRequest
from sluice_plugins.vectors import Value, Vectors, VectorsDecoder, dimensions_of, purpose_of, texts_of

_json = msgspec.json.Encoder().encode


class Embeddings(msgspec.Struct, frozen=True):
    """Requests vectors of texts from `url`, at most 96 of them (Cohere itself refuses more)."""

    url: str
    headers: Headers
    input_type: str

    def whole_request(self, chat: ChatRequest, model: str) -> UpstreamRequest:
        return UpstreamRequest(
            self.url, self.headers, _json({"model": model, **fields_of(chat, self.input_type)})
        )

    def whole_decoder(self) -> Decoder:
        return VectorsDecoder(read)


def fields_of(chat: ChatRequest, input_type: str) -> Value:
    """The request's fields beside the model. Raises BadRequest."""
    wire = chat.wire or {}
    fields: Value = {
        "texts": texts_of(chat),
        "input_type": purpose_of(chat, input_type),
        "embedding_types": ["float"],
        "output_dimension": dimensions_of(chat),
        "truncate": value if type(value := wire.get("truncate")) is str else None,
        "max_tokens": value if type(value := wire.get("max_tokens")) is int else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


class _Units(msgspec.Struct):
    input_tokens: float | None = None


class _Meta(msgspec.Struct):
    billed_units: _Units | None = None
    tokens: _Units | None = None


class _Document(msgspec.Struct):
    embeddings: Raw = Raw(b"null")
    meta: Raw = Raw(b"null")


class _ByType(msgspec.Struct, rename={"floats": "float"}):
    floats: list[Raw]


_document_of = msgspec.json.Decoder(_Document).decode
_by_type_of = msgspec.json.Decoder(_ByType | list[Raw]).decode
_meta_of = msgspec.json.Decoder(_Meta | None).decode


def read(body: bytes) -> Vectors:
    """Reads the answer in either form: vectors by type, or a bare list, as before there were types."""
    document = _document_of(body)
    found = _by_type_of(document.embeddings)
    return Vectors(found.floats if isinstance(found, _ByType) else found, _tokens(document.meta))


def _tokens(given: Raw) -> float | None:
    """The billed usage; a malformed `meta` does not fail the answer."""
    try:
        meta = _meta_of(given) or _Meta()
    except msgspec.DecodeError:
        return None
    units = meta.billed_units or meta.tokens
    return units.input_tokens if units is not None else None
