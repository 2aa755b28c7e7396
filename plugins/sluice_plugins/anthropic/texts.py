"""Fast path for reads that have nothing but text deltas, as most do: the bytes around a text are matched, and
only the text is decoded. Any other frame is parsed as usual, and both ways give the same events."""

import re

import msgspec

from sluice.model.events import StreamEvent, TextDelta, Verbatim
from sluice_plugins.text_form import Form

_DELTA = re.compile(
    rb'event: content_block_delta\ndata: \{"type": ?"content_block_delta", ?"index": ?(\d{1,4}), ?'
    rb'"delta": ?\{"type": ?"text_delta", ?"text": ?("[^"\\]*(?:\\.[^"\\]*)*") *\} *\}\n\n'
)
_text = msgspec.json.Decoder(str).decode
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)


def texts_of(data: bytes, index: int, *, verbatim: bool) -> list[StreamEvent] | None:
    """Returns the texts of complete frames that continue the block with this index, and (`verbatim`) the
    frames; None if there is anything else in `data`."""
    events: list[StreamEvent] = []
    at, end = 0, len(data)
    try:
        while at < end:
            found = _DELTA.match(data, at)
            if found is None or int(found[1]) != index:
                return None
            if text := _text(found[2]):
                events.append(TextDelta(text))
            at = found.end()
    except _MALFORMED:
        return None
    if verbatim:
        events.append(Verbatim(data))
    return events


def form_of(data: bytes, *, verbatim: bool) -> Form | None:
    """Returns the form of the first frame if it is a text delta. `verbatim`: the form's events include
    frames."""
    found = _DELTA.match(data)
    if found is None:
        return None
    return Form(data[: found.start(2) + 1], data[found.end(2) - 1 : found.end()], verbatim=verbatim)
