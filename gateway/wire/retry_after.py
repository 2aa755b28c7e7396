"""How long an upstream asks to be left alone, from the headers of its error answer. Pure: no clock of its own."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

CAP = 60.0
"""Seconds. An upstream that asks for more is asked again after this, or not at all."""

_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{0,20})?\Z")


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from 0 to 60, None where the answer does not say (or says nonsense). Never raises.

    `retry-after-ms` (OpenAI, Azure) goes before `retry-after` (RFC 9110, 10.2.3: seconds or a date). A date is
    measured against the answer's own Date header, so that nobody's clock matters; without one it is ignored.
    Header names are lower case.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, CAP)
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is None:
        seconds = _between(headers.get("date", ""), value)
    return None if seconds is None else min(seconds, CAP)


def _number(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.match(text) else None


def _between(now: str, then: str) -> float | None:
    try:
        seconds = (parsedate_to_datetime(then) - parsedate_to_datetime(now)).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(seconds, 0.0)
