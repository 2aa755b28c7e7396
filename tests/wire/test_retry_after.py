"""Retry-After in all its spellings, and in all the nonsense that is sent."""

import pytest

from gateway.wire.retry_after import parse_retry_after

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "3600"}, 60.0),
        ({"retry-after": "9" * 40}, 60.0),
        ({"retry-after": "9" * 4000}, None),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after-ms": "99999999"}, 60.0),
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
        ({"retry-after": "Wed, 21 Oct 2027 07:27:00 GMT", "date": DATE}, 60.0),
        ({"retry-after": DATE}, None),
        ({"retry-after": DATE, "date": "today"}, None),
        ({"retry-after": "Wed, 99 Oct 2026 99:99:99 GMT", "date": DATE}, None),
        ({"retry-after": "Wed, 21 Oct 99999 07:28:00 GMT", "date": DATE}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": DATE}, None),
    ],
)
def test_reads_what_makes_sense_and_nothing_else(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds
