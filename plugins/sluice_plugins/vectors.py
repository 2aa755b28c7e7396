"""Embeddings by upstreams that do not speak OpenAI's dialect: reads the fields of OpenAI's request, and
writes OpenAI's document from the vendor's vectors.

Standard: https://platform.openai.com/docs/api-reference/embeddings
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from sluice.errors import BadRequest, UpstreamError, UpstreamGarbled
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, StreamEvent, TextDelta, Usage, Verbatim, believed_count
from sluice.wire.upstream_errors import reported_error
from sluice_plugins.decoding import MALFORMED
from sluice_plugins.documents import BodyDecoder

Value = dict[str, Any]
MAX_ERROR = 64 << 10
"""The longest document, in bytes, that is searched for an error."""
PURPOSES: Mapping[str, str] = {
    "RETRIEVAL_QUERY": "search_query",
    "QUESTION_ANSWERING": "search_query",
    "FACT_VERIFICATION": "search_query",
    "CODE_RETRIEVAL_QUERY": "search_query",
    "RETRIEVAL_DOCUMENT": "search_document",
    "CLASSIFICATION": "classification",
    "CLUSTERING": "clustering",
}
"""Cohere's `input_type` by Google's `taskType`, which callers of Gemini's dialect send."""
_json = msgspec.json.Encoder().encode


def texts_of(chat: ChatRequest) -> list[str]:
    """Returns the texts to embed. Raises BadRequest for lists of tokens and for anything else."""
    given = (chat.wire or {}).get("input")
    texts = [given] if type(given) is str else given
    if type(texts) is not list or not texts or not all([type(text) is str for text in texts]):
        raise BadRequest("input: must be a text or a list of texts for this model, not tokens", param="input")
    return texts


def dimensions_of(chat: ChatRequest) -> int | None:
    """Returns the requested length of the vectors; None for the model's own."""
    dimensions = (chat.wire or {}).get("dimensions")
    return dimensions if type(dimensions) is int else None


def purpose_of(chat: ChatRequest, default: str) -> str:
    """Returns what the vectors are for, in Cohere's terms: the caller's `input_type` (or `taskType` in
    Gemini's dialect), else `default`. Raises BadRequest if the texts of one request have different
    purposes."""
    given = (chat.wire or {}).get("input_type")
    if type(given) is str and given:
        return given
    requests = chat.own.get("requests") if chat.own is not None else None
    kinds = {task_of(one).get("taskType") or "" for one in requests} if type(requests) is list else {""}
    if len(kinds) > 1:
        raise BadRequest("requests: must have one taskType for this model", param="requests")
    return PURPOSES.get(kinds.pop(), default)


def task_of(one: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns one request of Gemini's dialect, with fields of its `embedContentConfig` in place of its
    own."""
    config = one.get("embedContentConfig")
    return {**one, **config} if type(config) is dict else one


class Vectors(msgspec.Struct, frozen=True):
    """Vectors as JSON text, in the order of the texts. `tokens`: those of the input; None if not reported. A
    number that is not whole, or above MOST_TOKENS, counts as not reported."""

    vectors: Sequence[Raw]
    tokens: float | None = None


Read = Callable[[bytes], Vectors]
"""Reads a vendor's document. An exception of MALFORMED means that it has no vectors."""


class VectorsDecoder(BodyDecoder):
    """Decodes a vendor's document of vectors, and writes it in OpenAI's form."""

    def __init__(self, read: Read) -> None:
        super().__init__()
        self._read = read

    def _answer(self, body: bytes) -> list[StreamEvent]:
        try:
            found = self._read(body)
        except MALFORMED:
            raise _no_answer(body) from None
        vectors = found.vectors
        if not vectors or not all([bytes(memoryview(vector)[:1]) == b"[" for vector in vectors]):
            raise _no_answer(body)
        items = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)]
        document: Value = {"object": "list", "data": items, "model": ""}
        used = believed_count(self.used(found))
        if used is not None:
            document["usage"] = {"prompt_tokens": used, "total_tokens": used}
        usage = Usage(used) if used is not None else None
        return [
            Started(),
            TextDelta(""),
            Finished("stop", usage),
            Verbatim(_json(document), whole=True, made=True),
        ]

    def used(self, found: Vectors) -> float | None:
        return found.tokens


def _no_answer(body: bytes) -> UpstreamError:
    error = reported_error(body) if len(body) <= MAX_ERROR else None
    return error or UpstreamGarbled("The upstream's answer has no embeddings")
