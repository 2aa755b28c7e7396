"""Writes a resumable call: numbers the encoder's frames, appends them to the journal, and sends them to the
client.

Encoders write complete lines and frames, so each write can be split by itself. Comments and blank lines
(heartbeats) have no number and are not kept. A client that does not read delays nothing: it is not written to
any more (`fell_behind`), and gets the rest from the journal at its own pace. If the journal cannot keep the
stream (`unresumable`), the writer applies backpressure as for any other call.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sluice.backends.transport import UpstreamResponse
from sluice.proxy.writer import ResponseWriter
from sluice.resume import Journal

LINE = b"\n"
FRAME = b"\n\n"
NO_DATA = re.compile(rb"(?::[^\n]*(?:\n|\Z))*")
"""Matches a frame that consists of comments."""

Number = Callable[[bytes, int], bytes]
"""(line or frame without its end, number) -> complete frame with its number; b"" for one that has no
number."""


class PacedWriter(ResponseWriter, Protocol):
    """A writer that can wait for its client."""

    async def writable(self) -> None:
        """Waits while the client does not read."""
        ...


class JournaledWriter:
    """Writes the stream with the id `stream`. `written`: the number of the last frame that was sent to the
    client, from 0."""

    def __init__(
        self, client: PacedWriter, journal: Journal, stream: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.begun = False
        self.last_write = 0.0
        self.written = -1
        self.fell_behind = asyncio.get_running_loop().create_future()
        self._client = client
        self._journal = journal
        self._stream = stream.encode()
        self._clock = clock
        self._next = 0
        self._direct = True  # the client has received every frame so far
        self._left = 0.0
        self._upstream: UpstreamResponse | None = None
        self._ordinary = False
        self._end = LINE
        self._number: Number = self._line

    @property
    def blocked_since(self) -> float:
        return self._client.blocked_since if self._ordinary and self._direct else 0.0

    @property
    def unresumable(self) -> bool:
        return self._journal.unresumable

    @property
    def unread(self) -> float:
        """Returns the seconds since the client or a resuming reader read; 0.0 while one does."""
        return 0.0 if not self._left else min(self._clock() - self._left, self._journal.unread)

    def begin(self, content_type: str, headers: Sequence[tuple[str, str]]) -> None:
        self.begun = True
        if content_type.startswith("text/event-stream"):
            self._end, self._number = FRAME, self._event
        self._client.begin(content_type, headers)

    def write(self, data: bytes, *, last: bool = False) -> None:
        self.last_write = self._clock()
        frames = self._numbered(data)
        if not frames and not last:
            if self._direct and not self._client.blocked_since:
                self._client.write(data)
            return
        self._journal.append(frames, last=last)
        if self._journal.unresumable and not self._ordinary:
            self._ordinary = True
            self.attach(self._upstream)
        if self._direct and self._client.blocked_since and not self._ordinary:
            self._fall_behind()
        if self._direct:
            self.written = self._next - 1
            self._client.write(b"".join(frames), last=last)

    def fail(self, data: bytes) -> None:
        self.write(data, last=True)

    def attach(self, upstream: UpstreamResponse | None) -> None:
        self._upstream = upstream
        if self._ordinary and self._direct:
            self._client.attach(upstream)

    def detach(self) -> None:
        self._direct = False
        self._left = self._clock()
        self._client.detach()

    def abort(self) -> None:
        self._client.abort()

    def _fall_behind(self) -> None:
        self._direct = False
        if not self.fell_behind.done():
            self.fell_behind.set_result(None)

    def _numbered(self, data: bytes) -> list[bytes]:
        frames = []
        for piece in data.split(self._end):
            frame = self._number(piece, self._next) if piece else b""
            if frame:
                self._next += 1
                frames.append(frame)
        return frames

    def _line(self, line: bytes, number: int) -> bytes:
        """Returns a numbered line; the first one also has the stream's id."""
        named = b',"streamId":"%b"' % self._stream if not number else b""
        return b'%b%b,"n":%d}\n' % (line[:-1], named, number)

    def _event(self, frame: bytes, number: int) -> bytes:
        """Returns a numbered event. The id comes last, so that it overrides one in the upstream's frame."""
        frame = frame.strip(b"\n")
        return b"" if NO_DATA.fullmatch(frame) else b"%b\nid: %b:%d\n\n" % (frame, self._stream, number)
