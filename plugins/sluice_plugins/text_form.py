"""Fast path for frames that differ from an earlier frame in their text only: where a read has exactly the
same bytes around its texts, only the texts are decoded.

Nearly every frame of an answer is equal to the one before but for its piece of text. From a frame that it has
parsed, a decoder learns the bytes before and after the text (`Form`). Frames of any other form are parsed as
usual, and both ways give the same events.
"""

import re

import msgspec

from sluice.model.events import StreamEvent, TextDelta, Verbatim

PADDING = re.compile(rb'("obfuscation": ?")[0-9A-Za-z]+"')
"""OpenAI pads its chunks with `obfuscation` of varying length: its value is ignored."""
BARE = rb'\1"'
_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)


class Form:
    """The form of a frame with one text. `opening`: the bytes up to and including the opening quote of the
    text; `closing`: those from its closing quote to the empty line. `padded`: frames have OpenAI's padding,
    which `opening` and `closing` leave out. `verbatim`: the events include the frames."""

    __slots__ = ("_between", "_closing", "_from", "_left", "_opening", "_padded", "_verbatim")

    def __init__(self, opening: bytes, closing: bytes, *, padded: bool = False, verbatim: bool) -> None:
        self._opening = opening
        self._closing = closing
        self._between = self._closing + self._opening
        self._from = len(self._opening)
        self._left = len(self._closing)
        self._padded = padded
        self._verbatim = verbatim

    def events(self, data: bytes) -> list[StreamEvent] | None:
        """Returns the events of `data` if it consists of complete frames of this form, else None."""
        bare = PADDING.sub(BARE, data) if self._padded else data
        start = self._from
        end = bare.find(self._closing, start)
        if end < 0 or not bare.startswith(self._opening):
            return None
        try:
            if end + self._left != len(bare):
                return self._many(bare[start:], data)
            text = _text(bare[start - 1 : end + 1])
        except _MALFORMED:
            return None
        if self._verbatim:
            return [TextDelta(text), Verbatim(data)] if text else [Verbatim(data)]
        return [TextDelta(text)] if text else []

    def _many(self, rest: bytes, data: bytes) -> list[StreamEvent] | None:
        """Returns the events of several frames. `rest` lacks the opening of the first frame. A text without a
        backslash contains no quote, so the frames can be split at their closing bytes."""
        if not rest.endswith(self._closing) or rest.find(b"\\") >= 0:
            return None
        slots = rest[: -self._left].split(self._between)
        texts = _texts(b'["%b"]' % b'","'.join(slots))
        if len(texts) != len(slots):
            return None
        events: list[StreamEvent] = [TextDelta(text) for text in texts if text]
        if self._verbatim:
            events.append(Verbatim(data))
        return events
