"""Parses a caller's body as a JSON object, strictly: RFC 8259, UTF-8 only, and nothing that two parsers could
read differently.

Refused beyond the grammar: duplicate keys at any depth (parsers differ in which one counts), NaN and
Infinity, numbers that do not fit a double, integers of thousands of digits, lone surrogates, encodings other
than UTF-8, and excessive nesting. Error messages name the place, and never repeat the input.

The standard library's scanner is the reference, because it alone shows every pair of an object before
duplicate keys are lost. It is slow, and most bodies do not need it: if msgspec's result is encoded to the
same bytes again, the body contained nothing else. For other bodies, the number of keys is compared with the
number of colons that follow a quote: if they are equal, no key is duplicated.
"""

import json
import math
import re
from itertools import accumulate
from typing import Any

import msgspec

from sluice.errors import BadRequest

MAX_DEPTH = 200
"""Maximum depth of arrays and objects. A tool's JSON Schema takes two levels for each of its own."""
MAX_NODES = 100_000
"""Maximum values in one text, including arrays and objects and not counting keys: each becomes a Python
object."""
MAX_DIGITS = 310
"""Maximum characters of an integer that fits a double, with its sign."""
_SMALL = 32 << 10
"""Bytes of a text whose numbers, however they are chosen, are parsed in less than 100 ms."""
_FEW = 1000


def oversized(text: bytes | bytearray) -> str:
    """Returns the bound that this JSON text exceeds: "nests more than 200 arrays and objects", "holds more
    than 100000 values", or "".

    Nothing is parsed: a few searches in C examine what is outside of strings, at some 5 ms per MiB if that is
    much. For bytes that are not JSON the result is arbitrary; the parser refuses them.
    """
    if len(text) <= MAX_DEPTH:
        return ""
    if len(text) <= 2 * MAX_NODES and is_shallow(text):  # a value is at least one byte, and a separator
        return ""
    opened = text.count(b"{") + text.count(b"[")
    if opened <= MAX_DEPTH and opened + text.count(b",") < MAX_NODES:
        return ""
    outside = _outside_of_strings(text)
    if outside is None or outside.count(b"{") + outside.count(b"[") + outside.count(b",") >= MAX_NODES:
        return f"holds more than {MAX_NODES} values"
    return TOO_DEEP if _depth(outside) > MAX_DEPTH else ""


def _depth(outside: bytes) -> int:
    """Returns the depth of arrays and objects within the first 2 * MAX_NODES brackets."""
    steps = memoryview(outside.translate(_STEPS, _NO_BRACKETS)[: 2 * MAX_NODES]).cast("b")
    return max(accumulate(steps), default=0)


def is_shallow(text: bytes | bytearray) -> bool:
    """Returns whether at most MAX_DEPTH arrays and objects begin in this JSON text, so that it cannot be
    deeper."""
    # `replace` finds the byte with memchr, `count` byte by byte: twice as slow for 600 bytes
    objects = len(text) - len(text.replace(b"{", b"", MAX_DEPTH + 1))
    return objects + len(text) - len(text.replace(b"[", b"", MAX_DEPTH + 1)) <= MAX_DEPTH


def _outside_of_strings(text: bytes | bytearray) -> bytes | None:
    """Returns a JSON text without its strings; None if it has more of them than MAX_NODES values can have."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 4 * MAX_NODES:  # a value is two strings at most: its key, and itself
        return None
    return b"".join(text.split(b'"')[::2])


TOO_DEEP = f"nests more than {MAX_DEPTH} arrays and objects"
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""The change of depth by a bracket: 1, or -1 as a signed byte."""
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 150
_TINY = re.compile(rb"[eE]-0*[1-9][0-9]{2}").findall


