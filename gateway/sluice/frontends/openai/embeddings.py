"""The request of `POST /v1/embeddings`. Its answer is an upstream's own.

Only what limits and routes need is parsed: the model, and the number of tokens. Lists of tokens may be long
(LangChain sends a thousand chunks of a document this way), so they are counted without being parsed as
numbers.

Standard: https://platform.openai.com/docs/api-reference/embeddings/create
"""

import re
from array import array
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

from sluice.errors import BadRequest
from sluice.frontends import RequestHead
from sluice.frontends.checks import check_names
from sluice.frontends.openai.fields import FIELDS
from sluice.frontends.openai.whole import Accumulated
from sluice.model.chat import TOKENS_OF_AN_IMAGE, text_size
from sluice.model.events import StreamEvent, Verbatim
from sluice.model.operations import OperationRequest
from sluice.wire.jsontext import checked_object, unambiguous_object

SHORT = 32 << 10
"""Maximum bytes of a body whose lists of tokens are parsed as numbers."""
KINDS = "must be a string, a list of strings, a list of tokens (whole numbers) or a list of such lists"
_NAMES = frozenset(
    {"model", "input", "dimensions", "encoding_format", "user", "input_type", "truncate", "max_tokens"}
)
_TOKENS = re.compile(rb"\[[\[\]0-9,\s]*\]").fullmatch


class InBase64(Accumulated, eq=False):
    """The answer for callers who want vectors in base64, 32-bit floats, as OpenAI's SDKs do (and read nothing
    else, in JavaScript). What an upstream of this dialect wrote is passed on as it came."""

    def encode(self, events: Sequence[StreamEvent]) -> bytes:
        data = super().encode(events)
        last = events[-1]
        if not (type(last) is Verbatim and last.made):
            return data
        document = msgspec.json.decode(data)
        for item in document["data"]:
            item["embedding"] = b64encode(array("f", item["embedding"]).tobytes()).decode()
        return msgspec.json.encode(document)


class _Input(msgspec.Struct, gc=False):
    input: msgspec.Raw = msgspec.Raw(b"")


_input_of = msgspec.json.Decoder(_Input).decode
_lists_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


def embeddings(body: bytes, head: RequestHead) -> OperationRequest:
    wire, sizes, unescaped = (_long_lists(body) if len(body) > SHORT else None) or _any(body)
    check_names(wire, _NAMES, "")
    model = wire.get("model")
    if not (model is None or isinstance(model, str)) or model == "":
        raise BadRequest("model: must be a string that names a model", param="model")
    return OperationRequest(
        "openai",
        model,
        (),
        stream=False,
        wire=wire,
        body=body if unescaped else b"",
        operation="embeddings",
        tokens=sum(sizes),
        longest=max(sizes),
        fields=FIELDS,
    )


Read = tuple[dict[str, Any], list[int], bool]
"""Returns the object, the estimated tokens of each input, and whether its names have no escapes."""


def _any(body: bytes) -> Read:
    wire = unambiguous_object(body)
    unescaped = wire is not None
    wire = checked_object(body) if wire is None else wire
    given = wire.get("input")
    if given is None:
        raise _refused(KINDS if "input" in wire else "is required")
    if not isinstance(given, list) or _is_tokens(given):
        return wire, [_size(given)], unescaped
    return wire, [_size(item) for item in given] or [_size(given)], unescaped


def _size(item: object) -> int:
    """Estimates the tokens of one input. Vendors' own objects (pictures at Jina and Voyage) are not
    checked."""
    match item:
        case str():
            return text_size(item) // 4
        case []:
            raise _refused("must not be empty")
        case list() if _is_tokens(item):
            return len(item)
        case {"text": str(text)}:
            return text_size(text) // 4
        case dict():
            return TOKENS_OF_AN_IMAGE
        case _:
            raise _refused(KINDS)


def _is_tokens(item: list[Any]) -> bool:
    return bool(item) and all(type(token) is int and token >= 0 for token in item)


# --- long lists of tokens


def _long_lists(body: bytes) -> Read | None:
    """Returns the result of `_any` with the input as its text; None for another input. The rest of the body
    is parsed as usual, with a 0 in the input's place.
    """
    try:
        given = bytes(_input_of(body).input)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not _TOKENS(given):
        return None
    at = body.find(given)
    rest = b"%b0%b" % (body[:at], body[at + len(given) :])
    wire = unambiguous_object(rest)
    unescaped = wire is not None
    wire = checked_object(rest) if wire is None else wire
    if wire.get("input") != 0:  # these bytes occur elsewhere, too
        return None
    wire["input"] = msgspec.Raw(given)
    return wire, _counts(given), unescaped


def _counts(given: bytes) -> list[int]:
    lists = [bytes(item) for item in _lists_of(given)] if given[1:].lstrip().startswith(b"[") else [given]
    for item in lists:
        if not item.startswith(b"[") or b"[" in item[1:]:
            raise _refused(KINDS)
        if not item[1:-1].strip():
            raise _refused("must not be empty")
    return [item.count(b",") + 1 for item in lists]


def _refused(reason: str) -> BadRequest:
    return BadRequest(f"input: {reason}", param="input", details=[{"field": "input", "reason": reason}])
