"""Edits of JSON texts at one place: a member's value is replaced, a member is added or left out, and all else
stays as it came.

To decode a text, change it and write it anew costs a hundred times as much, and loses how numbers and white
space were written. Here the place is found in the bytes. Why it is the right one, for a text that is JSON
(RFC 8259) and a name of ASCII letters, digits and underscores, whose key is the name in its quotes:

1. A quote that no backslash stands before begins or ends a string, for within strings quotes are escaped. A
   key's bytes begin with such a quote, so they are a whole string: if the quote ended one, letters would
   stand outside of strings.
2. A string with a colon behind it is a name, for values have a comma, a bracket or the end behind them.
3. A name is written in other bytes than its own only with an escape of a letter, digit or underscore:
   `\\u0030` to `\\u007a`. Where there is none in the text and the key's bytes stand in it once, no other
   member has this name.
4. A name belongs to the outermost object where as many braces were closed as opened outside of strings before
   it, but for the first one: names do not stand in arrays.

What has not these signs is None here, and is decoded. Nothing is None where all keys are written plainly and
the name stands in the text once, as the outermost object's.
"""

import re

_WHITE = rb"[ \t\r\n]*"
_STRING = rb'"(?:[^"\\]|\\.)*"'
_OPENED = re.compile(_WHITE + rb"\{").match
_STRING_BEHIND = re.compile(_WHITE + b":" + _WHITE + _STRING, re.DOTALL).match
_FLAT = rb'(?:[^{}"]|' + _STRING + rb")*"
_OBJECT_BEHIND = re.compile(
    _WHITE + b":" + _WHITE + rb"\{(?:[^{}\"]|" + _STRING + rb"|\{" + _FLAT + rb"\})*\}", re.DOTALL
).match
_STRINGS = re.compile(_STRING, re.DOTALL)
_DISGUISED = re.compile(rb"\\u00[3-7]").search


def with_string(text: bytes, key: bytes, value: bytes) -> bytes | None:
    """The object with `value` (JSON) in place of the string that its member `key` (`"name"`, in quotes) has;
    None where that is not plain to see."""
    at = _only(text, key)
    if at < 0 or not _is_own(text, at) or (b"\\u00" in text and _DISGUISED(text)):
        return None
    return _replaced(text, key, at, value)


def with_known_string(text: bytes, key: bytes, value: bytes) -> bytes | None:
    """Like `with_string`, for an object that is known to have this member, and whose names have no escapes:
    if the key occurs once, it is this member's (3)."""
    at = _only(text, key)
    return _replaced(text, key, at, value) if at >= 0 else None


def with_member(text: bytes, member: bytes) -> bytes:
    """The object with one more member (`"name":value`) at its end. It has others, and none of this name; the
    last brace of its text is its own, for behind it is white space only."""
    return text[: text.rindex(b"}")] + b"," + member + b"}"


def without_known_object(text: bytes, key: bytes) -> bytes | None:
    """The object without a member that it is known to have, whose value is an object of two levels at most;
    None where that is not plain to see, or the member is the first: the comma before it goes with it."""
    at = _only(text, key)
    found = _OBJECT_BEHIND(text, at + len(key)) if at >= 0 else None
    if found is None or (b"\\u00" in text and _DISGUISED(text)):
        return None
    before = text[:at].rstrip(b" \t\r\n")
    return before[:-1] + text[found.end() :] if before.endswith(b",") else None


def _only(text: bytes, key: bytes) -> int:
    """Returns the position of these bytes as a whole string (1), if they occur in the text once; else -1."""
    at = text.find(key)
    if at < 1 or text[at - 1] == 0x5C or text.find(key, at + 1) >= 0:
        return -1
    return at


def _replaced(text: bytes, key: bytes, at: int, value: bytes) -> bytes | None:
    found = _STRING_BEHIND(text, at + len(key))  # of a name (2)
    return b"%b%b:%b%b" % (text[:at], key, value, text[found.end() :]) if found else None


def _is_own(text: bytes, at: int) -> bool:
    """Returns whether a name at this place is the outermost object's (4)."""
    opened = _OPENED(text)
    if opened is None:
        return False
    if text.find(b"{", opened.end(), at) < 0:
        return True
    outside = _STRINGS.sub(b"", text[:at])
    return outside.count(b"{") - outside.count(b"}") == 1
