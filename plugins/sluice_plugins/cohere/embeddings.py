"""Embeddings by Cohere's models: translates requests of OpenAI's dialect, and answers into OpenAI's document.

Cohere requires the purpose of the vectors (`input_type`), for which OpenAI's dialect has no field: callers
may send a field of that name, callers of Gemini's dialect `taskType`; otherwise the upstream's default is
used. `truncate` and `max_tokens` are passed on. Vectors are requested as floats; for callers who want base64
the frontend converts them.

Standard: https://docs.cohere.com/reference/embed
"""

import msgspec
from msgspec import Raw

from sluice.backends.protocol import Decoder, Headers, UpstreamRequest
from sluice.model.chat import ChatRequest
from sluice_plugins.vectors import Value, Vectors, VectorsDecoder, dimensions_of, purpose_of, texts_of

_json = msgspec.json.Encoder().encode


class Embeddings(msgspec.Struct, frozen=True):
    """Requests vectors of texts from `url`. Cohere itself refuses more than 96 texts."""

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
    """Returns the request's fields except the model. Raises BadRequest."""
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
    """Reads either form of the answer: vectors by type, or a plain list (answers of Cohere's older API)."""
    document = _document_of(body)
    found = _by_type_of(document.embeddings)
    return Vectors(found.floats if isinstance(found, _ByType) else found, _tokens(document.meta))


def _tokens(given: Raw) -> float | None:
    """Returns the billed tokens; a malformed `meta` does not fail the answer."""
    try:
        meta = _meta_of(given) or _Meta()
    except msgspec.DecodeError:
        return None
    units = meta.billed_units or meta.tokens
    return units.input_tokens if units is not None else None
