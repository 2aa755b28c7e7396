"""What decoders have in common: frames become events, and an error waits until the events before it are handed over."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from gateway.errors import UpstreamError
from gateway.events import StreamEvent

Frame = TypeVar("Frame")
FrameOut = TypeVar("FrameOut", covariant=True)


class Framing(Protocol[FrameOut]):
    """Bytes -> frames, as in gateway.wire."""

    def feed(self, data: bytes) -> Sequence[FrameOut]: ...


class FrameDecoder(Generic[Frame]):
    """A decoder (gateway.backends.Decoder) over a framing. The dialect is `_take`, which sets `_done`, and `_end`."""

    __slots__ = ("_done", "_error", "_framing")

    def __init__(self, framing: Framing[Frame]) -> None:
        self._framing = framing
        self._done = False
        self._error: UpstreamError | None = None

    def feed(self, data: bytes) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        self._raise()
        if self._done:
            return events
        try:
            for frame in self._framing.feed(data):
                self._take(frame, events)
                if self._done:
                    break
        except UpstreamError as error:
            self._error = error
            if not events:
                raise
        return events

    def close(self) -> list[StreamEvent]:
        self._raise()
        return [] if self._done else self._end()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _take(self, frame: Frame, events: list[StreamEvent]) -> None:
        """Add the frame's events. Raises UpstreamError for what the frame says, or UpstreamGarbled."""
        raise NotImplementedError

    def _end(self) -> list[StreamEvent]:
        """The body has ended before `_done`. Raises UpstreamTruncated unless the answer is complete all the same."""
        raise NotImplementedError
