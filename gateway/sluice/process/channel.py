"""Requests and replies between a worker and its supervisor, in both directions, over a pair of sockets.

A message is four bytes of length (big-endian) and MessagePack. Only the supervisor has the other ends, so
messages are trusted.
"""

import socket
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

CHUNK = 256 << 10
"""Maximum bytes of one read or write."""


class ChannelRequest(msgspec.Struct, tag="ask", array_like=True):
    """`id`: chosen by the sender, for the reply; 0: no reply is wanted."""

    id: int
    what: str
    body: Any = None


class ChannelReply(msgspec.Struct, tag="answer", array_like=True):
    """`problem`: why the request failed; "": it succeeded."""

    id: int
    body: Any = None
    problem: str = ""


Message = ChannelRequest | ChannelReply
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def framed(message: Message) -> tuple[bytes, bytes]:
    """Returns the parts of a message to send: its length and its body, which may be megabytes of metrics and
    is not copied.
    """
    body = _encode(message)
    return len(body).to_bytes(4, "big"), body


class Frames:
    """Splits a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as whole, whole[4:end] as body:
                message = _decode(body)
            del self._buffer[:end]
            yield message


class ChannelEnd:
    """One end of the pair, which never waits: bytes that do not fit yet are kept for the next `flush`."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._frames = Frames()
        self._waiting: deque[memoryview] = deque()
        self.closed = False

    def fileno(self) -> int:
        return self._end.fileno()

    @property
    def full(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._waiting)

    def send(self, message: Message) -> None:
        """Sends a message. It is dropped if the other end is closed."""
        self._waiting += map(memoryview, framed(message))
        self.flush()

    def flush(self) -> None:
        while self._waiting and not self.closed:
            try:
                sent = self._end.send(self._waiting[0][:CHUNK])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the read of this end reports it
                self._waiting.clear()
                return
            self._waiting[0] = self._waiting[0][sent:]
            if not self._waiting[0]:
                self._waiting.popleft()

    def receive(self) -> list[Message]:
        """Returns the messages that have arrived. Sets `closed` when the other end is closed."""
        found: list[Message] = []
        while not self.closed:
            try:
                data = self._end.recv(CHUNK)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
            found += self._frames.feed(data)
        return found

    def close(self) -> None:
        self.closed = True
        self._waiting.clear()
        self._end.close()
