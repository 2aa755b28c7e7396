"""Times in JSON."""

from datetime import UTC, datetime

FIRST, LAST = -62135596800.0, 253402300799.0
"""Seconds since the epoch of the beginning of the year 1 and the end of the year 9999, the limits of RFC 3339
and `datetime`."""


def timestamp(seconds: float) -> str:
    """Returns a time as in RFC 3339, in UTC and to the millisecond: "2026-11-30T09:00:00.000Z". `seconds` are
    since the epoch.

    A store may contain any number: times beyond the limits are shown as the first or last moment, NaN as the
    first.
    """
    seconds = min(max(FIRST, seconds), LAST)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
