"""What a provider says it used is believed within bounds, whatever type it comes in."""

import math
from typing import Any

import pytest

from sluice.config.types import MAX_PRICE, Price
from sluice.model.events import MAX_TOKENS, Usage, believed
from sluice.pricing.prices import cost, nanos
from sluice.usage import MAX_EXACT
from sluice_plugins.anthropic import event as anthropic_event

FIELDS = ("input", "output", "cached_input", "reasoning")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "count",
    [
        -1,
        MAX_TOKENS + 1,
        2**63,
        10**400,
        -(10**400),
        12.5,
        -1.0,
        1e308,
        math.inf,
        -math.inf,
        math.nan,
        "12",
        b"1",
        None,
        True,
        [],
    ],
    ids=lambda count: repr(count)[:12],
)
def test_a_count_that_is_no_whole_number_in_bounds_is_not_believed(field: str, count: Any) -> None:
    assert believed(Usage(**{field: count})) is None


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    ("count", "whole"), [(0, 0), (1, 1), (MAX_TOKENS, MAX_TOKENS), (12.0, 12), (-0.0, 0), (1e9, 10**9)]
)
def test_a_whole_number_in_bounds_is_believed_in_any_type(field: str, count: Any, whole: int) -> None:
    found = believed(Usage(**{field: count}))
    assert found is not None
    assert getattr(found, field) == whole
    assert type(getattr(found, field)) is int


def test_what_is_believed_already_is_passed_on_as_it_is() -> None:
    usage = Usage(1, 2, 3, 4)
    assert believed(usage) is usage


def test_what_the_largest_usage_costs_at_the_largest_price_is_a_finite_number() -> None:
    dearest = float(MAX_PRICE)
    price = Price(dearest, dearest, dearest, dearest)
    dollars = cost(price, Usage(MAX_TOKENS, MAX_TOKENS, MAX_TOKENS, MAX_TOKENS))
    assert math.isfinite(dollars)
    assert nanos(dollars) < 2**63
    assert nanos(cost(Price(1000.0, 1000.0), Usage(MAX_TOKENS, MAX_TOKENS))) < MAX_EXACT


@pytest.mark.parametrize("name", ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"])
def test_a_part_of_anthropic_s_input_below_zero_makes_no_sum_that_is_believed(name: str) -> None:
    reported = anthropic_event.ReportedUsage(
        **{"input_tokens": 10, "cache_read_input_tokens": 20, "output_tokens": 1, name: -5}
    )
    assert believed(anthropic_event.usage_of(reported)) is None
