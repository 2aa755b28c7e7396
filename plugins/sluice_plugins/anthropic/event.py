"""The types of an event of the Messages API's streams: only the fields that are used.

Standard: https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from typing import Any

import msgspec
from msgspec import Raw

from sluice.model.events import Usage
from sluice.wire.lenient import encoded, parse

EVENTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "error",
    }
)
OF_BLOCKS = frozenset({"content_block_start", "content_block_delta", "content_block_stop"})
BEGINNINGS = frozenset({"content_block_start", "content_block_delta", "message_delta"})
"""Events that may begin a stream without a message_start."""
TYPES = {"text": "text_delta", "thinking": "thinking_delta", "partial_json": "input_json_delta"}
"""Types for deltas without `type`, by the field that the delta has."""


class OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class ReportedUsage(msgspec.Struct):
    """Usage as the API reports it: counts so far, of which a missing one has not changed."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation: Any = None
    output_tokens_details: OutputDetails | None = None
    iterations: Any = None


class Iteration(msgspec.Struct):
    """The usage of one step of an answer; `type` names the kind of step."""

    type: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_creation: Any = None


class Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    content: Any = None
    usage: ReportedUsage | None = None


class Block(msgspec.Struct):
    """A content block at its start, with the fields of all types of blocks."""

    type: str = ""
    id: str | None = None
    name: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    to: Any = None
    input: Raw = Raw(b"")


class Delta(msgspec.Struct):
    """The next piece of a content block, or the stop reason of the message."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class StreamedEvent(msgspec.Struct):
    """Any event of the stream. It is one type, not a union, so that an unknown event type is not an error."""

    type: str = ""
    index: int | None = None
    delta: Delta | None = None
    content_block: Block | None = None
    message: Message | None = None
    usage: ReportedUsage | None = None
    error: Any = None


decode = msgspec.json.Decoder(StreamedEvent).decode


def with_text_input(event: Any) -> Any:
    """Returns the event with `partial_json` as text, for servers that send the JSON value itself."""
    match event:
        case {"delta": {"partial_json": dict() | list() as given} as delta}:
            return {**event, "delta": {**delta, "partial_json": encoded(given).decode()}}
        case _:
            return event


def values_of(data: bytes) -> dict[str, Any]:
    """Returns the parsed event if it is a JSON object, else {}."""
    try:
        value = parse(data)
    except ValueError:
        return {}
    return value if type(value) is dict else {}


def is_message(data: bytes) -> bool:
    """Returns whether the data is a whole message, the answer to a request without `stream`."""
    return b'"message"' in data and values_of(data).get("type") == "message"


def continuing_model(named: Any) -> str:
    """Returns the model that a fallback block names: it continues the answer. "" if there is none."""
    match named:
        case {"model": str(model)}:
            return model
        case _:
            return ""


BESIDE = ("compaction", "advisor_message")
"""Types of steps whose tokens are billed, but not included in the counts of the whole answer."""
MAX_ITERATIONS = 1000


def usage_of(usage: ReportedUsage) -> Usage:
    """Returns the usage in the gateway's form, where input includes cached tokens: Anthropic counts tokens
    read from and written to the prompt cache apart from `input_tokens`. Billed steps beside the answer
    (compaction, advisor) are added."""
    found = _usage_of(usage)
    if type(usage.iterations) is list:
        for entry in usage.iterations[:MAX_ITERATIONS]:
            if type(entry) is dict and entry.get("type") in BESIDE:
                found = found.plus(_of_iteration(entry))
    return found


def _of_iteration(entry: Any) -> Usage:
    """Returns the usage of a step; zero if the step is malformed."""
    try:
        step = msgspec.convert(entry, Iteration)
    except msgspec.ValidationError:
        return Usage()
    cached, written = step.cache_read_input_tokens, step.cache_creation_input_tokens
    if min(step.input_tokens, step.output_tokens, cached, written) < 0:
        return Usage()
    whole = step.input_tokens + cached + written
    for_an_hour = written_for_an_hour(step.cache_creation, written)
    return Usage(whole, step.output_tokens, cached, written_input=written, written_input_1h=for_an_hour)


def _usage_of(usage: ReportedUsage) -> Usage:
    """Returns the usage of the answer itself, without billed steps beside it."""
    parts = (
        usage.input_tokens or 0,
        usage.cache_read_input_tokens or 0,
        usage.cache_creation_input_tokens or 0,
    )
    read, cached, written = parts
    details = usage.output_tokens_details
    least = min(parts)
    return Usage(
        read + cached + written if least >= 0 else least,  # `believed` must see a negative part
        usage.output_tokens or 0,
        cached,
        0 if details is None else details.thinking_tokens or 0,
        0,  # total
        written if written > 0 else 0,
        written_for_an_hour(usage.cache_creation, written) if written > 0 else 0,
    )


def written_for_an_hour(details: Any, written: int) -> int:
    """Returns how many of the tokens written to the prompt cache are kept for an hour:
    `ephemeral_1h_input_tokens` of `cache_creation`; 0 if there is no such count, or if it is larger than
    `written`."""
    match details:
        case {"ephemeral_1h_input_tokens": int(count)} if 0 < count <= written:
            return int(count)
        case _:
            return 0
