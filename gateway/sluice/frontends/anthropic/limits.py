"""Limits under the names that Anthropic's clients know.

Standard: https://platform.claude.com/docs/en/api/rate-limits (response headers): `reset` is a time (RFC 3339)
"""

import math
import time
from collections.abc import Sequence
from functools import lru_cache

from sluice.frontends import Header

_LIMITS = "x-ratelimit-"


def renamed(pairs: Sequence[Header], now: float) -> Sequence[Header]:
    """Renames an answer's headers; `now` in seconds since the epoch."""
    found = []
    for name, value in pairs:
        new, is_time = _named(name)
        found.append((new, time_of(math.ceil(now + float(value.removesuffix("s")))) if is_time else value))
    return found


@lru_cache(maxsize=256)
def _named(name: str) -> tuple[str, bool]:
    """Returns a header's name here, and whether it says when a limit is reset. Limits are
    `x-ratelimit-FIELD-RESOURCE`."""
    if not name.startswith(_LIMITS):
        return name, False
    field, _, resource = name.removeprefix(_LIMITS).partition("-")
    return f"anthropic-ratelimit-{resource.replace('_', '-')}-{field}", field == "reset"


@lru_cache(maxsize=64)
def time_of(seconds: int) -> str:
    """Formats a time in seconds since the epoch."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
