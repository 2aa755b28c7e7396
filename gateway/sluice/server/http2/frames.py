"""Bounds the incomplete frames that h2 would keep. Pure.

h2 checks a frame's length when all of the frame has arrived (up to 16 MiB), and a head when all of its
CONTINUATION frames have (64 frames): both are too much for each of thousands of connections.
"""

from sluice.server.http1 import MAX_HEAD

MAX_FRAME = 16_384
"""Maximum bytes of a frame's payload: the default SETTINGS_MAX_FRAME_SIZE (RFC 9113 6.5.2)."""
_PREFACE = 24
_FRAME_HEAD = 9
_HEADERS, _CONTINUATION = 1, 9


class FrameBounds:
    """Reads the headers of a client's frames, from its preface on."""

    __slots__ = ("_block", "_head", "_left")

    def __init__(self) -> None:
        self._left = _PREFACE
        self._head = b""
        self._block = 0

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
        self._left, kind = int.from_bytes(head[:3]), head[3]
        if kind in (_HEADERS, _CONTINUATION):
            self._block = self._left + (self._block if kind == _CONTINUATION else 0)
        return self._left <= MAX_FRAME and self._block <= MAX_HEAD
