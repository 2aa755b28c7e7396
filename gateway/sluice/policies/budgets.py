"""Budgets by the calendar: US dollars per day, week and month (UTC), as claims on buckets that never refill.

A bucket lives for one period: its key ends in the period's name (2026-11-25, 2026-W48, 2026-11), so a new
period begins with a full one and nothing has to be reset. Weeks are ISO 8601's: from Monday, named after the
year of their Thursday.

The policy sets the amount (`budget_claims` puts it into each claim). It is reserved and settled like any
other limit, on the claims that were taken, even if a new period has begun by then.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal

import msgspec

from sluice.config.types import Budget
from sluice.limits import Claim, Level, Limit

Period = Literal["day", "week", "month"]
PERIODS: tuple[Period, ...] = ("day", "week", "month")
DAY = 86400.0
MARGIN = DAY
"""Seconds for which a bucket is kept after its period's end: calls that began in it are settled on it."""
NO_AMOUNT = 0.0


class BudgetPeriod(msgspec.Struct, frozen=True):
    """One period: from its `first` day on, until before the day `after`. `name` is unique among all
    periods."""

    period: Period
    name: str
    first: date
    after: date

    @property
    def end(self) -> float:
        """Seconds since the epoch."""
        return datetime(self.after.year, self.after.month, self.after.day, tzinfo=UTC).timestamp()


class SoftMark(msgspec.Struct, frozen=True):
    """A budget of which the `share` from its soft mark on is spent or reserved."""

    period: Period
    share: float


def periods(budget: Budget) -> list[Period]:
    """Returns the periods that the budget limits."""
    return [period for period in PERIODS if getattr(budget, period) is not None]


def period_of(period: Period, wall: float) -> BudgetPeriod:
    """The period around the time `wall` (seconds since the epoch)."""
    today = datetime.fromtimestamp(wall, UTC).date()
    match period:
        case "day":
            return BudgetPeriod(period, today.isoformat(), today, today + timedelta(1))
        case "week":
            year, week, weekday = today.isocalendar()
            monday = today - timedelta(weekday - 1)
            return BudgetPeriod(period, f"{year}-W{week:02}", monday, monday + timedelta(7))
        case "month":
            first = today.replace(day=1)
            return BudgetPeriod(period, f"{today:%Y-%m}", first, (first + timedelta(31)).replace(day=1))


def budget_prefix(scope: str, owner: str) -> str:
    """The common prefix of the keys of a budget's buckets: `scope` is "key" (then `owner` is
    `Principal.bucket`) or "tenant"."""
    return f"budget:{scope}:{owner}"


def budget_claims(
    prefix: str,
    budget: Budget,
    wall: float,
    amount: float = NO_AMOUNT,
    *,
    scope: str = "key",
    holder: str = "",
) -> tuple[Claim, ...]:
    """A claim of `amount` US dollars on each of the budget's periods at `wall` (seconds since the epoch):
    day, week, month.

    Take them with all others of the call, behind them. They are in the order that `soft_marks` expects.
    `holder`: the name under which the amount is reserved until it is settled.
    """
    return tuple(
        [
            Claim(key, limit, amount, scope, "budget", expires, holder)
            for key, limit, expires in _buckets(prefix, budget, int(wall // DAY))
        ]
    )


def seconds_left(claim: Claim, wall: float) -> float:
    """Returns the seconds until the period of a budget's claim ends: the Retry-After of a spent budget."""
    return max(0.0, claim.expires - MARGIN - wall)


def soft_marks(budget: Budget, levels: Sequence[Level]) -> list[SoftMark]:
    """The periods whose soft mark is passed. `levels` are those of the claims of `budget_claims`, in their
    order."""
    limits = [(period, dollars) for period in PERIODS if (dollars := getattr(budget, period)) is not None]
    shares = [
        SoftMark(period, 1 - level.remaining / dollars)
        for (period, dollars), level in zip(limits, levels, strict=True)
    ]
    return [mark for mark in shares if mark.share >= budget.soft]


def soft_header(marks: Sequence[SoftMark]) -> str:
    """The value of `x-sluice-budget`: "day 83%, month 91%", rounded down."""
    return ", ".join(f"{mark.period} {int(mark.share * 100 + 1e-9)}%" for mark in marks)


@lru_cache(4096)
def _buckets(prefix: str, budget: Budget, day: int) -> tuple[tuple[str, Limit, float], ...]:
    """Key, limit and expiry of each of a budget's buckets on one day since the epoch (UTC)."""
    found = []
    for period in PERIODS:
        dollars: float | None = getattr(budget, period)
        if dollars is not None:
            span = period_of(period, day * DAY)
            found.append((f"{prefix}:{span.name}", Limit(dollars, 0.0), span.end + MARGIN))
    return tuple(found)
