"""Limits under the names that Anthropic's clients know.

Standard: https://platform.claude.com/docs/en/api/rate-limits (response headers): `reset` is a time (RFC 3339)
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from sluice.frontends import Header

_LIMIT = re.compile(r"x-ratelimit-(limit|remaining|reset)-([a-z_]+)").fullmatch


def renamed(pairs: Sequence[Header], now: float) -> Sequence[Header]:
    """Renames an answer's headers; `now` in seconds since the epoch."""
    return [_renamed(name, value, now) for name, value in pairs]


def _renamed(name: str, value: str, now: float) -> Header:
    found = _LIMIT(name)
    if found is None:
        return name, value
    fields, resource = found.groups()
    if fields == "reset":
        value = time_of(now + float(value.removesuffix("s")))
    return f"anthropic-ratelimit-{resource.replace('_', '-')}-{fields}", value


def time_of(seconds: float) -> str:
    """Formats a time since the epoch, in whole seconds, rounded up."""
    return datetime.fromtimestamp(math.ceil(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
