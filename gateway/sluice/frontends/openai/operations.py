"""Requests of `/v1/moderations`, `/v1/images/generations`, `/v1/audio/speech` and `/v1/rerank`
(`/v2/rerank`), whose answers are an upstream's own.

Only what limits and routes need is parsed: the model, and the estimated number of tokens. The provider checks
the rest, which is forwarded unchanged. Names that a
server might take for another are refused (`sluice.frontends.checks.check_names`).

Standards: https://platform.openai.com/docs/api-reference/moderations,
https://platform.openai.com/docs/api-reference/images/create,
https://platform.openai.com/docs/api-reference/audio/createSpeech, https://docs.cohere.com/reference/rerank,
https://jina.ai/reranker, https://docs.vllm.ai/en/latest/serving/openai_compatible_server
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sluice.errors import BadRequest, GatewayError
from sluice.frontends import CallRoute, RequestHead
from sluice.frontends.checks import check_names, refused
from sluice.frontends.openai.fields import FIELDS
from sluice.model.chat import TOKENS_OF_AN_IMAGE, text_size
from sluice.model.events import Started, StreamEvent, Verbatim
from sluice.model.fields import UNKNOWN_FIELDS, DialectFields
from sluice.model.operations import BytesRequest, OperationRequest
from sluice.wire.jsontext import checked_object, unambiguous_object

RERANK = "rerank"
"""The dialect of rerankers: Jina, Cohere's second version and vLLM have the same requests and answers."""
SOUNDS: Mapping[str, str] = {
    "mp3": "audio/mpeg", "opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm",
}  # fmt: skip
"""Media types of `response_format`."""
_MODERATION = frozenset({"model", "input"})
_IMAGE = frozenset(
    {
        "model",
        "prompt",
        "n",
        "size",
        "quality",
        "style",
        "response_format",
        "stream",
        "partial_images",
        "output_format",
    }
)
_SPEECH = frozenset({"model", "input", "voice", "instructions", "response_format", "speed", "stream_format"})
_RERANK = frozenset(
    {"model", "query", "documents", "top_n", "return_documents", "max_tokens_per_doc", "truncate"}
)
NEEDS = "must be a string or a list that is not empty"


def moderations(body: bytes, head: RequestHead) -> OperationRequest:
    """Parses a request for moderations: texts, or parts of content (`text`, `image_url`)."""
    wire, unescaped = _object(body, _MODERATION)
    given = wire.get("input")
    if not isinstance(given, str | list) or given == []:
        raise refused("input", NEEDS)
    sizes = [_size(item, "input") for item in (given if isinstance(given, list) else [given])]
    return _request("moderations", "openai", wire, body if unescaped else b"", sizes)


def images(body: bytes, head: RequestHead) -> OperationRequest:
    """Parses a request for images. The answer has all of them; partial images of a stream are not
    forwarded."""
    wire, unescaped = _object(body, _IMAGE)
    prompt = wire.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise refused("prompt", "must be a string that is not empty")
    if wire.get("stream"):
        raise BadRequest(
            "stream: images are answered in one piece here", param="stream", code="unsupported_parameter"
        )
    return _request("images", "openai", wire, body if unescaped else b"", [_size(prompt, "prompt")])


def speech(body: bytes, head: RequestHead) -> BytesRequest:
    """Parses a request for speech. Sound is forwarded as it arrives; with `stream_format: sse` it is
    events."""
    wire, unescaped = _object(body, _SPEECH)
    text = wire.get("input")
    if not isinstance(text, str) or not text:
        raise refused("input", "must be a string that is not empty")
    tokens, form = _size(text, "input"), wire.get("response_format")
    sound = SOUNDS.get(form, "application/octet-stream") if isinstance(form, str) else SOUNDS["mp3"]
    return BytesRequest(
        "openai",
        _model(wire),
        (),
        stream=True,
        wire=wire,
        body=body if unescaped else b"",
        operation="speech",
        tokens=tokens,
        longest=tokens,
        fields=FIELDS,
        media_type="text/event-stream" if wire.get("stream_format") == "sse" else sound,
    )


def rerank(body: bytes, head: RequestHead) -> OperationRequest:
    """Parses a query and the documents that are ranked by it. Each document is read together with the
    query."""
    wire, unescaped = _object(body, _RERANK)
    query, documents = wire.get("query"), wire.get("documents")
    if not isinstance(query, str | dict) or not query:
        raise refused("query", "must be a string that is not empty")
    if not isinstance(documents, list) or not documents:
        raise refused("documents", "must be a list that is not empty")
    of_query = _size(query, "query")
    sizes = [of_query + _size(document, "documents") for document in documents]
    return _request(RERANK, RERANK, wire, body if unescaped else b"", sizes, fields=UNKNOWN_FIELDS)


OPERATIONS = (
    CallRoute(path="/v1/moderations", also=("/moderations",), parse=moderations, operation="moderations"),
    CallRoute(path="/v1/images/generations", also=("/images/generations",), parse=images, operation="images"),
    CallRoute(path="/v1/audio/speech", also=("/audio/speech",), parse=speech, operation="speech"),
    CallRoute(path="/v1/rerank", also=("/rerank", "/v2/rerank"), parse=rerank, operation=RERANK),
)
"""The routes of these operations, which Azure's paths have, too (but for `azure.OPENAI_ALONE`). To add an
operation, add a row here, its row of `PATHS` in `sluice_plugins.openai.operations` and its path in
`api/openapi.json`."""


def _object(body: bytes, names: frozenset[str]) -> tuple[dict[str, Any], bool]:
    """Returns the object, and whether its names have no escapes. `names`: those that are known."""
    wire = unambiguous_object(body)
    unescaped = wire is not None
    wire = checked_object(body) if wire is None else wire
    check_names(wire, names, "")
    return wire, unescaped


def _request(
    operation: str,
    dialect: str,
    wire: dict[str, Any],
    body: bytes,
    sizes: list[int],
    *,
    fields: DialectFields = FIELDS,
) -> OperationRequest:
    return OperationRequest(
        dialect,
        _model(wire),
        (),
        stream=False,
        wire=wire,
        body=body,
        operation=operation,
        tokens=sum(sizes),
        longest=max(sizes),
        fields=fields,
    )


def _model(wire: dict[str, Any]) -> str | None:
    model = wire.get("model")
    if not (model is None or isinstance(model, str)) or model == "":
        raise refused("model", "must be a string that names a model")
    return model


def _size(item: object, name: str) -> int:
    """Estimates the tokens of an input. Vendors' own objects are not checked."""
    match item:
        case str(text) | {"text": str(text)}:
            return text_size(text) // 4
        case {"image_url": _} | {"image": _}:
            return TOKENS_OF_AN_IMAGE
        case dict():
            return sum(text_size(value) // 4 for value in item.values() if isinstance(value, str))
        case _:
            raise refused(name, "may have strings and objects")


class Passed:
    """Forwards an answer of raw bytes. It has no place for an error: once it has begun, an error cuts it."""

    continues: ClassVar[bool] = False
    cuts: ClassVar[bool] = True

    def __init__(self, media_type: str) -> None:
        self.content_type = media_type

    def start(self) -> bytes:
        return b""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        return b"".join([event.data for event in events if type(event) is Verbatim])

    def fail(self, error: GatewayError) -> bytes:
        return b""

    def resume(self, started: Started) -> None:
        pass

    def restart(self) -> bytes:
        return b""

    def heartbeat(self) -> bytes:
        return b""
