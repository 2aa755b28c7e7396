"""Calls of models without a known price are refused before they take anything."""

from types import SimpleNamespace
from typing import Any

import pytest

from sluice.config.types import Price
from sluice.errors import Forbidden
from sluice.policies.priced import Priced
from sluice.pricing.prices import Dated


def call(*prices: tuple[Dated, ...]) -> Any:
    return SimpleNamespace(route=SimpleNamespace(targets=[SimpleNamespace(prices=one) for one in prices]))


PRICE = Price(input=1.0, output=2.0)


def test_one_target_with_a_price_is_enough() -> None:
    Priced(lambda: 1000.0)(call((), (Dated(0.0, PRICE),)))


@pytest.mark.parametrize(
    "prices", [((),), ((), ()), ((Dated(2000.0, PRICE),),)], ids=["one", "two", "not yet"]
)
def test_without_any_price_at_this_time_the_call_is_refused(prices: tuple[tuple[Dated, ...], ...]) -> None:
    with pytest.raises(Forbidden) as refused:
        Priced(lambda: 1000.0)(call(*prices))
    assert refused.value.code == "price_unknown"
