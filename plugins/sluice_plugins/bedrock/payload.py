"""The types of Converse's events, and their conversion to the gateway's types. Pure functions.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from typing import Any

import msgspec

from sluice.model.events import Usage
from sluice.wire.lenient import encoded
from sluice.wire.seals import BEDROCKS

EVENTS = frozenset(
    {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"},
)


class ToolUse(msgspec.Struct):
    """`input` is the next piece of a JSON text; proxies write the JSON object itself."""

    toolUseId: str | None = None
    name: str | None = None
    type: str | None = None
    input: Any = None


class ReasoningContent(msgspec.Struct):
    text: str | None = None
    signature: str | None = None
    redactedContent: str | None = None


class TextPiece(msgspec.Struct):
    text: str | None = None


class _Web(msgspec.Struct):
    url: str | None = None


class _Location(msgspec.Struct):
    web: _Web | None = None


class Citation(msgspec.Struct):
    title: str | None = None
    source: str | None = None
    sourceContent: list[TextPiece] | None = None
    location: _Location | None = None


class Block(msgspec.Struct):
    """The start of a content block, or a delta of one: one of its fields is set."""

    text: str | None = None
    toolUse: ToolUse | None = None
    reasoningContent: ReasoningContent | None = None
    citation: Citation | None = None
    toolResult: Any = None
    image: Any = None


class _Sequence(msgspec.Struct):
    stop_sequence: str | None = None


class _Extra(msgspec.Struct):
    delta: _Sequence | None = None
    stop_sequence: str | None = None


class Counts(msgspec.Struct):
    """Usage as Converse reports it; Nova uses other names for cached tokens in InvokeModel."""

    inputTokens: int | None = None
    outputTokens: int | None = None
    cacheReadInputTokens: int | None = None
    cacheWriteInputTokens: int | None = None
    cacheDetails: Any = None  # tokens written to the prompt cache, by how long they are kept
    cacheReadInputTokenCount: int | None = None  # Nova's names in InvokeModel
    cacheWriteInputTokenCount: int | None = None


class Payload(msgspec.Struct):
    """The JSON of any event, with the fields of all of them, so that each is decoded only once."""

    contentBlockIndex: int | None = None
    start: Block | None = None
    delta: Block | None = None
    stopReason: str | None = None
    additionalModelResponseFields: _Extra | None = None
    usage: Counts | None = None


def as_events(index: int, block: Any) -> list[tuple[str, dict[str, Any]]]:
    """Returns a content block of a whole answer as the events of a stream."""
    at = {"contentBlockIndex": index}
    match block:
        case {"toolUse": {"input": value, **tool}}:
            start = {"start": {"toolUse": tool}}
            delta: dict[str, Any] = {
                "toolUse": {"input": value if type(value) is str else encoded(value).decode()}
            }
        case {"reasoningContent": {"reasoningText": dict(thought)}}:
            start, delta = {"start": {}}, {"reasoningContent": thought}
        case dict():
            start, delta = {"start": {}}, block
        case _:
            return []
    return [
        ("contentBlockStart", at | start),
        ("contentBlockDelta", at | {"delta": delta}),
        ("contentBlockStop", at),
    ]


def blob_of(encoded_text: str | None) -> bytes:
    """Returns the bytes of base64 text; invalid base64 is returned as it is."""
    if not encoded_text:
        return b""
    try:
        return b64decode(encoded_text, validate=True)
    except (NotBase64, ValueError):
        return encoded_text.encode("utf-8", "replace")


def redacted_text(blob: bytes) -> str:
    """Returns the text that represents redacted content in a conversation.

    Claude's content is the `data` of a redacted_thinking block, a text that begins with "E" (base64 of a
    protobuf message), which Anthropic's own API accepts as well. Any other content (OpenAI's models encrypt
    theirs) is marked as Bedrock's.
    """
    text = blob.decode("ascii", "replace")
    return (
        text
        if text.startswith("E") and text.isascii() and text.isprintable()
        else BEDROCKS + b64encode(blob).decode()
    )


def usage_of(usage: Counts) -> Usage:
    """Returns the usage in the gateway's form, where input includes tokens read from and written to the
    cache."""
    read_from = usage.cacheReadInputTokens or usage.cacheReadInputTokenCount or 0
    written = usage.cacheWriteInputTokens or usage.cacheWriteInputTokenCount or 0
    parts = (usage.inputTokens or 0, read_from, written)
    return Usage(
        input=sum(parts) if min(parts) >= 0 else min(parts),  # so that `believed` sees a negative part
        output=usage.outputTokens or 0,
        cached_input=read_from,
        written_input=max(written, 0),
        written_input_1h=_written_for_an_hour(usage.cacheDetails, written) if written > 0 else 0,
    )


MAX_CACHE_DETAILS = 16
"""Most entries that are read. There is one for each cache lifetime, of which there are two."""


def _written_for_an_hour(details: Any, written: int) -> int:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CacheDetail.html"""
    for detail in details[:MAX_CACHE_DETAILS] if type(details) is list else ():
        match detail:
            case {"ttl": "1h", "inputTokens": int(count)} if 0 < count <= written:
                return int(count)
    return 0
