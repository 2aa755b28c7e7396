"""Edits one place of a JSON text: replaces a member's value, adds a member or removes one. The rest of the
text stays as it is.

Decoding a text, changing it and encoding it again costs a hundred times as much, and loses how numbers and
white space were written. Here the place is found in the bytes. The following shows that it is the right
place, for a text that is JSON (RFC 8259) and a name of ASCII letters, digits and underscores, whose key is
the name in quotes:

1. A quote without a backslash before it begins or ends a string, because quotes within strings are escaped.
The bytes of a key begin with such a quote, so they are a whole string: if the quote ended a string, letters
would stand outside of strings.

2. A string followed by a colon is a name, because values are followed by a comma, a bracket or the end.

3. A name can only be written in other bytes with an escape of a letter, digit or underscore: `\u0030` to
`\u007a`. If the text has no such escape and the key's bytes occur once, no other member has this name.

4. A name belongs to the outermost object if, outside of strings before it, as many braces were closed as
opened, except for the first one: there are no names in arrays.

Where this cannot be shown, the functions return None, and the caller decodes the text. They never return None
if all keys are written without escapes and the name occurs once, as a member of the outermost object.
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
    """Returns the object with `value` (JSON) in place of the string that its member `key` (`"name"`, in
    quotes) has; None if the place cannot be found safely."""
    at = _only(text, key)
    if at < 0 or not _is_own(text, at) or (b"\\u00" in text and _DISGUISED(text)):
        return None
    return _replaced(text, key, at, value)


def with_known_string(text: bytes, key: bytes, value: bytes) -> bytes | None:
    """Like `with_string`, for an object that certainly has this member, and whose names have no escapes: if
    the key occurs once, it is this member's (3)."""
    at = _only(text, key)
    return _replaced(text, key, at, value) if at >= 0 else None


def with_member(text: bytes, member: bytes) -> bytes:
    """Returns the object with one more member (`"name":value`) at its end.

    The object must have other members, and none of this name. The last brace of the text is the object's own,
    because only white space follows it.
    """
    return text[: text.rindex(b"}")] + b"," + member + b"}"


def without_known_object(text: bytes, key: bytes) -> bytes | None:
    """Returns the object without a member that it certainly has, whose value is an object of at most two
    levels.

    None if the place cannot be found safely, or the member is the first one: the comma before it is removed
    with it.
    """
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
    """Returns whether the name at this position belongs to the outermost object (4)."""
    opened = _OPENED(text)
    if opened is None:
        return False
    if text.find(b"{", opened.end(), at) < 0:
        return True
    outside = _STRINGS.sub(b"", text[:at])
    return outside.count(b"{") - outside.count(b"}") == 1
