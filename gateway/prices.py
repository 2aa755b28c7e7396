"""What tokens cost: a table of prices by model, and the cost of what a provider reports."""

from collections.abc import Mapping, Sequence

from gateway.config import Price
from gateway.events import Usage

MILLION = 1_000_000


class PriceTable:
    """`prices`: by "upstream/model" or "model", the newest `since` last."""

    def __init__(self, prices: Mapping[str, Sequence[Price]]) -> None:
        self._prices = prices

    def price_of(self, upstream: str, model: str, at: float) -> Price | None:
        """The price that holds at `at` (seconds since the epoch); None where there is none."""
        found = self._prices.get(f"{upstream}/{model}") or self._prices.get(model)
        return found[-1] if found else None


def cost(price: Price, usage: Usage) -> float:
    """US dollars. `cached_input` is part of `input`, `reasoning` of `output`."""
    cached = price.input if price.cached_input is None else price.cached_input
    reasoning = price.output if price.reasoning is None else price.reasoning
    total = (
        (usage.input - usage.cached_input) * price.input
        + usage.cached_input * cached
        + (usage.output - usage.reasoning) * price.output
        + usage.reasoning * reasoning
    )
    return total / MILLION
