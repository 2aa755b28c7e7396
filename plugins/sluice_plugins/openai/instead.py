"""Converts what upstreams send in place of a stream of chunks into chunks: whole answers, lists and lines of
chunks, errors."""

from typing import Any

from sluice.errors import UpstreamGarbled
from sluice.wire.jsontext import oversized, slow_numbers
from sluice.wire.lenient import encoded, is_object, parse, whole_characters
from sluice.wire.upstream_errors import tells_error
from sluice_plugins.openai.variants import unwrapped, value_with

WHITE = b"\xef\xbb\xbf \t\r\n"
"""Bytes that may precede a body: white space and a byte order mark."""


def as_error(payload: bytes) -> bytes:
    """Returns the payload of an `event: error`, wrapped in `{"error": …}` if it is not an error object
    itself."""
    try:
        value = parse(payload)
    except ValueError:
        value = payload.decode("utf-8", "replace")
    if isinstance(value, dict) and value.get("error"):
        return payload
    return encoded({"error": value or "The upstream sent an error event"})


def check_size(document: bytes | bytearray) -> None:
    """Raise UpstreamGarbled, without parsing, for a JSON document that is too deep or has too many values."""
    if bound := oversized(document):
        raise UpstreamGarbled(f"The upstream sent a document that {bound}")


def payloads_of(document: bytes | bytearray) -> list[bytes]:
    """Returns the payloads of a document that was sent in place of a stream: its lines or list entries if
    they may be chunks, else the document itself."""
    check_size(document)
    lines = [line for line in document.splitlines() if line.strip()]
    if len(lines) > 1 and all(is_object(bytes(line)) for line in lines):
        return [bytes(line) for line in lines]
    try:
        value = parse(document) if document.lstrip(WHITE)[:1] == b"[" else None
    except ValueError:
        value = None
    if type(value) is list and all(type(entry) is dict and "choices" in entry for entry in value):
        return [encoded(entry) for entry in value]
    return [_as_chunk(document), b"[DONE]"]


def whole_answer_as_chunk(payload: bytes) -> bytes:
    """Returns a frame that holds a whole chat completion as a chunk; b"" for any other frame."""
    match value_with(payload, b'"message"'):
        case {"choices": [{"message": dict()}, *_]}:
            return _as_chunk(payload)
        case _:
            return b""


def _as_chunk(document: bytes | bytearray) -> bytes:
    """Returns a whole chat completion as one chunk; an error as `{"error": …}`. Raises UpstreamGarbled for
    anything else."""
    check_size(document)
    if slow_numbers(document):
        raise UpstreamGarbled("The upstream sent a document whose numbers would take too long to read")
    try:
        value = parse(document)
    except ValueError:
        value = None
    if inner := unwrapped(document):
        return _as_chunk(inner)
    match value:
        case {"error": error} if error:
            pass
        case [{"error": error}, *_]:
            value = {"error": error}
        case {"choices": [_, *_] as choices}:
            value = {**value, "object": "chat.completion.chunk", "choices": _as_chunk_choices(choices)}
        case {"choices": dict(choice)}:
            value = {**value, "object": "chat.completion.chunk", "choices": _as_chunk_choices([choice])}
        case _ if tells_error(value):
            value = {"error": value}
        case _:
            raise UpstreamGarbled("The upstream answered with something other than a chat completion")
    return encoded(whole_characters(value))


def _as_chunk_choices(choices: list[Any]) -> list[Any]:
    """Returns the choices in the form of a chunk, numbered by their order if none has the index 0."""
    made = [_as_chunk_choice(choice) for choice in choices]
    if all(type(choice) is dict and choice.get("index") for choice in made):
        made = [{**choice, "index": position} for position, choice in enumerate(made)]
    return made


def _as_chunk_choice(choice: Any) -> Any:
    match choice:
        case {"message": {"tool_calls": [*calls]}}:
            numbered = [
                {**call, "index": index} for index, call in enumerate(calls) if isinstance(call, dict)
            ]
            return {**choice, "delta": {**choice["message"], "tool_calls": numbered}, "message": None}
        case {"message": dict(message)}:
            return {**choice, "delta": message, "message": None}
        case _:
            return choice
