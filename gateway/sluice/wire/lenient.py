"""Reads JSON whose fields have other types than they should: the fallback of every dialect's decoder.

Chunks are decoded by msgspec into a dialect's Structs. That is fast, but one field of another type (PHP's
`[]` for an empty object, a number for an id), half a surrogate pair or a NaN makes it refuse the whole chunk.
Such chunks are read here: `parse` returns plain values; `fit` converts each field that the Struct knows to
its type, or removes it, and leaves all other fields unchanged; `read` does both and returns the Struct.
`Halves` joins halves of surrogate pairs that are in two pieces of one text.

Standard: RFC 8259, 7 and 8.2 (surrogates)
"""

import json
import math
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar, Union

import msgspec

from sluice.errors import UpstreamGarbled
from sluice.wire.jsontext import TOO_DEEP, oversized, value_of
from sluice.wire.separators import without_separators

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
TEXTS = ("text", "content")
"""Members that hold the text of an object that stands in place of a text."""
DIGITS = 300
"""Maximum digits of an exact integer; a longer one is read as a float."""
MAX_MAGNITUDE = 1 << 63
"""A bound that no count, index or number of any dialect reaches."""

Struct = TypeVar("Struct", bound=msgspec.Struct)
_ABSENT: Any = type("_Absent", (), {"__repr__": lambda self: "absent"})()
_Fit = Callable[["FieldFitting", Any], Any]


def parse(data: bytes | bytearray) -> Any:
    """Parses a JSON text into plain values.

    Accepted beyond the grammar: invalid UTF-8 (as U+FFFD), a byte order mark, NaN and infinities, control
    characters in strings. Halves of surrogate pairs stay halves. Raises ValueError if it is not JSON, or has
    more values or levels than `sluice.wire.jsontext` allows.
    """
    if bound := oversized(data):
        raise ValueError(bound)
    return _decode(data.decode("utf-8", "replace").strip("\ufeff \t\r\n"))


def parse_again(data: bytes | bytearray) -> Any:
    """Parses what a decoder with wider bounds has already read. Raises UpstreamGarbled."""
    try:
        return parse(data)
    except ValueError as error:
        raise UpstreamGarbled(f"The upstream sent what cannot be passed on: it {error}") from None


def value_again(data: bytes) -> Any:
    """Like `parse_again`, with the faster decoder if that can read the text; None if it is not JSON."""
    try:
        return value_of(data)
    except ValueError as error:
        too_much = oversized(data) or str(error) == TOO_DEEP
    if too_much:
        return parse_again(data)
    try:
        return parse(data)
    except ValueError:
        return None


def is_object(data: bytes) -> bool:
    """Returns whether these bytes are exactly one JSON object."""
    try:
        return type(parse(data)) is dict
    except ValueError:
        return False


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= DIGITS else float(text)


_decode = json.JSONDecoder(strict=False, parse_int=_integer).decode


def read(data: bytes | bytearray, struct: type[Struct]) -> tuple[Struct, int]:
    """Reads a JSON object into the Struct. Returns it, and the number of fields that had another type. Raises
    ValueError if it is not an object."""
    values, odd = fit(parse(data), struct)
    return msgspec.convert(whole_characters(values), struct), odd


def fit(value: Any, struct: type[msgspec.Struct]) -> tuple[dict[str, Any], int]:
    """Converts each field of `struct` in an object to its type, or removes it. Returns the object, and the
    number of fields that had another type. Raises ValueError if it is not an object."""
    if type(value) is not dict:
        raise ValueError("not an object")
    fitting = FieldFitting()
    return fitting.object(value, struct), fitting.odd


class FieldFitting:
    """Converts one object; `odd` counts the fields that had another type."""

    __slots__ = ("odd",)

    def __init__(self) -> None:
        self.odd = 0

    def object(self, value: dict[str, Any], struct: type[msgspec.Struct]) -> dict[str, Any]:
        fitted = dict(value)
        for name, (takes_none, fitter) in _fields(struct).items():
            if name not in fitted:
                continue
            given = fitted[name]
            if given is None and takes_none:
                continue
            made = fitter(self, given)
            if made is _ABSENT:
                self.odd += 1
                del fitted[name]
            else:
                fitted[name] = made
        return fitted

    def list(self, value: Any, struct: type[msgspec.Struct]) -> Any:
        """Returns a list of objects; a single object becomes a list of one. Entries that are not objects are
        left out."""
        if type(value) is dict and not _fields(struct).keys().isdisjoint(value):
            self.odd += 1
            value = [value]
        if type(value) is not list:
            return _ABSENT
        self.odd += sum(type(entry) is not dict for entry in value)
        return [self.object(entry, struct) for entry in value if type(entry) is dict]

    def text(self, value: Any) -> Any:
        if type(value) is str:
            return value
        text = text_of(value)
        if text is None:
            return _ABSENT
        self.odd += 1
        return text

    def number(self, value: Any) -> Any:
        number = whole_number(value)
        if number is None:
            return _ABSENT
        self.odd += type(value) is not int
        return number

    def parts(self, value: Any, struct: type[msgspec.Struct]) -> Any:
        """Returns a text, or a list of a text's parts; strings and numbers among them become parts of text."""
        if type(value) is list:
            value = [
                entry if type(entry) is dict else {"type": "text", "text": text_of(entry)} for entry in value
            ]
            return self.list(value, struct)
        return self.list(value, struct) if type(value) is dict else self.text(value)


