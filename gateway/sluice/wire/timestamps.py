"""Times in JSON."""

from datetime import UTC, datetime

FIRST, LAST = -62135596800.0, 253402300799.0
"""Seconds since the epoch of the years 1 and 9999, which RFC 3339 and `datetime` end at."""


def timestamp(seconds: float) -> str:
    """Returns a time as RFC 3339 has it, in UTC and to the millisecond: "2026-11-30T09:00:00.000Z".

    `seconds` since the epoch. A store may hold anything: what is beyond these years is shown as their first or
    last moment, and what is no number as the first.
    """
    seconds = min(max(FIRST, seconds), LAST)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
