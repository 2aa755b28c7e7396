"""Stages look at the events of an answer on their way from the decoder to the encoder, and may change them.

They are plugins by entry point `sluice.stages`: a frozen msgspec Struct whose fields are its options in the
configuration, with a method `stage()`. An alias names those that it wants. Its targets' answers then pass
them whatever the client's dialect is, streamed or whole: no frames are passed on as they came, and no answer
is asked for in one piece. What only such frames carry (several choices, log probabilities, a vendor's own
fields) is not available with a stage. An alias without stages pays nothing for them.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from sluice.backends.protocol import Decoder, WrappedDecoder
from sluice.errors import GatewayError, StageFault
from sluice.model.events import Finished, StreamEvent, Working


class Stage(Protocol):
    """Looks at one attempt's answer. Pure: no I/O, no clock. It may hold back little, and only for a moment:
    what is held back looks like silence to the client.

    It may end the answer by raising a GatewayError: an UpstreamError is taken as the target's failure, so
    that another target may be asked; any other ends the call. Of an answer that is cut, what is held back is
    not delivered.
    """

    def feed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """The events of one read, never an empty list nor `Finished` -> those that go on, in their order."""
        ...

    def close(self) -> list[StreamEvent]:
        """Handles the end of the answer: returns the events that were held back. They precede the answer's
        `Finished`.
        """
        ...


class StageKind(Protocol):
    """A stage with its options, as an entry point of the group provides it."""

    def stage(self) -> Stage:
        """Makes the stage of one attempt."""
        ...


class StagedDecoder(WrappedDecoder[Decoder]):
    """A decoder whose events pass stages, one after another."""

    def __init__(self, decoder: Decoder, stages: Sequence[Stage]) -> None:
        super().__init__(decoder)
        self._stages = stages

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self._staged(self._decoder.feed(data))

    def close(self) -> list[StreamEvent]:
        return self._staged(self._decoder.close())

    def _staged(self, events: list[StreamEvent]) -> list[StreamEvent]:
        if not events:
            return events
        try:
            return self._passed(events)
        except GatewayError:
            raise
        except Exception as fault:
            raise StageFault from fault

    def _passed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        end = next((at for at, event in enumerate(events) if type(event) is Finished), len(events))
        found = self._fed(events[:end])
        if end < len(events):
            return found + self._released() + events[end:]
        return found or [
            Working()
        ]  # all is held back: a sign of life, so that it is not taken for silence of the upstream

    def _fed(self, events: list[StreamEvent]) -> list[StreamEvent]:
        for stage in self._stages:
            if events:
                events = stage.feed(events)
        return events

    def _released(self) -> list[StreamEvent]:
        """Collects the events that stages release at the end, fed through the stages behind them."""
        events: list[StreamEvent] = []
        for stage in self._stages:
            if events:
                events = stage.feed(events)
            events = events + stage.close()
        return events


def staged(decoder: Callable[..., Decoder], kinds: Sequence[StageKind]) -> Callable[..., Decoder]:
    """Returns `Backend.decoder` followed by these stages."""

    def make(*, verbatim: bool = False) -> Decoder:
        return StagedDecoder(decoder(), [kind.stage() for kind in kinds])

    return make
