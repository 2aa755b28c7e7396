"""Frames that differ from one another in nothing but their text, known by their form.

Nearly every chunk of an answer is the one before it with another piece of text. Once one has been parsed, the bytes
around its text are known, and of a read that has them in their places only the texts are left to be decoded. That a
form's text is the chunk's is not guessed: what the decoder makes of the form with another text in it decides (`learn`).
What is not exactly of the form is not known here, and is parsed as ever; so both ways give the same.

OpenAI pads its chunks with `obfuscation`, of any length: its value is left out of account.
"""

import re
import secrets
from collections.abc import Callable
from itertools import islice

import msgspec

from sluice.model.events import StreamEvent, TextDelta, Verbatim

PROBE = secrets.token_hex(16)
"""A text that no model says."""
LONGEST = 4 << 10
"""Bytes of a chunk that is worth knowing: one of a few words has some hundreds."""
SLOTS = 4

_SLOT = re.compile(rb'"content": ?("(?:[^"\\]|\\.)*")', re.DOTALL)
_PADDING = re.compile(rb'("obfuscation": ?")[0-9A-Za-z]+"')
_BARE = rb'\1"'
_text = msgspec.json.Decoder(str).decode
_texts = msgspec.json.Decoder(list[str]).decode
_PROBED = msgspec.json.encode(PROBE)
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)


class Form:
    """A frame is `data: `, what stands before the text's JSON string, the string, what stands behind it, an empty line."""

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
        """The events of `data`, where it is whole frames of this form and nothing else; None where it is not."""
        plain = _PADDING.sub(_BARE, data) if self._padded else data
        start = self._from
        end = plain.find(self._closing, start)
        if end < 0 or not plain.startswith(self._opening):
            return None
        try:
            if end + self._left != len(plain):
                return self._many(plain[start:], data)
            text = _text(plain[start - 1 : end + 1])
        except _MALFORMED:
            return None
        if self._verbatim:
            return [TextDelta(text), Verbatim(data)] if text else [Verbatim(data)]
        return [TextDelta(text)] if text else []

    def _many(self, rest: bytes, data: bytes) -> list[StreamEvent] | None:
        """`rest`: the frames but for the first one's opening. Without a backslash no text has a quote in it, so that
        where one ends is plain."""
        if not rest.endswith(self._closing) or b"\\" in rest:
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
    """The form of a chunk (one line of JSON); None where it has none. `text_of` says what text a payload has, "" where
    it says anything but text, or is no chunk. `verbatim`: its events are to have the frames with them."""
    if len(payload) > LONGEST or b"\n" in payload:
        return None
    plain = _PADDING.sub(_BARE, payload)
    for slot in islice(_SLOT.finditer(plain), SLOTS):
        before, behind = plain[: slot.start(1)], plain[slot.end(1) :]
        if b"\\" not in before + behind and text_of(before + _PROBED + behind) == PROBE:
            return Form(before, behind, padded=plain != payload, verbatim=verbatim)
    return None