def slow_numbers(text: bytes | bytearray) -> bool:
    """Returns whether msgspec may block for more than some 50 ms on the numbers of this JSON text.

    It takes 14 microseconds for a number near the smallest double (the standard library takes 1), and time
    that grows with the square of the digits for a long integer.
    """
    if len(text) <= _SMALL or (len(text) <= 2 * MAX_NODES and text.count(b"e-") + text.count(b"E-") <= _FEW):
        return False
    outside = _outside_of_strings(text) or b""
    if _LONG_NUMBER in outside.translate(_DIGITS):
        return True
    return outside.count(b"e-") + outside.count(b"E-") > _FEW and len(_TINY(outside)) > _FEW


_value = msgspec.json.Decoder().decode


def value_of(text: bytes) -> Any:
    """Parses a JSON text with the faster decoder for it. Raises ValueError if it is not JSON, or is deeper
    than MAX_DEPTH."""
    if not is_shallow(text) and _depth(_outside_of_strings(text) or b"") > MAX_DEPTH:
        raise ValueError(TOO_DEEP)
    try:
        return json.loads(text) if slow_numbers(text) else _value(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def parse_object(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in `body`. Raises BadRequest with a reason, whatever the bytes are."""
    value = unambiguous_object(body)
    return checked_object(body) if value is None else value


def checked_object(body: bytes) -> dict[str, Any]:
    """Like `unambiguous_object`, with the standard library's scanner, for a body that cannot be checked
    faster."""
    text = _text(body)
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise BadRequest(f"The body {TOO_DEEP}") from None
    if type(value) is not dict:
        raise BadRequest("The body must be a JSON object")
    if b"\\ud" in body or b"\\uD" in body:
        _check_surrogates(value)
    return value


_fast = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_ODD = (b" :", b"\t:", b"\n:", b"\r:", b"\\ud", b"\\uD", b"\\u00")
"""Bytes that need the standard library's scanner: a colon that does not follow its key directly, a possible
half of a surrogate pair, and escapes that may stand for a quote or a colon."""


def unambiguous_object(body: bytes) -> dict[str, Any] | None:
    """Returns the object if it is certain that it is unambiguous; then none of its names has an escaped
    letter. Otherwise None.

    Raises BadRequest, before anything is parsed, if it is deeper than MAX_DEPTH or has more than MAX_NODES
    values.
    """
    if len(body) > MAX_DEPTH:  # a shorter body cannot be too deep
        if bound := oversized(body):
            raise BadRequest(f"The body {bound}")
        if slow_numbers(body):
            return None
    try:
        value = _fast(body)
        again = _encode(value)
        ordinary = again == body or msgspec.json.format(again, indent=0) == body or _as_many_keys(again, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if ordinary else None


def _as_many_keys(again: bytes, body: bytes) -> bool:
    """Returns whether each colon in both texts belongs to a key, and they have the same number of keys.

    A duplicate key was lost in parsing, and is missing in `again`; nothing can have been added instead
    (`_ODD` excludes that).
    """
    for mark in _ODD:
        if mark in body:
            return False
    return again.count(b'":') == body.count(b'":')


def _text(body: bytes) -> str:
    if not body:
        raise BadRequest("The body is empty")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8 (at byte {error.start})") from None
    text = text.removeprefix(
        "\ufeff"
    )  # a byte order mark may be ignored (RFC 8259 8.1): editors and shells on Windows write it
    if not text:
        raise BadRequest("The body is empty")
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("The body holds an object with the same key twice")
    return found


def _integer(text: str) -> int:
    """Converts a number in Python, so that other threads can run between two long ones.

    Integers that do not fit a double are refused, like other numbers: encoding thousands of digits takes time
    that grows with their square, and all numbers of a body are encoded without a pause.
    """
    if len(text) > MAX_DIGITS:
        raise BadRequest("The body holds an integer with too many digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadRequest("The body holds a number out of range")
    return value


def _no_constant(name: str) -> Any:
    raise BadRequest("NaN and Infinity are not JSON")


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_integer, parse_constant=_no_constant
).decode


def _check_surrogates(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRequest(
            "The body holds a lone surrogate (\\ud800 to \\udfff), which is no character"
        ) from None
