"""Parses server-sent events exactly as in the WHATWG's HTML standard, 9.2.6 "Interpreting an event stream".

Line ends become LF first; then an event is everything up to an empty line, and the complete events of a read
are one piece of bytes. `feed` returns events. To forward frames as they came, call `complete` for that piece
and `payloads` for the data in it: for the usual read (N frames of one `data: ` line each) this costs a few
searches in C instead of N parses.

Beyond the standard: some servers end each event with one line end instead of two. By the standard, that is a
single event whose data is all the objects, each on its line, and this is not JSON. So a line that ends in "}"
ends an event if a line of data follows that begins with "{" or is [DONE] (`separated`). No JSON text has such
a place between two of its lines.

Reconnecting is not implemented (`retry` and `last_id` are kept, and not used).
"""

import re

import msgspec

from sluice.wire.lines import LIMIT, DelimitedBlocks, Newlines

END = b"\n\n"
_BOM = b"\xef\xbb\xbf"
_MAX_BOUNDARY = 256
"""Maximum bytes of an `event:` and an `id:` line between two objects."""
_UNSEPARATED = re.compile(rb"\}\n(?=(?:(?:event|id):[^\n]*\n){0,2}data: ?(?:\{|\[DONE\]))")


class Event(msgspec.Struct, frozen=True, gc=False):
    """`data`: the data lines joined by LF, as bytes. `event`: the event's type. `id`: the last event id."""

    data: bytes
    event: str = "message"
    id: str = ""

    @property
    def text(self) -> str:
        """Returns the data as text; invalid UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


class EventStream(msgspec.Struct, eq=False):
    """Splits bytes into events; an event (its frame, including comments) may have at most `limit` bytes.

    `clean`: every byte so far was returned in a frame, so the next byte begins a frame (or is the byte order
    mark at the beginning). `last_id` and `retry` (milliseconds; None if none was sent) are the stream's
    state.
    """

    limit: int = LIMIT
    clean: bool = True
    last_id: str = ""
    retry: int | None = None
    _blocks: DelimitedBlocks | None = None
    _newlines: Newlines | None = None
    _head: bytes | None = b""

    def feed(self, data: bytes) -> list[Event]:
        """Returns the events that `data` completes. Raises UpstreamGarbled for one that is too long (see
        `DelimitedBlocks.feed`)."""
        return self.events(self.complete(data))

    def events(self, body: bytes) -> list[Event]:
        """The events of complete frames."""
        frames = separated(body).split(END)
        return [event for frame in frames if frame and (event := self.event(frame)) is not None]

    def complete(self, data: bytes) -> bytes:
        """Returns the frames that `data` completes as one piece, each ending in an empty line, with LF as
        line end; b"" if there are none. Pending bytes at the end of the input are not an event, so nothing
        has to be called then."""
        if (
            self.clean
            and data[-2:] == END
            and data[0] != _BOM[0]
            and len(data) <= self.limit
            and data.find(b"\r") < 0  # `in` tries b"\r" as a number first, which costs more than the search
        ):
            self._head = None
            return data
        return self._completed(data)

    def _completed(self, data: bytes) -> bytes:
        """Like `complete`, for reads other than just whole frames."""
        if self._blocks is None or self._newlines is None:
            self._blocks = DelimitedBlocks(END, self.limit)
            self._newlines = Newlines()
        if self._head is not None:
            data = self._skip_bom(self._head + data)
        data = self._newlines.feed(data)
        body = self._blocks.feed(data)
        if not body:
            body = self._blocks.cut(_UNSEPARATED, len(data) + _MAX_BOUNDARY, b"\n")
        self.clean = not (self._head or self._blocks.pending or self._newlines.after_cr)
        return body

    def close(self) -> bytes:
        """Ends the input. Returns the rest, which is not an event. Raises the UpstreamGarbled that `feed` has
        postponed."""
        return self._blocks.close() if self._blocks is not None else b""

    def event(self, frame: bytes) -> Event | None:
        """Returns the event of one frame (the text between two empty lines); None if it has no data."""
        if frame.startswith(b"data:") and b"\n" not in frame:
            return Event(frame[6:] if frame[5:6] == b" " else frame[5:], "message", self.last_id)
        if (named := named_event(frame, self.last_id)) is not None:
            return named
        name = ""
        data: list[bytes] = []
        for line in frame.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id" and b"\0" not in value:
                self.last_id = value.decode("utf-8", "replace")
            elif field == b"retry" and value.isdigit():
                self.retry = int(value[:18])
        return Event(b"\n".join(data), name or "message", self.last_id) if data else None

    def _skip_bom(self, data: bytes) -> bytes:
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._head = data
            return b""
        self._head = None
        return data.removeprefix(_BOM)


def named_event(frame: bytes, id: str = "") -> Event | None:
    """The event of a frame that is one `event: ` line and one `data: ` line; None for any other."""
    at = frame.find(b"\n")
    if frame[:7] != b"event: " or frame[at : at + 7] != b"\ndata: " or frame.find(b"\n", at + 1) >= 0:
        return None
    return Event(frame[at + 7 :], frame[7:at].decode("utf-8", "replace") or "message", id)


def separated(body: bytes) -> bytes:
    """Returns the frames of `body` with an empty line after each event, also where the server has left it
    out."""
    if body.find(b"}\ndata:") < 0 and body.find(b"}\nevent:") < 0:
        return body
    return _UNSEPARATED.sub(b"}\n\n", body)


def payloads(body: bytes) -> list[bytes] | None:
    """Returns the data of each frame of `body` (from `complete`) if every frame is one `data: ` line;
    otherwise None."""
    if body[:6] != b"data: ":
        return None
    found = body[6:-2].split(b"\n\ndata: ")
    # a line end in it belongs to a frame of another form
    return found if b"".join(found).find(b"\n") < 0 else None
