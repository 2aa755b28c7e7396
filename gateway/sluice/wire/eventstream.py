"""Parses binary event streams of AWS (`application/vnd.amazon.eventstream`): bytes -> messages.

A message has a prelude (its length, its headers' length, a CRC32 of these two), headers, a payload, and a
CRC32 of everything before it; numbers are big-endian. Both checksums are verified: the prelude's first,
before its lengths are used.

    total length 4
 headers' length 4
 CRC32 4
 headers
 payload
 CRC32 4

A header has a name (one byte of length), a type (one byte) and a value. The meaning of the headers
(`:message-type`, `:event-type` …) is left to the callers of this module.
https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html,
https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import NoReturn
from zlib import crc32

import msgspec

from sluice.errors import UpstreamGarbled

HeaderValue = bool | int | bytes | str

LIMIT = 16 << 20
"""Default maximum of one message, in bytes."""
MAX_HEADERS = 128 << 10
"""Maximum bytes of one message's headers (the format's own limit)."""
_PRELUDE = Struct(">III")
_CRC = Struct(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size
_NUMBERS = {2: 1, 3: 2, 4: 4, 5: 8, 8: 8}
"""Sizes of numbers in bytes, by type: byte, short, integer, long, timestamp."""
_BYTES, _TEXT, _UUID = 6, 7, 9


class EventMessage(msgspec.Struct, frozen=True, gc=False):
    """One message.

    A header's value is a bool, an int (8 to 64 bits; a time in milliseconds since the epoch), bytes (also the
    16 of a UUID) or a text. Of a repeated header the first counts.
    """

    headers: Mapping[str, HeaderValue]
    payload: bytes

    def text(self, name: str) -> str:
        """Returns the value of a header that is a text; "" if there is none."""
        value = self.headers.get(name)
        return value if type(value) is str else ""


class MessageStream:
    """Splits bytes into messages of at most `limit` bytes, however the bytes are cut.

    Raises UpstreamGarbled for invalid messages: a wrong checksum, a length beyond the limits, a header of an
    unknown type. Messages before it in the same read are returned first, and the next `feed` or `close`
    raises.
    """

    __slots__ = ("_buffer", "_error", "_size", "limit")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._size = 0  # bytes of the incomplete message; 0 until its prelude is complete
        self._error: UpstreamGarbled | None = None

    def feed(self, data: bytes) -> list[EventMessage]:
        """Returns the messages that `data` completes."""
        self._raise()
        self._buffer += data
        messages: list[EventMessage] = []
        at = 0
        try:
            while (end := self._end(at)) and end <= len(self._buffer):
                messages.append(_message(bytes(self._buffer[at:end])))
                at, self._size = end, 0
        except UpstreamGarbled as error:
            self._error = error
            self._buffer.clear()
            if not messages:
                raise
        else:
            del self._buffer[:at]
        return messages

    def close(self) -> bool:
        """Returns whether the bytes ended at the end of a message."""
        self._raise()
        return not self._buffer

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _end(self, at: int) -> int:
        """Returns the end of the message that begins at `at`; 0 while its prelude is not complete."""
        if not self._size:
            if len(self._buffer) - at < _PRELUDE.size:
                return 0
            size, headers, checksum = _PRELUDE.unpack_from(self._buffer, at)
            if crc32(self._buffer[at : at + 8]) != checksum:
                _refuse("checksum of a prelude")
            if headers > MAX_HEADERS or not _OVERHEAD + headers <= size <= self.limit:
                _refuse("length")
            self._size = size
        return at + self._size


def _message(data: bytes) -> EventMessage:
    """Returns the message with these bytes, which are complete and whose prelude has been verified."""
    body_end = len(data) - _CRC.size
    if crc32(data[:body_end]) != _CRC.unpack_from(data, body_end)[0]:
        _refuse("checksum of a message")
    headers_end = _PRELUDE.size + int.from_bytes(data[4:8], "big")
    return EventMessage(headers_of(data[_PRELUDE.size : headers_end]), data[headers_end:body_end])


def headers_of(data: bytes) -> Mapping[str, HeaderValue]:
    """Returns the headers of one message. Raises UpstreamGarbled. Cached: the events of a stream have the
    same few headers."""
    return _ordinary_headers(data) if len(data) <= 256 else _headers(data)


def _headers(data: bytes) -> Mapping[str, HeaderValue]:
    headers: dict[str, HeaderValue] = {}
    at = 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode("utf-8", "replace")
            value, at = _value(data, name_end)
            headers.setdefault(name, value)
    except (IndexError, ValueError):  # a length beyond the headers' end, or an unknown type
        _refuse("header")
    return headers


_ordinary_headers = lru_cache(maxsize=256)(_headers)


def _value(data: bytes, at: int) -> tuple[HeaderValue, int]:
    """Returns the value whose type is at `at`, and the position of its end. Raises IndexError or ValueError."""
    kind = data[at]
    at += 1
    if kind in (0, 1):
        return kind == 0, at
    if kind in _NUMBERS:
        end = at + _NUMBERS[kind]
        return int.from_bytes(_piece(data, at, end), "big", signed=True), end
    if kind in (_BYTES, _TEXT):
        start = at + 2
        end = start + int.from_bytes(_piece(data, at, start), "big")
        value = _piece(data, start, end)
        return value.decode("utf-8", "replace") if kind == _TEXT else value, end
    if kind == _UUID:
        return _piece(data, at, at + 16), at + 16
    raise ValueError(kind)


def _piece(data: bytes, start: int, end: int) -> bytes:
    if end > len(data):
        raise IndexError(end)
    return data[start:end]


def _refuse(what: str) -> NoReturn:
    raise UpstreamGarbled(
        f"The upstream's answer could not be understood: a wrong {what} in its event stream"
    )
