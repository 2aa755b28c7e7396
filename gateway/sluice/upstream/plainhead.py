"""The head of an answer as nearly all are: a 200 whose lines are plain, and which says in one plain way where its body ends.

Providers send some twenty lines with each answer, and all but a few of them are the same every time. A line that was read
before is looked up; a new one has to have the plain form of a field (RFC 9112 5). What is not plain is None here, and
llhttp's to judge; what is plain it would read as the same (the tests hold both side by side).

A server of one's own sends the same head for as long as its date is the same: that is not read again at all.
"""

import re
from typing import cast

import msgspec

from sluice.wire.fields import NAMES

OK = b"HTTP/1.1 200 OK\r\n"
KEPT = 256
"""Lines, and names, that are remembered; beyond that all are forgotten, and read anew."""
LONG = 256
"""Bytes of a line that is not remembered. (The last head is, whatever its length.)"""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}").fullmatch
_LENGTH = re.compile(r"[0-9]{1,15}").fullmatch
_RARE = frozenset(("connection", "proxy-connection", "upgrade", "content-encoding"))
"""Fields that may make an answer another than it seems."""

Pair = tuple[str, str]


class PlainHead(msgspec.Struct, frozen=True, gc=False):
    """`fields` by lower-case names, repeated ones joined by ", "; `count` lines; the body's `length`, -1 for chunks."""

    fields: dict[str, str]
    count: int
    length: int


class Lines:
    """The lines that one origin sends."""

    __slots__ = ("_head", "_known", "_names", "_text")

    def __init__(self) -> None:
        self._known: dict[bytes, Pair] = {}
        self._names = dict(NAMES)
        self._text = b""  # of the head before
        self._head: PlainHead | None = None

    def head(self, text: bytes) -> PlainHead | None:
        """What these lines say, which stand behind the first one and before the empty one. Not to be changed."""
        if text != self._text:
            self._head = self._read_head(text.split(b"\r\n"))
            self._text = text
        return self._head

    def _read_head(self, lines: list[bytes]) -> PlainHead | None:
        known = self._known.get
        pairs = [known(line) or self._read(line) for line in lines]
        if None in pairs:
            return None
        fields = dict(cast(list[Pair], pairs))
        if len(fields) < len(pairs):
            fields = _joined(cast(list[Pair], pairs))
        if not _RARE.isdisjoint(fields) and not _goes_on(fields):
            return None
        length, coding = fields.get("content-length"), fields.get("transfer-encoding")
        if length is None:
            return PlainHead(fields, len(lines), -1) if coding is not None and coding.lower() == "chunked" else None
        return PlainHead(fields, len(lines), int(length)) if coding is None and _LENGTH(length) else None

    def _read(self, line: bytes) -> Pair | None:
        name, _, value = line.partition(b":")
        text = value.decode("latin-1").strip(" ")
        key = self._names.get(name) or self._name(name)
        if not key or not text or not text.isprintable():
            return None
        pair = (key, text)
        if len(line) < LONG:
            if len(self._known) >= KEPT:
                self._known.clear()
            self._known[line] = pair
        return pair

    def _name(self, name: bytes) -> str:
        """In lower case; "" for what is no name, or is long."""
        if not _NAME(name):
            return ""
        if len(self._names) >= KEPT:
            self._names = dict(NAMES)
        key = self._names[name] = name.decode("ascii").lower()
        return key


def _joined(pairs: list[Pair]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _goes_on(fields: dict[str, str]) -> bool:
    """Whether the rare fields say only what goes without saying."""
    return fields.get("connection", "").lower() == "keep-alive" and len(_RARE.intersection(fields)) == 1
