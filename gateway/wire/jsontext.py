"""A caller's body -> a JSON object, strictly: RFC 8259, UTF-8 only, and nothing that two readers could take differently.

Refused beyond the grammar: duplicate keys at any depth (which one counts is a matter of taste), NaN and Infinity,
numbers that do not fit a double, integers of thousands of digits, lone surrogates, a byte order mark, other encodings than
UTF-8, and nesting that nobody needs. The reasons say where, and never repeat what was sent.

The standard library's scanner is the judge, because it alone shows every pair of an object before keys are lost. Most
bodies need no judge: what msgspec has read of one is written as the same bytes again, so there was nothing else in it. Of
others, what was read has as many keys as there are colons behind quotes, so none is doubled.
"""

import json
import math
from typing import Any

import msgspec

from gateway.errors import BadRequest

MAX_DEPTH = 128
"""Arrays and objects within each other. A tool's JSON Schema takes two for each of its own levels."""


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is. Raises BadRequest with a reason, whatever the bytes are."""
    value = plain_object(body)
    return judged_object(body) if value is None else value


def judged_object(body: bytes) -> dict[str, Any]:
    """The same by the standard library's scanner, for a body that is not plain."""
    text = _text(body)
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON (line {error.lineno}, column {error.colno})") from None
    except ValueError:
        raise BadRequest("The body holds an integer with too many digits") from None
    except RecursionError:
        raise _too_deep() from None
    if type(value) is not dict:
        raise BadRequest("The body must be a JSON object")
    _check_depth(body, value)
    if b"\\ud" in body or b"\\uD" in body:
        _check_surrogates(value)
    return value


_fast = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode
_ODD = (b" :", b"\t:", b"\n:", b"\r:", b"\\ud", b"\\uD", b"\\u00")
"""What needs the judge: a colon that does not stand right behind its key, what may be half a surrogate pair, and what may
be a quote or a colon in disguise."""


def plain_object(body: bytes) -> dict[str, Any] | None:
    """The object, where nothing about it can be doubtful; no letter of its names is written as an escape then."""
    try:
        value = _fast(body)
        again = _encode(value)
        plain = again == body or msgspec.json.format(again, indent=0) == body or _as_many_keys(again, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not plain:
        return None
    _check_depth(body, value)
    return value


def _as_many_keys(again: bytes, body: bytes) -> bool:
    """Whether each colon in both belongs to a key, and they have the same number of them: a doubled key was lost on the way,
    and is missing in the first; no text can have gained what it lacks (`_ODD` sees to that)."""
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
    if text[0] == "\ufeff":
        raise BadRequest("The body must not begin with a byte order mark")
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadRequest("The body holds an object with the same key twice")
    return found


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BadRequest("The body holds a number out of range")
    return value


def _no_constant(name: str) -> Any:
    raise BadRequest("NaN and Infinity are not JSON")


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_float=_number, parse_constant=_no_constant).decode


def _check_depth(body: bytes, value: dict[str, Any]) -> None:
    if len(body.split(b"{", MAX_DEPTH + 1)) + len(body.split(b"[", MAX_DEPTH + 1)) - 2 <= MAX_DEPTH:
        return  # most bodies: then nothing has to be walked. To split is quicker than to count
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _too_deep()


def _check_surrogates(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRequest("The body holds a lone surrogate (\\ud800 to \\udfff), which is no character") from None


def _too_deep() -> BadRequest:
    return BadRequest(f"The body nests more than {MAX_DEPTH} arrays and objects")
