"""multipart/form-data: where its parts stand in a body. Pure; nothing is copied but the names.

Standard: RFC 7578, RFC 2046 5.1.1
"""

import re
from collections.abc import Iterator

import msgspec

MAX_PARTS = 128
MAX_HEAD = 8 << 10
"""Bytes of a part's header fields."""
_BOUNDARY = re.compile(r";\s*boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))\s*(?:;|\Z)", re.IGNORECASE).search
_DISPOSITION = re.compile(rb"^content-disposition:[ \t]*form-data[ \t]*((?:;[^\r\n]*)?)", re.IGNORECASE | re.MULTILINE).search
_NAME = re.compile(rb";[ \t]*name=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]+))", re.IGNORECASE).findall
_FILENAME = re.compile(rb";[ \t]*filename\*?=", re.IGNORECASE).search


class FormPart(msgspec.Struct, frozen=True):
    """`start` and `end`: where its value stands in the body. `file`: it has a file's name."""

    name: str
    start: int
    end: int
    file: bool


def boundary_of(content_type: str) -> str:
    """The boundary of a multipart/form-data. Raises ValueError where there is none."""
    kind, _, _ = content_type.partition(";")
    found = _BOUNDARY(content_type) if kind.strip().lower() == "multipart/form-data" else None
    boundary = (found[1] or found[2]) if found is not None else ""
    if not boundary or not boundary.isascii() or not boundary.isprintable():
        raise ValueError("must be multipart/form-data with a boundary")
    return boundary


def parts_of(body: bytes, boundary: str) -> Iterator[FormPart]:
    """The parts of a body. Raises ValueError for what is none, or is not complete."""
    mark = b"--" + boundary.encode()
    at = 0 if body.startswith(mark) else body.find(b"\r\n" + mark) + 2
    if at == 1:
        raise ValueError("has no part")
    for _ in range(MAX_PARTS):
        at += len(mark)
        if body.startswith(b"--", at):
            return
        start = _line_end(body, at)
        head = b"" if body.startswith(b"\r\n", start) else body[start : start + MAX_HEAD].partition(b"\r\n\r\n")[0]
        value = start + len(head) + (4 if head else 2)
        end = body.find(b"\r\n" + mark, value - 2)
        if end < 0 or value - 2 > end or (head and not body.startswith(b"\r\n\r\n", value - 4)):
            raise ValueError("is not complete, or a part's head is too long")
        yield _part(head, value, max(value, end))
        at = end + 2
    raise ValueError(f"may have {MAX_PARTS} parts")


def _line_end(body: bytes, at: int) -> int:
    """What follows a boundary's line, which may have blanks at its end."""
    end = body.find(b"\r\n", at, at + 64)
    if end < 0 or body[at:end].strip(b" \t"):
        raise ValueError("has something else behind its boundary")
    return end + 2


def _part(head: bytes, start: int, end: int) -> FormPart:
    found = _DISPOSITION(head)
    names = _NAME(found[1]) if found is not None else []
    if found is None or len(names) != 1:
        raise ValueError("has a part without one name")
    try:
        name = (names[0][0] or names[0][1]).decode()
    except UnicodeDecodeError:
        raise ValueError("has a part whose name is no UTF-8") from None
    return FormPart(name, start, end, _FILENAME(found[1]) is not None)
