"""Finds out how long an upstream asks callers to wait: from headers, from numbers in its body, or from its
words.

The wait is returned as sent, up to `MAX_RETRY_AFTER`; how long the gateway itself waits is decided elsewhere
(`sluice.routing.health`, `sluice.routing.failover`). Points in time are compared with the response's own Date
header, so that no clocks have to agree; without one, with the clock that is passed in.
"""

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_RETRY_AFTER = 31 * 86_400.0
"""Maximum seconds, a month: no provider's quota has a longer period."""

Clock = Callable[[], float]
"""Returns seconds since the epoch."""

_NUMBER = re.compile(r"[0-9]{1,40}(\.[0-9]{0,20})?\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PIECE = (
    r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s?(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)"
    r"(?![a-z])"
)
_DURATION = re.compile(rf"(?:{_PIECE}[\s,]{{0,2}}(?:and\s)?)+\Z")
_PIECES = re.compile(_PIECE)
_IN_WORDS = re.compile(
    r"\b(?:(?:try|retry|again|available|resets?|reset|renews?|back)\b.{0,24}?\b(?:in|after)"
    r"|wait(?: for| at least| about)?|retry[ _-]?after|retrydelay|quotaresetdelay)\b\W{0,4}"
    rf"(?P<wait>(?:{_PIECE}[\s,]{{0,2}}(?:and )?){{1,4}}|[0-9]{{1,7}}(?:\.[0-9]{{1,6}})?(?=\s*(?:$|[.,;)\]\"'](?:\s|$))))"
)
_REMAINS = re.compile(r"(?:x-ratelimit-|anthropic-ratelimit-|ratelimit-|ratelimitbysize-)")
_NONE = re.compile(r"0(?:\.0{0,9})?\s*\Z")
_RESETS = re.compile(
    r"(?:x-ratelimit-reset|x-ratelimit-reset-|anthropic-ratelimit-|ratelimit-reset|ratelimitbysize-)"
)


def parse_retry_after(headers: Mapping[str, str], now: Clock = time.time) -> float | None:
    """Returns seconds from 0 to MAX_RETRY_AFTER; None if the response has no (valid) value. Never raises.

    `retry-after-ms` (OpenAI, Azure) takes precedence over `retry-after` (RFC 9110, 10.2.3: seconds or a
    date). Header names are lower case.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, MAX_RETRY_AFTER)
    value = headers.get("retry-after", "")
    seconds = _number(value)
    if seconds is None and value:
        seconds = _until(_date(value), headers, now)
        if seconds is None:
            seconds = parse_duration(value)
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER)


def parse_reset(headers: Mapping[str, str], now: Clock = time.time) -> float | None:
    """Returns the seconds until the limits that refused a call are refilled, from the headers about them;
    None if there are none.

    `x-ratelimit-reset-*` (OpenAI, Groq: "6m0s"), `x-ratelimit-reset` (OpenRouter: milliseconds since the
    epoch; GitHub: seconds since it), `anthropic-ratelimit-*-reset` (RFC 3339). If some headers report that
    nothing remains, only these count; of several, the one that is refilled last. Header names are lower case.
    """
    waits: list[tuple[bool, float]] = []
    for name, value in headers.items():
        if "reset" in name and _RESETS.match(name):
            seconds = _reset(value, headers, now)
            if seconds is not None:
                waits.append(
                    (headers.get(name.replace("reset", "remaining"), "").strip() in ("0", "0.0"), seconds)
                )
    used_up = [seconds for empty, seconds in waits if empty]
    every = used_up or [seconds for _, seconds in waits]
    return min(max(every), MAX_RETRY_AFTER) if every else None


def spent_for(headers: Mapping[str, str], now: Clock = time.time) -> float | None:
    """Returns the seconds until a limit of which nothing remains is refilled, from the headers of a
    successful response; 0.0 if they do not say when, None if something remains of each limit.

    Negative values mean unknown (Azure sends -1 of -1). `x-ratelimit-remaining-requests: 0` and its `-reset-`
    (OpenAI, Azure, Groq, Cerebras), `anthropic-ratelimit-*`, `ratelimit-remaining`
    (draft-ietf-httpapi-ratelimit-headers-07). Of several the last one counts. Names are lower case.
    """
    spent: float | None = None
    for name, value in headers.items():
        if value[:1] == "0" and "remaining" in name and _REMAINS.match(name) and _NONE.match(value):
            if not _number(headers.get(name.replace("remaining", "limit"), "1")):
                continue  # a limit of 0 or -1 is none
            reset = _reset(headers.get(name.replace("remaining", "reset"), ""), headers, now)
            spent = max(spent or 0.0, min(reset or 0.0, MAX_RETRY_AFTER))
    return spent


def parse_duration(value: Any) -> float | None:
    """Returns the seconds of a duration in JSON: a number, "39s", "1h2m3.5s", "250ms", {"seconds": 3}; None
    for others."""
    match value:
        case bool() | None:
            return None
        case int() | float() if 0 <= value < 1e12:  # false for NaN
            return min(float(value), MAX_RETRY_AFTER)
        case {"seconds": int() | float() | str() as seconds}:
            return parse_duration(seconds)
        case str():
            text = value.strip().lower()[:80]
            number = _number(text)
            if number is not None:
                return min(number, MAX_RETRY_AFTER)
            return min(_sum(text), MAX_RETRY_AFTER) if _DURATION.match(text) else None
        case _:
            return None


def wait_in_words(text: str) -> float | None:
    """Returns the seconds in "try again in 6m0s", "retry after 20 seconds" and the like; None if there is no
    such text."""
    found = _IN_WORDS.search(text[:4000].lower())
    if found is None:
        return None
    text = found["wait"]
    number = _number(text.strip())
    return min(number if number is not None else _sum(text), MAX_RETRY_AFTER)


def _sum(text: str) -> float:
    return round(sum(float(number) * _UNITS[_unit(unit)] for number, unit in _PIECES.findall(text)), 9)


def _unit(name: str) -> str:
    return "ms" if name.startswith(("ms", "milli")) else name[0]


def _number(text: str) -> float | None:
    text = text.strip()
    return float(text) if _NUMBER.match(text) else None


def _reset(value: str, headers: Mapping[str, str], now: Clock) -> float | None:
    number = _number(value)
    if number is None:
        seconds = parse_duration(value)
        return _until(_moment(value), headers, now) if seconds is None else seconds
    if number > 1e11:  # milliseconds since the epoch
        return _until(number / 1000, headers, now)
    return _until(number, headers, now) if number > 1e9 else number


def _until(moment: float | None, headers: Mapping[str, str], now: Clock) -> float | None:
    """Returns the seconds from the response's own date to `moment`, which is in seconds since the epoch."""
    if moment is None:
        return None
    date = _date(headers.get("date", ""))
    return max(moment - (now() if date is None else date), 0.0)


def _date(text: str) -> float | None:
    """Parses an HTTP date (RFC 9110, 5.6.7)."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _moment(text: str) -> float | None:
    """Parses an RFC 3339 date and time."""
    try:
        moment = datetime.fromisoformat(text.strip()[:40])
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
