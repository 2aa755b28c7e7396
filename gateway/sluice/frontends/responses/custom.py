"""Extracts the input of a custom tool's call from the arguments in which another vendor's model wrote it:
{"input": "…"}.

It is written as it arrives: only the string in the JSON text is forwarded, with its escapes resolved.
Arguments of another form are collected and written at their end: the only text in them, or else all of them.
"""

import re
from typing import Any

from sluice.wire.lenient import parse, whole_characters

_OPENING = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_WHOLE = re.compile(rf'(?:[^"\\]|{_PAIR}|\\u(?![dD][89abAB])[0-9a-fA-F]{{4}}|\\[^u])*', re.DOTALL)
"""The longest safe prefix of a string: without part of an escape, or half of a surrogate pair."""
_MAX_OPENING_LENGTH = 64


class InputText:
    """Takes pieces of arguments, and returns pieces of the input."""

    __slots__ = ("_ended", "_other", "_rest", "_within")

    def __init__(self) -> None:
        self._rest = ""
        self._within = False
        self._ended = False
        self._other: list[str] | None = None  # arguments of another form

    def feed(self, piece: str) -> str:
        """Returns the text that `piece` adds to the input; "": nothing yet."""
        if self._other is not None:
            self._other.append(piece)
            return ""
        if self._ended:
            return ""
        self._rest += piece
        if not self._within:
            return self._open()
        return self._string()

    def close(self) -> str:
        """Returns the rest of the input, at the end of the arguments."""
        if self._within:
            rest, self._rest = self._rest, ""
            return "" if self._ended or not rest else _decoded(rest.rstrip("\\"))
        return _text_of("".join([self._rest, *(self._other or ())]))

    def _open(self) -> str:
        found = _OPENING.match(self._rest)
        if found is None:
            if len(self._rest) > _MAX_OPENING_LENGTH:
                self._other = [self._rest]
                self._rest = ""
            return ""
        self._within = True
        self._rest = self._rest[found.end() :]
        return self._string()

    def _string(self) -> str:
        found = _WHOLE.match(self._rest)
        text = found.group() if found else ""
        self._rest = self._rest[len(text) :]
        self._ended = self._rest.startswith('"')
        return _decoded(text) if "\\" in text else text


def _decoded(text: str) -> str:
    try:
        value: Any = whole_characters(parse(f'"{text}"'.encode("utf-8", "surrogatepass")))
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _text_of(arguments: str) -> str:
    try:
        value = parse(arguments.encode("utf-8", "surrogatepass"))
    except ValueError:
        return arguments
    match value:
        case str(text):
            return text
        case {"input": str(text)}:
            return text
        case dict() if len(value) == 1 and isinstance(only := next(iter(value.values())), str):
            return only
        case dict() if not value:
            return ""
        case _:
            return arguments
