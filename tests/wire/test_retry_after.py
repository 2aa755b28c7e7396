"""Retry-After in all its spellings, and in all the nonsense that is sent."""

import pytest

from sluice.wire.retry_after import MAX_RETRY_AFTER, parse_duration, parse_reset, parse_retry_after

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
NOW = 1792567680.0 - 28


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "3600"}, 3600.0),
        ({"retry-after": "9" * 40}, MAX_RETRY_AFTER),
        ({"retry-after": "9" * 4000}, None),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "99999999"}, 99999.999),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e3"}, None),
        ({"retry-after": "٣"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2027 07:27:00 GMT", "date": DATE}, MAX_RETRY_AFTER),
        ({"retry-after": DATE}, 28.0),
        ({"retry-after": DATE, "date": "today"}, 28.0),
        ({"retry-after": "Wed, 99 Oct 2026 99:99:99 GMT", "date": DATE}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT", "date": DATE}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": DATE}, 30.0),
    ],
)
def test_reads_what_makes_sense_and_nothing_else(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, lambda: NOW) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3, 3.0), (2.5, 2.5), ("39s", 39.0), ("0.5s", 0.5), ("1h2m3.5s", 3723.5), ("250ms", 0.25), ("135h9m46s", 486586.0),
        ("5 minutes", 300.0), ({"seconds": 34, "nanos": 7}, 34.0), (None, None), (True, None), (-1, None), (float("nan"), None),
        (float("inf"), None), ("", None), ("soon", None), ("5 apples", None), ([], None), ({}, None),
        ("9" * 12 + "d", MAX_RETRY_AFTER), ("1" * 4000, None),
    ],
)  # fmt: skip
def test_reads_a_duration(value: object, seconds: float | None) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            1.0,
        ),
        ({"x-ratelimit-reset": "1792567710000"}, 2.0),
        ({"x-ratelimit-reset": "1792567718"}, 10.0),
        ({"x-ratelimit-reset": "1792560000"}, 0.0),
        ({"anthropic-ratelimit-unified-reset": "1792567768"}, 60.0),
        ({"anthropic-ratelimit-requests-reset": "2026-10-21T07:29:00Z", "date": DATE}, 60.0),
        ({"x-ratelimit-reset": "never", "x-other-reset": "5"}, None),
        ({}, None),
    ],
)
def test_reads_when_the_limits_are_filled_up_again(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_reset(headers, lambda: 1792567708.0) == seconds
