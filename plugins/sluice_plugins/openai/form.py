"""Fast path for frames that differ only in their text: learns the bytes around it and decodes the text alone.

Nearly every chunk of an answer repeats the one before with another piece of text. Once a chunk has been
parsed, the bytes around its text are its form, and in a read with exactly these bytes only the texts need
decoding. Which string is the text is not guessed: the decoder must return the probe text that `learn` puts
there. Frames of any other form are parsed as usual, so both ways give the same events.

OpenAI pads its chunks with `obfuscation` of varying length: its value is ignored.
"""

import re
import secrets
from collections.abc import Callable
from itertools import islice

import msgspec

from sluice.model.events import StreamEvent, TextDelta, Verbatim

PROBE = secrets.token_hex(16)
"""A text that no model writes."""
MAX_CHUNK_BYTES = 4 << 10
"""Bytes of the longest chunk whose form is learnt: one with a few words has some hundreds."""
SLOTS = 4

_SLOT = re.compile(rb'"content": ?("(?:[^"\\]|\\.)*")', re.DOTALL)
_PADDING = re.compile(rb'("obfuscation": ?")[0-9A-Za-z]+"')
_BARE = rb'\1"'
_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode
_PROBED = msgspec.json.encode(PROBE)
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)


class Form:
    """A frame's form: `data: `, the bytes before the text's JSON string, the string, the bytes after it, an
    empty line."""

    __slots__ = ("_between", "_closing", "_from", "_left", "_opening", "_padded", "_verbatim")

    def __init__(self, before: bytes, behind: bytes, *, padded: bool, verbatim: bool) -> None:
        self._opening = b'data: %b"' % before
        self._closing = b'"%b\n\n' % behind
        self._between = self._closing + self._opening
        self._from = len(self._opening)
        self._left = len(self._closing)
        self._padded = padded
        self._verbatim = verbatim

    def events(self, data: bytes) -> list[StreamEvent] | None:
        """The events of `data` if it consists of complete frames of this form, else None."""
        bare = _PADDING.sub(_BARE, data) if self._padded else data
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
        """The events of several frames; `rest` lacks the opening of the first. Without a backslash no text
        contains a quote, so the frames can be split at their closing bytes."""
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


def learn(payload: bytes, text_of: Callable[[bytes], str], *, verbatim: bool) -> Form | None:
    """The form of a chunk (one line of JSON), or None. `text_of` returns the text of a payload, "" if it is
    no chunk or holds anything else. `verbatim`: the form's events include the frames."""
    if len(payload) > MAX_CHUNK_BYTES or b"\n" in payload:
        return None
    bare = _PADDING.sub(_BARE, payload)
    for slot in islice(_SLOT.finditer(bare), SLOTS):
        before, behind = bare[: slot.start(1)], bare[slot.end(1) :]
        if b"\\" not in before + behind and text_of(before + _PROBED + behind) == PROBE:
            return Form(before, behind, padded=bare != payload, verbatim=verbatim)
    return None
