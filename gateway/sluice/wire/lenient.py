"""JSON whose fields are of another type than they should be, read for what each can be: the second way of
every dialect.

A dialect's chunks are decoded by msgspec into its Structs, which is fast and all or nothing: one field of
another type (PHP's `[]` for an empty object, a number for an id), half a surrogate pair or a NaN anywhere
refuses the whole chunk. What is refused comes here: `parse` reads it as plain values, `fit` makes each field
that the Struct knows what its type asks for, or takes it away, and leaves all others alone. `Halves` puts the
halves of surrogate pairs together that stand in two pieces of one text. `read` does both but for the halves,
and gives the Struct.

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
"""Where an object that stands for a text has it."""
DIGITS = 300
"""Digits of an integer that is worth being exact; a longer one is read as a float."""
MAX_MAGNITUDE = 1 << 63
"""No count, index or number of any dialect is as large."""

Struct = TypeVar("Struct", bound=msgspec.Struct)
_ABSENT: Any = type("_Absent", (), {"__repr__": lambda self: "absent"})()
_Fit = Callable[["FieldFitting", Any], Any]


def parse(data: bytes | bytearray) -> Any:
    """The plain values of a JSON text. Taken beyond the grammar: bytes that are no UTF-8 (U+FFFD in their
    place), a byte order mark, NaN and infinities, control characters in strings. Halves of surrogate pairs
    stay halves.

    Raises ValueError for what is no JSON, and for more values or levels than `sluice.wire.jsontext`
    allows."""
    if bound := oversized(data):
        raise ValueError(bound)
    return _decode(data.decode("utf-8", "replace").strip("\ufeff \t\r\n"))


def parse_again(data: bytes | bytearray) -> Any:
    """The plain values of what a decoder has read already, whose bounds may be wider. Raises
    UpstreamGarbled."""
    try:
        return parse(data)
    except ValueError as error:
        raise UpstreamGarbled(f"The upstream sent what cannot be passed on: it {error}") from None


def value_again(data: bytes) -> Any:
    """Like `parse_again`, by the faster decoder where it reads the text; None if it is not JSON."""
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
    """Returns whether these are all the bytes of a JSON object."""
    try:
        return type(parse(data)) is dict
    except ValueError:
        return False


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= DIGITS else float(text)


_decode = json.JSONDecoder(strict=False, parse_int=_integer).decode


def read(data: bytes | bytearray, struct: type[Struct]) -> tuple[Struct, int]:
    """The Struct that a JSON object is, and how many of its fields were not of their type. Raises ValueError
    for no object."""
    values, odd = fit(parse(data), struct)
    return msgspec.convert(whole_characters(values), struct), odd


def fit(value: Any, struct: type[msgspec.Struct]) -> tuple[dict[str, Any], int]:
    """The object with each field that `struct` has made of its type, or taken away; and how many had to be.

    Raises ValueError for what is no object."""
    if type(value) is not dict:
        raise ValueError("not an object")
    fitting = FieldFitting()
    return fitting.object(value, struct), fitting.odd


class FieldFitting:
    """One object under way; `odd` counts the fields that were not of their type."""

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
        """A list of objects; an object that stands alone is a list of one. Entries that are no objects are
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
        """A text, or a list of parts of one; strings and numbers among them are parts of text."""
        if type(value) is list:
            value = [
                entry if type(entry) is dict else {"type": "text", "text": text_of(entry)} for entry in value
            ]
            return self.list(value, struct)
        return self.list(value, struct) if type(value) is dict else self.text(value)


def text_of(value: Any) -> str | None:
    """The text that a value stands for: itself, a number, an object with a text, or a list of these; None
    where it is none."""
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
    """The integer that a value stands for, below 2**63 either way; None where it is none. Fractions are cut
    off."""
    if type(value) is str:
        try:
            value = float(value) if len(value) <= DIGITS else None
        except ValueError:
            return None
    if type(value) is float:
        value = int(value) if math.isfinite(value) else None
    return value if type(value) is int and -MAX_MAGNITUDE < value < MAX_MAGNITUDE else None


def truth_of(value: Any) -> bool | None:
    """The boolean that a value stands for; None where it is none."""
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
    if not choices:  # a place where a value does not belong
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
    """The value with U+FFFD in place of each half of a surrogate pair that has no other half, in keys,
    too."""
    kind = type(value)
    if kind is str:
        return value if value.isascii() or not _has_half(value) else _paired(value)
    if kind is dict:
        return {whole_characters(key): whole_characters(inner) for key, inner in value.items()}
    if kind is list:
        return [whole_characters(inner) for inner in value]
    return value


def encoded(value: Any) -> bytes:
    """The JSON text of a plain value, whatever its strings and numbers are (NaN becomes null), as we write
    it."""
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
    """The first halves of surrogate pairs that ended a piece of some text, until its next piece comes."""

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending: dict[tuple[Any, ...], str] = {}

    def join(self, text_id: tuple[Any, ...], piece: str) -> str:
        """The next piece of the text `text_id`, in whole characters: without the half it ends in, with the
        one before it."""
        if not piece:
            return piece
        piece = self.pending.pop(text_id, "") + piece
        if "\ud800" <= piece[-1] <= "\udbff":
            self.pending[text_id] = piece[-1]
            piece = piece[:-1]
        return _paired(piece) if _has_half(piece) else piece
