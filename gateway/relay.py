"""One answer's state machine: an upstream's bytes in, the client's bytes out. No coroutine, no socket, no clock of its own.

`feed` is decoder, observer and encoder in a row, so it can be driven by a task or straight from a socket's callback,
and tested as what it is. It knows two phases:

    waiting    nothing that names the model has been said. Events are held back; an attempt that fails now leaves
               no trace, and `attach` starts the next one with a fresh decoder and encoder.
    committed  the first content event (text, reasoning, tool call; not a bare role) went to the client. From here on
               the answer ends with its `Finished`, or in exactly one in-band error.

A whole answer (not streamed) commits only when it is complete, so any failure before its end leaves no trace either.

The observer keeps what the rest of the gateway wants to know: when content came, how much, the usage, the finish,
and the text where a conversation is kept.
"""

from gateway.backends import Decoder
from gateway.errors import GatewayError, UpstreamError, UpstreamGarbled, UpstreamTruncated
from gateway.events import Finished, ReasoningDelta, Started, StreamEvent, TextDelta, ToolCallDelta, ToolCallStarted, Verbatim
from gateway.frontends import Encoder

MAX_ANSWER = 32 << 20
"""Characters of one answer; what is longer is cut (an upstream that never ends must not fill the memory)."""


class Relay:
    __slots__ = (
        "_accept_empty", "_decoder", "_encoder", "_held", "_text", "_whole", "characters", "committed", "content_at",
        "failed", "finished", "first_content_at", "gap", "model",
    )  # fmt: skip

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self.committed = False
        self.failed = False
        self.finished: Finished | None = None
        self.characters = 0
        self.first_content_at = self.content_at = self.gap = 0.0
        self.model = ""
        self._text: list[str] = []
        self._held: list[StreamEvent] = []

    def attach(self, decoder: Decoder, encoder: Encoder, *, accept_empty: bool, now: float) -> None:
        """Begin with one attempt's response; `accept_empty`: a finished answer without any content is an answer.

        `now` and all times are in seconds of the caller's clock.
        """
        assert not self.committed, "a committed answer cannot begin again"
        self._decoder = decoder
        self._encoder = encoder
        self._accept_empty = accept_empty
        self._held = []
        self._text = []
        self.characters = 0
        self.model = ""
        self.first_content_at = 0.0
        self.content_at = now

    @property
    def text(self) -> str:
        """The answer's text so far, untrimmed."""
        return "".join(self._text)

    def feed(self, data: bytes, now: float) -> bytes:
        """The client's bytes for this read of the upstream's; b"" = nothing to say yet.

        Raises UpstreamError where the stream is broken; what stood before the break has been returned by then.
        """
        return self._take(self._decoder.feed(data), now)

    def close(self, now: float) -> bytes:
        """The upstream's body has ended. Raises UpstreamTruncated where the answer is not complete."""
        if self.finished is not None:
            return b""
        out = self._take(self._decoder.close(), now)
        if self.finished is None:
            raise UpstreamTruncated
        return out

    def fail(self, error: GatewayError) -> bytes:
        """The in-band error that ends the answer; b"" where it has ended already."""
        if self.failed or self.finished is not None:
            return b""
        self.failed = True
        return self._encoder.fail(error)

    def _take(self, events: list[StreamEvent], now: float) -> bytes:
        if not events or self.finished is not None:
            return b""
        self._observe(events, now)
        if not self.committed:
            events = self._held = self._held + events if self._held else events
            if self.finished is None and (self._whole or not self.first_content_at):
                return b""
            self._check_empty()
            self.committed = True
            self._held = []
        return self._encoder.encode(events)

    def _observe(self, events: list[StreamEvent], now: float) -> None:
        characters = self.characters
        content = False
        for event in events:
            kind = type(event)
            if kind is TextDelta:
                self._text.append(event.text)  # type: ignore[union-attr]
                characters += len(event.text)  # type: ignore[union-attr]
                content = True
            elif kind is Verbatim:
                pass
            elif kind is Finished:
                self.finished = event  # type: ignore[assignment]
            elif kind is Started:
                self.model = event.model  # type: ignore[union-attr]
            else:
                characters += _size(event)
                content = True
        self.characters = characters
        if content:
            self.gap = now - self.content_at
            self.content_at = now
            self.first_content_at = self.first_content_at or now
            if characters > MAX_ANSWER:
                raise UpstreamGarbled("The upstream's answer is too long")

    def _check_empty(self) -> None:
        finished = self.finished
        if finished is None or self.first_content_at or self._accept_empty:
            return
        if finished.reason == "stop":
            self.finished = None
            raise UpstreamError("truncated", "The upstream's answer was empty")


def _size(event: StreamEvent) -> int:
    match event:
        case ReasoningDelta(text=text):
            return len(text)
        case ToolCallDelta(arguments=arguments):
            return len(arguments)
        case ToolCallStarted(name=name):
            return len(name)
        case _:
            return 0
