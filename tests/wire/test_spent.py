"""Answers that say that nothing remains of a limit."""

import pytest

from sluice.wire.retry_after import MAX_RETRY_AFTER, spent_for

NOW = 1_700_000_000.0
DATE = {"date": "Tue, 14 Nov 2023 22:13:20 GMT"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "60s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30s"}, 90.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms", "x-ratelimit-reset-requests": "9m"}, 0.25),
        (
            {
                "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "7s",
            },
            7.0,
        ),
        ({"x-ratelimit-remaining-requests": "0"}, 0.0),  # Azure names no reset
        ({"x-ratelimit-remaining-tokens-minute": "0.0", "x-ratelimit-reset-tokens-minute": "11.5"}, 11.5),  # Cerebras
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000030000"}, 30.0),  # OpenRouter
        ({"ratelimit-remaining": "0", "ratelimit-reset": "5"}, 5.0),
        (
            {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:50Z"},
            30.0,
        ),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:00Z"},
            0.0,  # it is over already
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "99999d"}, MAX_RETRY_AFTER),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0.0),
        ({"x-ratelimit-remaining-requests": "", "x-ratelimit-reset-requests": "5s"}, None),
        ({"x-ratelimit-remaining-requests": "0 of 5"}, None),
        ({"x-ratelimit-remaining-requests": "00"}, None),
        ({"x-ratelimit-remaining-requests": "0.5"}, None),
        ({"x-balance-remaining": "0"}, None),  # something else
        ({"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-limit-tokens": "-1", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "0"}, None),
        ({"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0"}, None),
        ({"x-ratelimit-limit-tokens": "5000", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "4"}, 4.0),
        ({"x-ratelimit-remaining-requests": "-" + "9" * 5000}, None),
    ],
)  # fmt: skip
def test_the_wait_is_the_one_of_the_limit_that_is_used_up(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert spent_for({**DATE, **headers}, lambda: NOW) == seconds
