"""Finds the parts of a multipart/form-data body, which may arrive in pieces. Pure. It keeps only names and
short values.

Standard: RFC 7578, RFC 2046 5.1.1
"""

import re
from collections.abc import Callable

import msgspec

MAX_PARTS = 128
MAX_HEAD = 8 << 10
"""Maximum bytes of a part's header fields."""
MAX_VALUE = 256
"""Bytes of a value that are kept, plus one, which shows that it is longer."""
_BOUNDARY = re.compile(
    r";\s*boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))\s*(?:;|\Z)", re.IGNORECASE
).search
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0-\x08\x0a-\x1f\x7f]*)").fullmatch
_DISPOSITION = re.compile(rb"[ \t]*form-data[ \t]*((?:;.*)?)", re.IGNORECASE).fullmatch
_PARAMETER = rb";[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+="
_PARAMETERS = (
    re.compile(rb"(?:%b(?:\"(?:[^\"\\]|\\.)*\"[ \t]*|[^\";]*))*" % _PARAMETER).fullmatch,
    re.compile(rb"(?:%b(?:\"[^\"]*\"[ \t]*|[^\";]*))*" % _PARAMETER).fullmatch,
)
"""A parameter with a backslash before a quotation mark (RFC 822), and one without, as browsers write file
names (https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data)."""
_NAME = re.compile(rb";[ \t]*name=(?:\"([^\"]*)\"|([^\s;\"]+))", re.IGNORECASE).findall
_OTHER_NAME = re.compile(rb";[ \t]*name(?:\*|[ \t]+[=*]|=[ \t])", re.IGNORECASE).search
_FILENAME = re.compile(rb";[ \t]*filename\*?=", re.IGNORECASE).search


class FormPart(msgspec.Struct, frozen=True):
    """`start` and `end`: the position of its value in the body. `file`: it has a file name; otherwise `value`
    is the beginning of the value."""

    name: str
    start: int
    end: int
    file: bool
    value: bytes = b""


def boundary_of(content_type: str) -> str:
    """Returns the boundary in a multipart/form-data content type. Raises ValueError if there is none."""
    kind, _, _ = content_type.partition(";")
    found = _BOUNDARY(content_type) if kind.strip().lower() == "multipart/form-data" else None
    boundary = (found[1] or found[2]) if found is not None else ""
    if not boundary or not boundary.isascii() or not boundary.isprintable():
        raise ValueError("must be multipart/form-data with a boundary")
    return boundary


def parts_of(body: bytes, boundary: str) -> list[FormPart]:
    """Returns the parts of a body. Raises ValueError if it is invalid or incomplete."""
    scanner = FormScanner(boundary)
    scanner.feed(body)
    scanner.close()
    return scanner.parts


