"""Fast path for reads of nothing but text deltas, as most are: what stands around a text is matched, the text
alone decoded. Other frames, and other ways to write these, are parsed as usual: both ways give the same
events."""

import re

import msgspec

from sluice.model.events import StreamEvent, TextDelta

_DELTA = re.compile(
    rb'event: content_block_delta\ndata: \{"type": ?"content_block_delta", ?"index": ?(\d{1,4}), ?'
    rb'"delta": ?\{"type": ?"text_delta", ?"text": ?("[^"\\]*(?:\\.[^"\\]*)*") *\} *\}\n\n'
)
_text = msgspec.json.Decoder(str).decode
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)


def texts_of(data: bytes, index: int) -> list[StreamEvent] | None:
    """The texts of complete frames that continue the block with this index; None where there is anything else
    in `data`."""
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
    return events
