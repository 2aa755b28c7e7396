"""Encodes and parses the wire format of Protocol Buffers (https://protobuf.dev/programming-guides/encoding/):
fields and numbers. Pure.

The gateway uses only a few messages (OTLP's, Prometheus's), so it has no protobuf library. The modules that
write a message have the numbers of its fields beside their names.
"""

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache

_FIXED64 = struct.Struct("<Q")
_DOUBLE = struct.Struct("<d")


@lru_cache(256)  # the messages that are written have few different fields
def tag(field: int, wire: int) -> bytes:
    return varint(field << 3 | wire)


def varint(value: int) -> bytes:
    """Encodes a number of up to 64 bits; a negative one as its two's complement."""
    if 0 <= value < 0x80:
        return _SMALL[value]
    if 0 < value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SMALL = tuple(bytes((value,)) for value in range(0x80))


def zigzag(value: int) -> int:
    """Encodes a number of type sint: small ones are short, whatever their sign."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def number(field: int, value: int) -> bytes:
    return tag(field, 0) + varint(value)


def packed(field: int, values: Iterable[int]) -> bytes:
    return data(field, b"".join(map(varint, values)))


def fixed(field: int, value: int) -> bytes:
    return tag(field, 1) + _FIXED64.pack(value)


def double(field: int, value: float) -> bytes:
    return tag(field, 1) + _DOUBLE.pack(value)


def data(field: int, value: bytes) -> bytes:
    """Encodes bytes, or a message."""
    return tag(field, 2) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    """Encodes a text; "" is encoded as nothing."""
    return data(field, value.encode("utf-8", "replace")) if value else b""


# --- reading


class BadProtobuf(ValueError):
    """The bytes are not a message."""


MAX_FIELDS = 10_000
"""Maximum fields of one message. Five times as many take some ten milliseconds to parse."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields the fields of a message in order: the number, and the value as a number or as bytes. Raises
    BadProtobuf."""
    at, end, left = 0, len(message), MAX_FIELDS
    while at < end:
        if not left:
            raise BadProtobuf(f"a message of more than {MAX_FIELDS} fields")
        left -= 1
        key, at = _read_varint(message, at)
        field, wire = key >> 3, key & 7
        match wire:
            case 0:
                value, at = _read_varint(message, at)
                yield field, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _read_varint(message, at)
            case 5:
                size = 4
            case _:
                raise BadProtobuf(f"wire type {wire}")
        if field == 0 or at + size > end:
            raise BadProtobuf("a field ends behind its message")
        yield field, message[at : at + size]
        at += size


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
    raise BadProtobuf("a number does not end")
