"""The base class of stream decoders. It turns frames into events, and raises an upstream's error only after
the events that precede the error have been returned."""

import re
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from sluice.config.types import Bytes
from sluice.errors import UpstreamError, UpstreamErrorKind
from sluice.model.events import StreamEvent, Usage
from sluice.wire.lenient import is_object

Frame = TypeVar("Frame")
FrameOut = TypeVar("FrameOut", covariant=True)


MAX_EVENT = Bytes(16 << 20)
"""Default of `max_event`: bytes of one event or line of an upstream; images and files come in one."""

MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no JSON of the expected type."""

_ENDED = "The upstream ended its answer with an error"
_BROKEN_OFF = "The upstream broke off its answer"
FAILURES: dict[str, tuple[UpstreamErrorKind, str]] = {
    "error": ("stream_error", _ENDED),  # OpenRouter, vLLM, Mistral, Cohere
    "network_error": ("stream_error", _ENDED),  # Z.ai (GLM): its inference failed
    "insufficient_system_resource": ("overloaded", "The upstream ran out of resources"),  # DeepSeek
    "abort": ("stream_error", _BROKEN_OFF),  # vLLM, SGLang: the engine shut down or got an abort request
    "aborted": ("stream_error", _BROKEN_OFF),
    "cancelled": ("stream_error", _BROKEN_OFF),
    "timeout": ("stream_error", "The upstream took too long for its answer"),  # Cohere
    "malformed_function_call": (
        "stream_error",
        "The upstream made a tool call that it could not read itself",
    ),  # Gemini
    "malformed_tool_use": (
        "stream_error",
        "The upstream made a tool call that it could not read itself",
    ),  # Bedrock
    "malformed_model_output": (
        "stream_error",
        "The upstream's model wrote what it could not read itself",
    ),  # Bedrock
}
"""Finish reasons, in lower case, that mean a failure."""
_FAILED = re.compile(
    r"(?:.*[ _-])?(?P<overloaded>over_?loaded|(?:system|server)_busy|unavailable)\Z"
    r"|(?:.*[ _-])?(?:error|exception|fail(?:ed|ure)|abort(?:ed)?|cancell?ed|interrupted|time(?:d)?[ _-]?out|crash(?:ed)?)\Z"
    r"|(?:malformed|unexpected|too_many)_(?:function|tool)_?calls?\Z"  # Gemini
).match


def failure_of(native: str) -> UpstreamError | None:
    """Returns the error that a provider's finish reason stands for; None if the answer is complete.

    Reasons in FAILURES have their own error; any other that contains "error", "failed" or the like is a
    stream error."""
    word = native[:80].lower()
    found = FAILURES.get(word)
    if found is None and (failed := _FAILED(word)) is not None:
        found = FAILURES["insufficient_system_resource" if failed["overloaded"] else "error"]
    return UpstreamError(found[0], found[1], status=200) if found is not None else None


def arguments_of(raw: msgspec.Raw) -> str:
    """Returns the JSON text of tool call arguments that came in one piece; "" if there are none. Some servers
    write the arguments as a string, as OpenAI does, and PHP servers write an empty object as []."""
    text = bytes(raw).decode("utf-8", "replace").strip()
    if text.startswith('"'):
        try:
            text = msgspec.json.decode(text, type=str).strip()
        except msgspec.DecodeError:  # half a surrogate pair, which `msgspec.Raw` holds
            return ""
    return text if text[:1] in ("{", "[") and text.strip("{}[] \t\r\n") else ""


def is_last(data: bytes) -> bool:
    """Returns whether `data`, the end of a body without the empty line that ends an event, is nevertheless a
    complete event: a whole JSON object, or [DONE]."""
    return is_object(data) or data.strip() == b"[DONE]"


class Framing(Protocol[FrameOut]):
    """Splits bytes into frames, as the classes of `sluice.wire` do."""

    def feed(self, data: bytes) -> Sequence[FrameOut]: ...


class FrameDecoder(Generic[Frame]):
    """A base class for decoders (`backends.protocol.Decoder`). A dialect implements `_take`, which sets
    `_done` at the end of the answer, and `_end`."""

    __slots__ = ("_done", "_error", "_framing", "_ids")

    skipped = 0
    skipped_fields = 0
    finish_missing = 0

    @property
    def reported(self) -> Usage | None:
        return None

    def __init__(self, framing: Framing[Frame]) -> None:
        self._framing = framing
        self._done = False
        self._error: UpstreamError | None = None
        self._ids: set[str] = set()  # ids of tool calls, which must stay unique

    def distinguish(self, ids: frozenset[str]) -> None:
        self._ids |= ids

    def feed(self, data: bytes) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        self._raise()
        if self._done:
            return events
        try:
            self._walk(data, events)
        except UpstreamError as error:
            self._error = error
            if not events:
                raise
        return events

    def _walk(self, data: bytes, events: list[StreamEvent]) -> None:
        """Append the events of one read. Raises UpstreamError."""
        for frame in self._framing.feed(data):
            self._take(frame, events)
            if self._done:
                break

    def close(self) -> list[StreamEvent]:
        self._raise()
        events: list[StreamEvent] = []
        if self._done:
            return events
        try:
            self._end(events)
        except UpstreamError as error:
            self._error = error
            if not events:
                raise
        self._done = True
        return events

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _take(self, frame: Frame, events: list[StreamEvent]) -> None:
        """Append the frame's events. Raises UpstreamError if the frame reports one, UpstreamGarbled if it is
        malformed."""
        raise NotImplementedError

    def _end(self, events: list[StreamEvent]) -> None:
        """Append what is still pending when the body ends, if `_done` is not set. Raises UpstreamTruncated
        unless the answer is complete."""
        raise NotImplementedError
