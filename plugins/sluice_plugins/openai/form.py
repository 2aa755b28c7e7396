"""Learns the form of chunks that differ only in their text (`sluice_plugins.text_form`).

It does not guess which string is the text: `learn` puts a probe text there, which the decoder must return.
"""

import re
import secrets
from collections.abc import Callable
from itertools import islice

import msgspec

from sluice_plugins.text_form import BARE, PADDING, Form

PROBE = secrets.token_hex(16)
"""The probe: a text that no model writes."""
MAX_CHUNK_BYTES = 4 << 10
"""The longest chunk, in bytes, whose form is learnt; a chunk with a few words has some hundreds."""
SLOTS = 4

_SLOT = re.compile(rb'"content": ?("(?:[^"\\]|\\.)*")', re.DOTALL)
_PROBED = msgspec.json.encode(PROBE)


def learn(payload: bytes, text_of: Callable[[bytes], str], *, verbatim: bool) -> Form | None:
    """Returns the form of a chunk (one line of JSON), or None. `text_of` returns the text of a payload, "" if
    the payload is not a chunk or has anything else. `verbatim`: the form's events include the frames."""
    if len(payload) > MAX_CHUNK_BYTES or b"\n" in payload:
        return None
    bare = PADDING.sub(BARE, payload)
    for slot in islice(_SLOT.finditer(bare), SLOTS):
        before, behind = bare[: slot.start(1)], bare[slot.end(1) :]
        if b"\\" not in before + behind and text_of(before + _PROBED + behind) == PROBE:
            opening, closing = b'data: %b"' % before, b'"%b\n\n' % behind
            return Form(opening, closing, padded=bare != payload, verbatim=verbatim)
    return None
