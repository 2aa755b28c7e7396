"""Times in JSON."""

from datetime import UTC, datetime


def timestamp(seconds: float) -> str:
    """Returns a time as RFC 3339 has it, in UTC and to the millisecond: "2026-11-30T09:00:00.000Z".

    `seconds` since the epoch.
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
