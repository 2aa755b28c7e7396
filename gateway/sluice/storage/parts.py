"""Parses the parts of addresses: hosts, escapes, options. Pure. Errors quote nothing, because it may be a
password."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from sluice.config.units import Seconds

MAX_TIMEOUT = 60.0
"""Maximum seconds of a timeout."""


def refuse_characters(text: str) -> None:
    for at, character in enumerate(text, 1):
        if character <= " " or character == "\x7f" or not character.isprintable():
            raise ValueError(
                f"character {at}: white space or a control character; in a password write it as %20 and the like"
            )


def decoded_text(text: str, at: int) -> str:
    """Decodes percent escapes; `at` characters precede the text."""
    if stray := re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ValueError(f'character {at + stray.start() + 1}: "%" must be written as %25')
    decoded = unquote(text, errors="surrogateescape")
    if any("\udc80" <= character <= "\udcff" for character in decoded):
        raise ValueError(f"character {at + 1}: its percent escapes are not UTF-8")
    return decoded


def host_of(text: str, port: int, at: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>.*))?", text)
    if found is None:
        raise ValueError(f"character {at + 1}: expected host or host:port (IPv6 in brackets)")
    host = found["six"] or found["name"]
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", host):
        raise ValueError(f"character {at + 1}: not the name of a host (a password ends in @)")
    if found["port"] is None:
        return host, port
    if not re.fullmatch(r"[0-9]{1,5}", found["port"]) or not 0 < int(found["port"]) < 65536:
        raise ValueError(
            f"character {at + found.start('port') + 1}: expected a port from 1 to 65535 (a password ends in @)"
        )
    return host, int(found["port"])


def seconds_of(text: str) -> float:
    seconds = float(Seconds.parse(float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else text))
    if not 0 < seconds <= MAX_TIMEOUT:
        raise ValueError(f"expected more than 0 and at most {MAX_TIMEOUT:g}s")
    return seconds


def flag_of(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("expected true or false")
    return text.lower() == "true"


def some_text(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return text


def options_in(query: str, at: int, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Parses the options of a query; `at` characters precede it."""
    found: dict[str, Any] = {}
    for part in query.split("&") if query else ():
        name, sign, value = part.partition("=")
        if name not in known or not sign:
            raise ValueError(
                f"character {at + 1}: unknown option; there are {', '.join(known)}, each as name=value"
            )
        if name in found:
            raise ValueError(f"character {at + 1}: the option {name} stands there twice")
        decoded = decoded_text(value, at + len(name) + 1)
        try:
            found[name] = known[name](decoded)
        except ValueError as error:
            raise ValueError(f"character {at + len(name) + 2}: {name}: {error}") from None
        at += len(part) + 1
    return found