def text_of(value: Any) -> str | None:
    """Returns the text that a value stands for: itself, a number, an object with a text, or a list of these;
    None if it is none of them."""
    match value:
        case str():
            return value
        case bool():
            return None
        case int() | float():
            return str(value)
        case dict():
            inner = next((value[name] for name in TEXTS if name in value), None)
            return text_of(inner) if type(inner) is not dict else None
        case list():
            texts = [text for entry in value if (text := text_of(entry)) is not None]
            return "".join(texts) if texts else None
        case _:
            return None


def whole_number(value: Any) -> int | None:
    """Returns the integer that a value stands for, between -2**63 and 2**63; None if it is none. Fractions
    are cut off."""
    if type(value) is str:
        try:
            value = float(value) if len(value) <= DIGITS else None
        except ValueError:
            return None
    if type(value) is float:
        value = int(value) if math.isfinite(value) else None
    return value if type(value) is int and -MAX_MAGNITUDE < value < MAX_MAGNITUDE else None


def truth_of(value: Any) -> bool | None:
    """Returns the boolean that a value stands for; None if it is none."""
    match value:
        case bool():
            return value
        case 0 | 1:
            return bool(value)
        case str(word) if word.lower() in ("true", "false"):
            return word.lower() == "true"
        case _:
            return None


@lru_cache(maxsize=256)
def _fields(struct: type[msgspec.Struct]) -> dict[str, tuple[bool, _Fit]]:
    """Returns for each field of a Struct whether it may be null, and the function that converts a value to
    its type."""
    hints = typing.get_type_hints(struct)
    return {name: _fitter(hints[name]) for name in struct.__struct_fields__}


def _fitter(hint: Any) -> tuple[bool, _Fit]:
    choices = set(typing.get_args(hint)) if typing.get_origin(hint) in (Union, types.UnionType) else {hint}
    takes_none = type(None) in choices or Any in choices
    choices.discard(type(None))
    lists = [choice for choice in choices if typing.get_origin(choice) is list]
    if not choices:  # a value is not expected here
        return takes_none, lambda fitting, value: _ABSENT
    if Any in choices:
        return takes_none, lambda fitting, value: value
    if msgspec.Raw in choices:
        return takes_none, lambda fitting, value: msgspec.Raw(encoded(value))
    if lists:
        (entry,) = typing.get_args(lists[0])
        if str in choices:
            return takes_none, lambda fitting, value: fitting.parts(value, entry)
        return takes_none, lambda fitting, value: fitting.list(value, entry)
    (only,) = choices
    if only is str:
        return takes_none, FieldFitting.text
    if only is int:
        return takes_none, FieldFitting.number
    if only is bool:
        return takes_none, _boolean
    return takes_none, lambda fitting, value: fitting.object(value, only) if type(value) is dict else _ABSENT


def _boolean(fitting: FieldFitting, value: Any) -> Any:
    truth = truth_of(value)
    if truth is None:
        return _ABSENT
    fitting.odd += type(value) is not bool
    return truth


# surrogates


def whole_characters(value: Any) -> Any:
    """Returns the value with U+FFFD in place of each unpaired half of a surrogate pair, in keys too."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() or not _has_half(value) else _paired(value)
    if kind is dict:
        return {whole_characters(key): whole_characters(inner) for key, inner in value.items()}
    if kind is list:
        return [whole_characters(inner) for inner in value]
    return value


def encoded(value: Any) -> bytes:
    """Returns the JSON text of plain values, whatever their strings and numbers are (NaN becomes null)."""
    try:
        text = msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError):
        text = json.dumps(
            _finite(whole_characters(value)), ensure_ascii=False, separators=(",", ":")
        ).encode()
    return without_separators(text)


def _finite(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _finite(inner) for key, inner in value.items()}
    if kind is list:
        return [_finite(inner) for inner in value]
    return None if kind is float and not math.isfinite(value) else value


def _has_half(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _paired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class Halves:
    """The first halves of surrogate pairs that ended a piece of a text, until the next piece of the text
    arrives."""

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: dict[tuple[Any, ...], str] = {}

    def join(self, text_id: tuple[Any, ...], piece: str) -> str:
        """Returns the next piece of the text `text_id` in whole characters: preceded by the half of the piece
        before, and without a half at its end."""
        if not piece:
            return piece
        piece = self.pending.pop(text_id, "") + piece
        if "\ud800" <= piece[-1] <= "\udbff":
            self.pending[text_id] = piece[-1]
            piece = piece[:-1]
        return _paired(piece) if _has_half(piece) else piece
