"""Prices of tokens by model, and the cost of reported usage.

It is read by `sluice.config.price_file`.

Figures are floats of US dollars; sums are kept in whole nano-dollars (`nanos`), so that nothing drifts.
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
"""A model's name that ends in a date, and its family's name before that."""


class Dated(msgspec.Struct, frozen=True):
    """A price, and the seconds since the epoch from which it holds."""

    since: float
    price: Price


Named = Mapping[str, Sequence[Price]]


class PriceList(msgspec.Struct, frozen=True):
    """A file of prices. `snapshots`: a name that ends in a date falls back to its family's."""

    models: Named = {}
    snapshots: bool = False


def no_prices() -> PriceList:
    """A table without a file behind it."""
    return PriceList()


class PriceTable:
    """`own`: prices by "upstream/model" or "model" that stand before those of the file, which is read when it
    is needed."""

    def __init__(self, own: Named, read: Callable[[], PriceList] = no_prices) -> None:
        self._own = own
        self._read = read
        self._listed: PriceList | None = None

    def prices_of(self, upstream: str, model: str) -> tuple[Dated, ...]:
        """All prices of one model of an upstream, the latest first: for `price_at`. Empty where there is
        none.

        Its own name counts before its family's, "upstream/model" before "model", and ours before the file's.
        """
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
        """The price that holds at `at` (seconds since the epoch); None where there is none."""
        return price_at(self.prices_of(upstream, model), at)


def _latest_first(dated: Dated) -> float:
    return -dated.since


def price_at(prices: Sequence[Dated], at: float) -> Price | None:
    """The price (of a list with the latest first) that applies at `at` (seconds since the epoch)."""
    for dated in prices:
        if at >= dated.since:
            return dated.price
    return None


def since_of(text: str | None) -> float:
    """The midnight (UTC) of a date, in seconds since the epoch; None is ever since. Raises ValueError."""
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
    """US dollars. `cached_input` and `written_input` are part of `input`, `reasoning` of `output`; what exceeds
    the whole is paid beside it."""
    if price.long_prompts:
        return _cost(rates_of(price, usage.input), usage)
    return _cost(price, usage)


def rates_of(price: Price, prompt: int) -> Rates:
    """The rates for a call whose prompt has `prompt` tokens."""
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
    """The nearest whole nano-dollars."""
    return round(dollars * BILLION)
