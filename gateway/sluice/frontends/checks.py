"""Checks of request bodies that frontends share; their errors name fields and never values."""

import re
from collections.abc import Mapping
from typing import Any

from sluice.errors import BadRequest
from sluice.model.chat import Cache

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest whole number that every JSON parser represents exactly (RFC 8259, section 6)."""

_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")


def refused(param: str, reason: str) -> BadRequest:
    """Returns the error for one field."""
    return BadRequest(f"{param}: {reason}", param=param, details=[{"field": param, "reason": reason}])


def explained(text: str) -> BadRequest:
    """Returns msgspec's message, split into path and reason. Only types and our own names are repeated,
    because other words may hold values.
    """
    found = _PATH.search(text)
    path = found[1] if found else ""
    if missing := _MISSING.match(text):
        return refused(f"{path}.{missing[1]}".lstrip("."), "is required")
    if expected := _EXPECTED.match(text):
        wanted = expected[1].replace("float", "number").replace(" | ", " or ")
        return refused(path or "body", f"must be {wanted}, not {expected[2]}")
    return refused(path or "body", "has a value that is not allowed")


def whole_number(value: float, name: str) -> int:
    """Returns a whole number, however it is written (1024.0 is one). Raises BadRequest for others, and for
    those too large.
    """
    if value != int(value):
        raise refused(name, "must be a whole number")
    if value > MAX_SAFE_INTEGER:
        raise refused(name, f"must be at most {MAX_SAFE_INTEGER}")
    return int(value)


def check_names(found: dict[str, Any], known: frozenset[str], at: str) -> None:
    """Raises BadRequest for a name that differs by case from a known one, or from another one in the same
    object. Go's encoding/json and others read `Model` as `model`, and use the last one."""
    if found.keys() <= known:
        return
    seen = set()
    for name in found.keys() - known:
        folded = name.upper().casefold()  # this covers non-ASCII letters, too: a long s, the Kelvin sign
        if folded in known:
            raise refused(f"{at}{folded}", "must be written exactly so")
        if folded in seen:
            raise refused(at.rstrip(".") or "body", "must not hold names that differ by case alone")
        seen.add(folded)


def cache_of(marker: Any) -> Cache | None:
    """Returns a mark for the prompt cache, `cache_control`; None if it is not an object."""
    return marker if type(marker) is dict else None


def cache_of_breakpoint(part: Mapping[str, Any]) -> Cache | None:
    """Returns OpenAI's mark for the prompt cache at a content part, in Anthropic's form; None if it has none.
    Of its lifetimes (30m, 12h) the longer one is nearest to Anthropic's hour."""
    match part.get("prompt_cache_breakpoint"):
        case {"ttl": "12h"}:
            return {"type": "ephemeral", "ttl": "1h"}
        case dict():
            return {"type": "ephemeral"}
        case _:
            return None
