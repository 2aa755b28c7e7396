"""One attempt's answer: an upstream's bytes in, the client's bytes out. No coroutine, no socket, no clock of
its own.

`feed` runs decoder, observer and encoder in a row, so it can be called from a task or straight from a
socket's callback, and tested without either. Its phases:

    waiting     nothing has gone to the client. Events are held back until the first content event (text, reasoning, tool
                call; not a bare role); an attempt that fails now leaves no trace, and another may begin.
    committed   the first content event went to the client. From here on the answer ends with its `Finished`, or is
                continued by another attempt, or ends in exactly one in-band error.
    recovering  this attempt continues an answer that was cut, of which the client holds a text. Either the model was given
                that as a prefill, so that all its text is new; or it answers afresh, and nothing is passed on until it has
                reproduced that text to the letter. Where the cut came before any text, its text is all new, but its
                reasoning is not passed on: the client holds another's. Where it diverges, the client has to start over if
                its dialect can (`Encoder.restart`), and otherwise the attempt has failed. No text reaches the client twice.

A whole answer (not streamed) commits only when it is complete, so any failure before its end leaves no trace
either. Its encoder is the attempt's own and gets the events as they come: they need not be kept, nor encoded
all at once.

What is held back is bounded in bytes of the upstream's body, whatever they hold: frames before the first
content by `max_before_content`, a whole answer by `max_answer`.

The observer keeps what the rest of the gateway wants to know: when content came, how much, the usage, the
finish, and the text. Stages (`sluice.proxy.stages`) are part of the decoder.
"""

from collections.abc import Callable

import msgspec

from sluice.backends.protocol import Decoder
from sluice.errors import (
    DecoderCrashed,
    GatewayError,
    StageFault,
    UpstreamError,
    UpstreamGarbled,
    UpstreamTruncated,
)
from sluice.frontends import Encoder
from sluice.model.events import (
    Finished,
    ReasoningBlock,
    ReasoningDelta,
    RefusalDelta,
    Started,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    Verbatim,
    Working,
    believed,
)
from sluice.proxy.estimate import estimated_output

MAX_BEFORE_CONTENT = 1 << 20
"""Bytes of an upstream's body before the first content, by default."""
MAX_WHOLE_BYTES = 64 << 20
"""Bytes of an upstream's body for a whole answer, by default."""
MAX_CHARACTERS = 32 << 20
"""Characters of text, reasoning and arguments in one answer, so that an upstream that never ends cannot fill
the memory."""
MAX_PIECES_APART = 256
"""Maximum pieces of text that are kept apart; beyond it they are joined."""


