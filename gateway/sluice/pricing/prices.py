"""Prices of tokens by model, and the cost of reported usage. `sluice.config.price_file` reads the tables.

Figures are floats of US dollars; sums are kept in whole nano-dollars (`nanos`), so that rounding errors do
not add up.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime

import msgspec

from sluice.config.types import LongPrompt, Price, Rates
from sluice.model.events import Usage

MILLION = 1_000_000
BILLION = 1_000_000_000
SNAPSHOT = re.compile(r"(.+)-(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8})")
"""Splits a model's name that ends in a date: the family's name before the date."""


class Dated(msgspec.Struct, frozen=True):
    """A price, and the time from which it applies, in seconds since the epoch."""

    since: float
    price: Price


Named = Mapping[str, Sequence[Price]]


class PriceList(msgspec.Struct, frozen=True):
    """A file of prices. `snapshots`: a model whose name ends in a date has its family's price, if it has none
    itself."""

    models: Named = {}
    snapshots: bool = False


def no_prices() -> PriceList:
    """A table that is not in a file."""
    return PriceList()


class PriceTable:
    """The prices of one configuration. `own`: prices by "upstream/model" or "model" that take precedence over
    those of the file, which is read when it is needed."""

    def __init__(self, own: Named, read: Callable[[], PriceList] = no_prices) -> None:
        self._own = own
        self._read = read
        self._listed: PriceList | None = None

    def prices_of(self, upstream: str, model: str) -> tuple[Dated, ...]:
        """Returns all prices of one model of an upstream, the latest first, for `price_at`; empty if there is
        none. Its own name takes precedence over its family's, "upstream/model" over "model", and the
        configuration's prices over the file's."""
        if self._listed is None:
            self._listed = self._read()
        names = [model]
        if self._listed.snapshots and (snapshot := SNAPSHOT.fullmatch(model)):
            names.append(snapshot[1])
        for name in names:
            for prices in (self._own, self._listed.models):
                found = prices.get(f"{upstream}/{name}") or prices.get(name)
                if found:
                    return tuple(
                        sorted((Dated(since_of(price.since), price) for price in found), key=_latest_first)
                    )
        return ()

    def price_of(self, upstream: str, model: str, at: float) -> Price | None:
        """Returns the price that applies at `at` (seconds since the epoch); None if there is none."""
        return price_at(self.prices_of(upstream, model), at)


def _latest_first(dated: Dated) -> float:
    return -dated.since


def price_at(prices: Sequence[Dated], at: float) -> Price | None:
    """Returns the price (of a list with the latest first) that applies at `at` (seconds since the epoch)."""
    for dated in prices:
        if at >= dated.since:
            return dated.price
    return None


def since_of(text: str | None) -> float:
    """Returns the midnight (UTC) of a date, in seconds since the epoch; None means from the beginning. Raises
    ValueError."""
    if text is None:
        return float("-inf")
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("expected a date such as 2026-11-30")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError("there is no such day") from None
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()


def cost(price: Price, usage: Usage) -> float:
    """Returns US dollars. `cached_input` and `written_input` are part of `input`, `reasoning` of `output`;
    tokens in excess of the whole are charged in addition."""
    if price.long_prompts:
        return _cost(rates_of(price, usage.input), usage)
    return _cost(price, usage)


def rates_of(price: Price, prompt: int) -> Rates:
    """Returns the rates for a call whose prompt has `prompt` tokens."""
    exceeded = [rates for rates in price.long_prompts if prompt > rates.above]
    return max(exceeded, key=_above) if exceeded else price


def _above(rates: LongPrompt) -> int:
    return rates.above


def _cost(price: Rates, usage: Usage) -> float:
    cached, written, reasoned = usage.cached_input, usage.written_input, usage.reasoning
    fresh, said = usage.input - cached - written, usage.output - reasoned
    total = (fresh if fresh > 0 else 0) * price.input + (said if said > 0 else 0) * price.output
    if cached:
        total += cached * (price.input if price.cached_input is None else price.cached_input)
    if written:
        rate = price.input if price.written_input is None else price.written_input
        total += written * rate
        if usage.written_input_1h and price.written_input_1h is not None:
            total += min(usage.written_input_1h, written) * (price.written_input_1h - rate)
    if reasoned:
        total += reasoned * (price.output if price.reasoning is None else price.reasoning)
    return total / MILLION


def nanos(dollars: float) -> int:
    """Returns the nearest whole number of nano-dollars."""
    return round(dollars * BILLION)
