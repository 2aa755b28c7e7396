"""Server-sent events, to the letter of the WHATWG's HTML standard, 9.2.6 "Interpreting an event stream".

Line ends become LF first; then an event is what stands before an empty line, and a read's complete events are
one piece of bytes. `feed` gives events. Who forwards frames as they came takes `complete` for that piece and
`payloads` for what is in it: the usual read (N frames of one `data: ` line each) costs a few searches in C,
not N parses.

Beyond the standard: some servers end each event by one line end, not two. To the letter that is one event
whose data is all the objects, each on its line, which is no JSON; so a line that ends in "}", with a line of
data that begins with "{" (or is [DONE]) behind it, ends an event (`separated`). No JSON text has such a place
between two of its lines.

Not done here, as nobody needs it: reconnecting (`retry` and `last_id` are kept, not acted upon).
"""

import re

import msgspec

from sluice.wire.lines import LIMIT, DelimitedBlocks, Newlines

END = b"\n\n"
_BOM = b"\xef\xbb\xbf"
_MAX_BOUNDARY = 256
"""Bytes of an `event:` and an `id:` line between two objects, at most."""
_UNSEPARATED = re.compile(rb"\}\n(?=(?:(?:event|id):[^\n]*\n){0,2}data: ?(?:\{|\[DONE\]))")


class Event(msgspec.Struct, frozen=True, gc=False):
    """`data` are the data lines joined by LF, as bytes; `event` is the event's type, `id` the last event
    id."""

    data: bytes
    event: str = "message"
    id: str = ""

    @property
    def text(self) -> str:
        """The data as text; what is not UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


class EventStream(msgspec.Struct, eq=False):
    """Bytes -> events; an event (its frame, comments included) may have `limit` bytes at most.

    `clean`: every byte so far was returned in a frame, and the next byte begins a frame (or the byte order
    mark before all). `last_id` and `retry` (milliseconds, None if the stream sent none) are the stream's own
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
        """The events that `data` completes. Raises UpstreamGarbled for one that is too long (see
        `DelimitedBlocks.feed`)."""
        body = separated(self.complete(data))
        return [event for frame in body.split(END) if frame and (event := self.event(frame)) is not None]

    def complete(self, data: bytes) -> bytes:
        """The frames that `data` completes as one piece, each ending in an empty line, line ends as LF; b"" =
        none.

        What is pending when the input ends is no event, and there is nothing more to ask for then.
        """
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
        """`complete` for reads that are not just whole frames."""
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
        """The input has ended: what is left, which is no event. Raises UpstreamGarbled where `feed` still
        owes it."""
        return self._blocks.close() if self._blocks is not None else b""

    def event(self, frame: bytes) -> Event | None:
        """The event of one frame (what stands between two empty lines); None where it has no data."""
        if frame.startswith(b"data:") and b"\n" not in frame:
            return Event(frame[6:] if frame[5:6] == b" " else frame[5:], "message", self.last_id)
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


def separated(body: bytes) -> bytes:
    """The frames of `body` with an empty line behind each event, also where the server left it out."""
    if body.find(b"}\ndata:") < 0 and body.find(b"}\nevent:") < 0:
        return body
    return _UNSEPARATED.sub(b"}\n\n", body)


def payloads(body: bytes) -> list[bytes] | None:
    """The data of each frame of `body` (from `complete`) where every frame is one `data: ` line; None where
    one is not."""
    if body[:6] != b"data: ":
        return None
    found = body[6:-2].split(b"\n\ndata: ")
    # a line end that is left belongs to a frame of another form
    return found if b"".join(found).find(b"\n") < 0 else None