class Relay(msgspec.Struct, eq=False):
    """Decodes, observes and encodes the answer of one attempt. All times are in seconds of the caller's clock.

    `accept_empty`: a finished answer without any content is an answer. `alive_at`: the last sign of life, which
    deadlines count from: content, reasoning, or a mere notice that the model works. `resumes`: the client holds
    content of a cut attempt.
    """

    decoder: Decoder
    encoder: Encoder
    whole: bool
    accept_empty: bool
    max_before_content: int = MAX_BEFORE_CONTENT
    max_answer: int = MAX_WHOLE_BYTES
    alive_at: float = 0.0
    resumes: bool = False
    committed: bool = False
    finished: Finished | None = None
    usage: Usage | None = None  # as the provider reported it for this attempt
    first_content_at: float = 0.0
    gap: float = 0.0
    characters: int = 0
    priced: Callable[[Finished], Finished] | None = None  # adds the answer's cost
    model: str = ""
    only_text: bool = True
    recovered: bool = False  # this attempt has continued another's answer
    usage_refused: bool = False  # the provider reported an implausible usage
    uncommitted: int = 0  # bytes of the body that are held back so far
    thoughts: list[ReasoningBlock] = []  # blocks of reasoning that their provider expects back
    _kept: str = ""  # the text that the client holds of a cut answer
    _reproducing: bool = False  # the model writes that text once more, which is not passed on
    _held: list[StreamEvent] = []  # events that are held back
    _text: list[str] = []
    _folded: int = 0  # leading items of `_text` that are already joined
    _fold_at: int = MAX_PIECES_APART  # the length of `_text` at which to join again
    _counted: int = 0  # pieces that are no longer apart in `_text`

    __repr__ = object.__repr__  # it holds an answer

    def resume(self, kept: str, *, prefilled: bool) -> None:
        """Prepares for continuing a cut answer of which the client holds the text `kept`; `prefilled`: the
        model was given it.
        """
        self._kept = kept
        self._reproducing = bool(kept) and not prefilled
        self.resumes = True

    @property
    def text(self) -> str:
        """The answer's text that the client has, untrimmed, including that of earlier attempts."""
        text = "".join(self._text)
        return self._kept if self._reproducing else self._kept + text

    @property
    def pieces(self) -> int:
        """The number of pieces of content: most providers send one token at a time."""
        return self._counted + len(self._text) - self._folded

    @property
    def estimated_tokens(self) -> int:
        """The answer's estimated number of tokens."""
        return estimated_output("".join(self._text), self.characters, self.pieces)

    def feed(self, data: bytes, now: float) -> bytes:
        """Returns the client's bytes for one read of the upstream; b"": nothing yet.

        Raises UpstreamError if the stream is broken; everything before the break has been returned by then.
        """
        committed = self.committed
        if not committed and (self.whole or self.uncommitted):
            self._receive(data)
        try:
            events = self.decoder.feed(data)
        except (GatewayError, StageFault):
            raise
        except Exception as crash:
            raise DecoderCrashed(crash) from None
        if committed:
            return self._take(events, now)
        if not events and self.whole:  # a document, most likely, which may be one value up to its end
            return b""
        out = self._take(events, now)
        if not self.committed:
            self._check_size(data, events)
        return out

    def _receive(self, data: bytes) -> None:
        self.uncommitted += len(data)
        if self.uncommitted > self.max_answer:
            raise UpstreamGarbled(f"The upstream's answer has more than {self.max_answer} bytes")

    def _check_size(self, data: bytes, events: list[StreamEvent]) -> None:
        """Checks the size of what is held back. Beyond `max_before_content` without content, a long frame or
        document may still end.
        """
        if not self.uncommitted:  # a stream's first read, which mostly has content
            self._receive(data)
        if self.uncommitted <= self.max_before_content or self.first_content_at or self.finished is not None:
            return
        if events or data.endswith(b"\n"):
            raise UpstreamGarbled(
                f"The upstream sent more than {self.max_before_content} bytes before any content"
            )

    def close(self, now: float) -> bytes:
        """Handles the end of the upstream's body.

        If the answer was cut, returns what its last frame held, where the client has a part of the answer; the
        next call raises UpstreamTruncated, or the error that the last frame reported. Where the client has
        nothing, raises at once, so that another target can answer.
        """
        if self.finished is not None:
            return b""
        events = self._closed()
        if self.committed or any([type(event) is Finished for event in events]):
            out = self._take(events, now)
            if out or self.finished is not None:
                return out
        if events:
            self._closed()  # raises the error that the last frame reported, if it did
        raise UpstreamTruncated

    def _closed(self) -> list[StreamEvent]:
        try:
            return self.decoder.close()
        except (GatewayError, StageFault):
            raise
        except Exception as crash:
            raise DecoderCrashed(crash) from None

    def _take(self, events: list[StreamEvent], now: float) -> bytes:
        """Observes the events and returns the client's bytes. Replaces the answer's end in `events` by the one
        with the accepted usage. Raises UpstreamGarbled beyond MAX_CHARACTERS."""
        if not events or self.finished is not None:
            return b""
        content = False
        texts = self._text
        for event in events:
            kind = type(event)
            if kind is TextDelta:
                text: str = event.text  # type: ignore[union-attr]
                texts.append(text)
                self.characters += len(text)
                content = True
            elif kind is Verbatim:
                break  # the last one
            elif kind is Finished:
                finished = self._finish(event)  # type: ignore[arg-type]
                if finished is not event:
                    events[events.index(event)] = finished
                self.finished = finished
            elif kind is Started:
                self.model = event.model  # type: ignore[union-attr]
            elif kind is Working:  # a sign of life, but no content: another target may still answer
                self.alive_at = now
                self.model = event.model or self.model  # type: ignore[union-attr]
                if not event.model:  # type: ignore[union-attr]
                    events = [
                        other for other in events if other is not event
                    ]  # nothing to pass on, nor to hold back
            elif kind is ReasoningBlock:
                self.alive_at = now
                self.thoughts.append(event)  # type: ignore[arg-type]
            else:
                self.characters += self._observed(event)
                self._counted += 1
                content = True
        if content:
            self.gap = now - self.alive_at
            self.alive_at = now
            if not self.first_content_at:
                self.first_content_at = now
            if self.characters > MAX_CHARACTERS:
                raise UpstreamGarbled("The upstream's answer is too long")
            if len(texts) > self._fold_at:
                self._fold()
        else:
            self.gap = 0.0
        if self.committed:
            return self.encoder.encode(events)
        return self._commit(events)

    def used(self, prompt: int) -> Usage:
        """Returns the attempt's usage as its provider reported it, else an estimate; `prompt`: the request's
        estimated tokens.

        For an answer that did not reach its end a provider may have reported the input, and the output so
        far.
        """
        if self.usage is not None:
            return self.usage
        so_far = self.decoder.reported if self.finished is None else None
        so_far = None if so_far is None else believed(so_far)
        if so_far is None:
            return Usage(prompt, self.estimated_tokens)
        output = max(so_far.output, self.estimated_tokens)
        return msgspec.structs.replace(so_far, input=so_far.input or prompt, output=output, total=0)

    def _finish(self, finished: Finished) -> Finished:
        """Returns the answer's end with the accepted usage and the cost."""
        reported = finished.usage
        if reported is not None and (usage := believed(reported)) is not reported:
            self.usage_refused = usage is None
            finished = msgspec.structs.replace(finished, usage=usage)
        self.usage = finished.usage
        return finished if self.priced is None else self.priced(finished)

    def _commit(self, events: list[StreamEvent]) -> bytes:
        """Holds the events back, or forwards the first ones."""
        if self.whole:
            if self.finished is not None:
                self._check_empty()
                self.committed = True
            return self.encoder.encode(events)
        if self._held:
            events = self._held + events
        if self.finished is None and not self.first_content_at:
            self._held = events
            return b""
        self._check_empty()
        if self.resumes:
            self._held = events
            return self._continue(events)
        self.committed = True
        if self._held:
            self._held = []
        return self.encoder.encode(events)

    def _fold(self) -> None:
        """Joins pieces of text: each token as an object of its own takes ten times the memory of its text."""
        self._counted += len(self._text) - self._folded
        self._text[self._folded :] = ["".join(self._text[self._folded :])]
        self._folded += 1
        self._fold_at += 1

    def _observed(self, event: StreamEvent) -> int:
        """Observes content that is not text of the answer. Returns its number of characters."""
        match event:
            case ReasoningDelta(text=text):
                return len(text)
            case RefusalDelta(text=text):
                self.only_text = False  # another attempt could not go on with it
                self._text.append(text)
                self._counted -= 1  # it is counted there
                return len(text)
            case ToolCallDelta(arguments=arguments):
                return len(arguments)
            case ToolCallStarted(name=name):
                self.only_text = False
                return len(name)
            case _:
                return 0

    def _check_empty(self) -> None:
        finished = self.finished
        if finished is None or self.first_content_at or self.accept_empty or self._kept:
            return
        if finished.reason == "stop":
            self.finished = None  # the attempt is not complete: another one may follow
            raise UpstreamError("truncated", "The upstream's answer was empty")

    def _continue(self, events: list[StreamEvent]) -> bytes:
        """Returns the new text of an attempt that continues a cut answer; b"" while there is none yet."""
        restart = b""
        known = self._kept if self._reproducing else _trailing_space(self._kept)
        if known:
            text = "".join(self._text)
            complete = self.finished is not None or not self.only_text
            if not complete and len(text) <= len(known) and known.startswith(text):
                return b""
            if not text.startswith(known):
                restart = self._diverged()
                known = ""
            self._kept = "" if restart else self._kept
            fresh = text[len(known) :]
            self._counted = self.pieces - 1
            self._text = [fresh]
            self._folded = 0
            self._fold_at = MAX_PIECES_APART
            events = [*([TextDelta(fresh)] if fresh else ()), *(e for e in events if _follows_text(e))]
        elif self._kept:
            events = [event for event in events if not isinstance(event, Started | ReasoningBlock)]
        else:
            events = self._held = [
                event for event in events if isinstance(event, TextDelta) or _follows_text(event)
            ]
            if not events:
                return b""
        self._reproducing = False
        self.encoder.resume(Started(model=self.model))
        self.committed = True
        self.recovered = True
        self._held = []
        return restart + self.encoder.encode(events)

    def _diverged(self) -> bytes:
        """Handles a fresh answer that differs from the kept text: the client starts over if it can. After a
        prefill nothing can differ.
        """
        if not self._reproducing:
            return b""
        restart = self.encoder.restart()
        if not restart:
            self.finished = None  # the attempt is not complete: another one may follow
            raise UpstreamError("diverged", "Another answer than the one that was cut")
        return restart


def _trailing_space(text: str) -> str:
    """The trailing white space that a prefill must omit (`sluice.model.chat.continued`); the model may repeat
    it."""
    return text[len(text.rstrip()) :]


def _follows_text(event: StreamEvent) -> bool:
    return isinstance(event, ToolCallStarted | ToolCallDelta | Finished)
