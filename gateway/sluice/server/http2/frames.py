"""Bounds the incomplete frames that h2 would keep, and counts frames without content. Pure.

h2 checks a frame's length when the whole frame has arrived (up to 16 MiB), and a head when all of its
CONTINUATION frames have (64 frames): both are too much for thousands of connections. Frames are counted
before h2 handles them, including those that it does not report (resets of streams that have ended).
"""

from sluice.server.http1 import MAX_HEAD

MAX_FRAME = 16_384
"""Maximum bytes of a frame's payload: the default SETTINGS_MAX_FRAME_SIZE (RFC 9113 6.5.2)."""
SMALL_FRAME_BYTES = 256
"""Bytes of data below which a frame is small: h2's work for it costs more than its content is worth."""
SMALL_PER_HEAD = 10
"""Small frames that a request may have before they are counted."""
_PREFACE = 24
_FRAME_HEAD = 9
_DATA, _HEADERS, _RST_STREAM, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 8, 9
_END_STREAM = 1


class FrameBounds:
    """Reads the headers of a client's frames, from its preface on.

    `updates`, `resets`: frames of these kinds so far. `fruitless`: frames of other kinds without a request or
    content, since the owner set it to 0. `small`: small frames of data that end no body, beyond
    SMALL_PER_HEAD for each head, since the owner set it to 0.
    """

    __slots__ = ("_block", "_head", "_left", "fruitless", "resets", "small", "updates")

    def __init__(self) -> None:
        self._left = _PREFACE
        self._head = b""
        self._block = 0
        self.fruitless = self.resets = self.small = self.updates = 0

    def hold(self, data: bytes) -> bool:
        """Returns whether all frames that begin in these bytes are small enough."""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
                continue
            part = data[at : at + _FRAME_HEAD - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == _FRAME_HEAD and not self._fits():
                return False
        return True

    def _fits(self) -> bool:
        head, self._head = self._head, b""
        self._left, kind, flags = int.from_bytes(head[:3]), head[3], head[4]
        if kind == _DATA:
            if not flags & _END_STREAM:
                self.fruitless += not self._left
                self.small += self._left < SMALL_FRAME_BYTES
        elif kind in (_HEADERS, _CONTINUATION):
            self._block = self._left + (self._block if kind == _CONTINUATION else 0)
            self.small -= SMALL_PER_HEAD * (kind == _HEADERS)
        elif kind == _WINDOW_UPDATE:
            self.updates += 1
        elif kind == _RST_STREAM:
            self.resets += 1
        else:
            self.fruitless += 1
        return self._left <= MAX_FRAME and self._block <= MAX_HEAD
