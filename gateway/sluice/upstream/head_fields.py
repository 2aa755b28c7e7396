"""Reads the header fields of an upstream's response heads from bytes that llhttp has accepted.

The heads of an upstream differ in a few values: a date, a request's id, the rest of a rate limit. So the last
heads are remembered as forms: the bytes around the values that have changed so far. Of a head with a known
form only these values are read (five of twenty fields take a quarter of the time that callbacks for all
take); any other head is read line by line. This module needs no grammar: llhttp refuses folded lines, ends
lines at CRLF only and allows no CR in a value.
"""

from collections.abc import Mapping, Sequence, Set

import msgspec

from sluice.wire.fields import joined

MAX_FORMS = 4
"""Maximum forms that are remembered: for example those of streams, whole answers and errors. Each is as long
as its head."""

EAGER_HEADS = 8
"""Number of heads in a row without a known form after which only every eighth is remembered."""

_Fields = Sequence[tuple[str, str]]


class _Form(msgspec.Struct, eq=False, frozen=True):
    """A head around its changing values.

    `gaps`: the bytes before each of these values, and its name. `rest`: the bytes after the last one, up to
    the head's end. `constant`: the other fields. `lines`: those of the head that the form was made from.
    """

    gaps: Sequence[tuple[bytes, str]]
    rest: bytes
    constant: dict[str, str]
    lines: Sequence[str]
    changing: Set[str]

    __repr__ = object.__repr__  # it may hold a cookie

    def read(self, data: bytes) -> Mapping[str, str] | None:
        """Returns the fields of the head at the beginning of `data` if it has this form; otherwise None."""
        at = 0
        fields = self.constant.copy()
        for before, name in self.gaps:
            begin = at + len(before)
            if data[at:begin] != before:
                return None
            end = data.find(b"\r", begin)
            value = data[begin:end].strip().decode("latin-1")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
            at = end
        return fields if data[at : at + len(self.rest)] == self.rest else None


class HeadFields:
    """Reads the fields of heads; all connections to an upstream share it. `forms`: the last used one comes
    first. `unknown`: how many heads in a row had none of them."""

    __slots__ = ("_unknown_in_a_row", "forms", "unknown")

    def __init__(self) -> None:
        self.forms: list[_Form] = []
        self.unknown = 0
        self._unknown_in_a_row = 0

    def read(self, data: bytes, most: int) -> Mapping[str, str] | None:
        """Returns the fields of the head that `data` begins with, by lower-case names, repeated ones joined
        by ", "; None for more than `most`."""
        for place, form in enumerate(self.forms):
            fields = form.read(data)
            if fields is not None:
                self._unknown_in_a_row = 0
                if place:
                    self.forms.insert(0, self.forms.pop(place))
                return fields
        data = data.lstrip(b"\r\n")  # llhttp skips empty lines after an interim head
        lines = data[: data.find(b"\r\n\r\n")].decode("latin-1").split("\r\n")
        if len(lines) > most + 1:
            return None
        pairs = [_field(line) for line in lines[1:]]
        self.unknown += 1
        self._unknown_in_a_row += 1
        if self._unknown_in_a_row <= EAGER_HEADS or self._unknown_in_a_row % EAGER_HEADS == 0:
            self._remember(lines, pairs)
        return joined(pairs)

    def _remember(self, lines: Sequence[str], pairs: _Fields) -> None:
        names = [name for name, _ in pairs]
        changing: Set[str] = frozenset()
        for form in self.forms:
            if form.lines[0] == lines[0] and [_field(line)[0] for line in form.lines[1:]] == names:
                differ = zip(names, lines[1:], form.lines[1:], strict=True)
                changing = form.changing | {name for name, line, last in differ if line != last}
                self.forms.remove(form)
                break
        self.forms.insert(0, _form(lines, pairs, changing))
        del self.forms[MAX_FORMS:]


def _form(lines: Sequence[str], pairs: _Fields, changing: Set[str]) -> _Form:
    gaps = []
    before = lines[0]
    for line, (name, _) in zip(lines[1:], pairs, strict=True):
        before += "\r\n"
        if name in changing:
            gaps.append(((before + line[: line.find(":") + 1]).encode("latin-1"), name))
            before = ""
        else:
            before += line
    rest = f"{before}\r\n\r\n".encode("latin-1")
    constant = {name: value for name, value in joined(pairs).items() if name not in changing}
    return _Form(gaps, rest, constant, lines, changing)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip(" \t")
