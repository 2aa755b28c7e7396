"""Event streams of AWS for tests: messages -> bytes (the other way of `sluice.wire.eventstream`, written
apart from it)."""

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any
from uuid import UUID


def header(name: str, value: Any, kind: int | None = None) -> bytes:
    """One header; its type is the one that the value's own suggests, unless `kind` says another."""
    raw = name.encode()
    if kind is None:
        kind = {True: 0, False: 1}[value] if isinstance(value, bool) else _kind(value)
    start = bytes([len(raw)]) + raw + bytes([kind])
    if kind in (0, 1):
        return start
    if kind in (2, 3, 4, 5, 8):
        return start + value.to_bytes({2: 1, 3: 2, 4: 4}.get(kind, 8), "big", signed=True)
    if kind == 9:
        return start + (value.bytes if isinstance(value, UUID) else value)
    text = value.encode() if isinstance(value, str) else value
    return start + struct.pack(">H", len(text)) + text


def _kind(value: Any) -> int:
    return (
        7
        if isinstance(value, str)
        else 6
        if isinstance(value, bytes)
        else 9
        if isinstance(value, UUID)
        else 4
    )


def message(headers: Mapping[str, Any] | bytes, payload: bytes = b"") -> bytes:
    """One message; `headers` may be bytes, to have some that nobody would write."""
    raw = (
        headers
        if isinstance(headers, bytes)
        else b"".join(header(name, value) for name, value in headers.items())
    )
    prelude = struct.pack(">II", 16 + len(raw) + len(payload), len(raw))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + raw + payload
    return body + struct.pack(">I", zlib.crc32(body))


def event(name: str, value: Any) -> bytes:
    """An event with a JSON payload (bytes are sent as they are)."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return message(headers, value if isinstance(value, bytes) else json.dumps(value).encode())


def events(*named: tuple[str, Any]) -> bytes:
    return b"".join(event(name, value) for name, value in named)


def exception(name: str, value: Any) -> bytes:
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, value if isinstance(value, bytes) else json.dumps(value).encode())


def chunk(value: Any) -> bytes:
    """What InvokeModelWithResponseStream wraps a model's own event in."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return event("chunk", {"bytes": base64.b64encode(raw).decode(), "p": "abcdef"})