class FormScanner:
    """Finds the parts of a body that arrives in pieces.

    `parts`: those that have ended. `first`: the position of the first boundary. Bytes that may be the
    beginning of a boundary or of a part's head are held until more arrive: at most MAX_HEAD bytes and one
    piece.
    """

    def __init__(self, boundary: str) -> None:
        self._mark = b"--" + boundary.encode()
        self._delimiter = b"\r\n" + self._mark
        self._held = bytearray()
        self._at = 0  # the position in the body at which the held bytes begin
        self._step: Callable[[FormScanner], bool] = FormScanner._begin
        self._part: FormPart | None = None
        self._kept = bytearray()
        self.parts: list[FormPart] = []
        self.first = -1

    def feed(self, data: bytes) -> None:
        """Raises ValueError if the body is not a form."""
        self._held += data
        while self._step(self):
            pass

    def close(self) -> None:
        """Ends the body. Raises ValueError if the form is incomplete."""
        if self._step is not FormScanner._ended:
            raise ValueError(
                "is not complete, or a part's head is too long" if self.first >= 0 else "has no part"
            )

    # --- steps: each returns whether another can follow at once

    def _begin(self) -> bool:
        """The body's beginning, where no line has to precede the first boundary."""
        mark = self._mark
        if len(self._held) < len(mark) and mark.startswith(self._held):
            return False
        if self._held.startswith(mark):
            self.first = 0
            self._drop(len(mark))
            self._step = FormScanner._behind_a_boundary
        else:
            self._step = FormScanner._preamble
        return True

    def _preamble(self) -> bool:
        found = self._held.find(self._delimiter)
        if found < 0:
            self._drop(max(0, len(self._held) - len(self._delimiter) + 1))
            return False
        self.first = self._at + found + 2
        self._drop(found + len(self._delimiter))
        self._step = FormScanner._behind_a_boundary
        return True

    def _behind_a_boundary(self) -> bool:
        held = self._held
        if held.startswith(b"--"):
            self._step = FormScanner._ended
            return True
        end = held.find(b"\r\n", 0, 64)
        if end < 0 and len(held) < 64 and not held.strip(b" \t\r-"):
            return False  # a line's end or two dashes may still follow
        if end < 0 or held[:end].strip(b" \t"):
            raise ValueError("has something else behind its boundary")
        if len(self.parts) >= MAX_PARTS:
            raise ValueError(f"may have {MAX_PARTS} parts")
        self._drop(end + 2)
        self._step = FormScanner._head
        return True

    def _head(self) -> bool:
        held = self._held
        if held.startswith(b"\r\n"):
            raise ValueError("has a part without one name")
        end = held.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
        if end < 0:
            if len(held) > MAX_HEAD:
                raise ValueError("is not complete, or a part's head is too long")
            return False
        self._part = _part(bytes(held[:end]), self._at + end + 4, 0)
        self._kept.clear()
        self._drop(end + 2)  # one line end may end both the boundary's line and the head
        self._step = FormScanner._value
        return True

    def _value(self) -> bool:
        part, held = self._part, self._held
        assert part is not None
        found = held.find(self._delimiter)
        known = found if found >= 0 else max(0, len(held) - len(self._delimiter) + 1)
        if not part.file and len(self._kept) <= MAX_VALUE:
            self._kept += held[max(0, part.start - self._at) : known][: MAX_VALUE + 1 - len(self._kept)]
        if found < 0:
            self._drop(known)
            return False
        end = max(part.start, self._at + found)
        self.parts.append(msgspec.structs.replace(part, end=end, value=bytes(self._kept)))
        self._drop(found + len(self._delimiter))
        self._step = FormScanner._behind_a_boundary
        return True

    def _ended(self) -> bool:
        """Drops the bytes of the epilogue."""
        self._drop(len(self._held))
        return False

    def _drop(self, size: int) -> None:
        del self._held[:size]
        self._at += size


def _part(head: bytes, start: int, end: int) -> FormPart:
    """Returns the part that this head begins.

    Raises ValueError for a head that parsers read differently, so that no upstream sees a name that the
    gateway has not seen: continued lines, several dispositions or names, `name*` of RFC 2231 (which RFC 7578
    forbids), a backslash in a name.
    """
    fields = [_FIELD(line) for line in head.split(b"\r\n")]
    found = [
        None if field is None else _DISPOSITION(field[2])
        for field in fields
        if field is None or field[1].lower() == b"content-disposition"
    ]
    if len(found) != 1 or found[0] is None:
        raise ValueError("has a part without one name")
    parameters = found[0][1].rstrip(b" \t;")
    names = _NAME(parameters)
    if (
        len(names) != 1
        or _OTHER_NAME(parameters)
        or not any(complete(parameters) for complete in _PARAMETERS)
    ):
        raise ValueError("has a part without one name")
    written = names[0][0] or names[0][1]
    if b"\\" in written:
        raise ValueError("has a part with a backslash in its name")
    try:
        name = written.decode()
    except UnicodeDecodeError:
        raise ValueError("has a part whose name is no UTF-8") from None
    return FormPart(name, start, end, _FILENAME(parameters) is not None)
