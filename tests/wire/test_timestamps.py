"""Times in JSON."""

import math

import pytest

from sluice.wire.timestamps import FIRST, LAST, timestamp


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_764_493_200.1239, "2025-11-30T09:00:00.123Z"),
        (FIRST, "0001-01-01T00:00:00.000Z"),
        (LAST, "9999-12-31T23:59:59.000Z"),
        (math.inf, "9999-12-31T23:59:59.000Z"),
        (-math.inf, "0001-01-01T00:00:00.000Z"),
        (1e300, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_times_are_rfc_3339_and_within_its_years(seconds: float, text: str) -> None:
    assert timestamp(seconds) == text


def test_what_is_no_number_is_a_time_all_the_same() -> None:
    assert timestamp(math.nan) == "0001-01-01T00:00:00.000Z"
