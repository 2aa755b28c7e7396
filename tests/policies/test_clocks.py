"""A wall clock that jumps, by hours, days and over the ends of periods, under all that policies count."""

import pytest

from sluice.config.types import Budget, KeyLimits, Limit, Limits, Rate
from sluice.errors import RateLimited
from sluice.limits.memory import MemoryStore
from sluice.model.events import Usage
from sluice.policies.budgets import budget_claims, budget_prefix
from sluice.policies.limits import Limiter
from sluice.proxy.attempt import Attempt
from tests.policies.calls import Desk
from tests.proxy.scripts import Scene

DAY = 86_400.0
NOON = 1_795_608_000.0  # 2026-11-25T12:00:00Z, a Wednesday
JUMPS = [-40 * DAY, -DAY, -3_600.0, 3_600.0, DAY, 40 * DAY, 4_000 * DAY]


def attempt(dollars: float) -> Attempt:
    return Attempt(Scene([]).targets[0], 0.0, used=Usage(1, 1), cost=dollars)


class Host(Desk):
    """A desk whose wall clock may jump; `there` is the clock of a store that has one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.wall = self.there = NOON
        self.store = MemoryStore(self.clock, wall=lambda: self.wall)
        self.limiter = Limiter(
            self.store,
            Limits(address=None),
            {},
            {},
            count=lambda *labels: self.metrics.child("ratelimit_decisions", *labels),
            soft=lambda *labels: self.metrics.child("budget_soft", *labels),
            clock=self.clock,
            wall=lambda: self.wall,
            calendar=lambda: self.there,
        )

    async def spend(self, key: KeyLimits, dollars: float) -> None:
        call = self.call(key)
        admission = await self.enter(call)
        call.attempts.append(attempt(dollars))
        await self.leave(admission)

    async def refused(self, key: KeyLimits) -> float:
        """The seconds after which the next call is told to come back."""
        with pytest.raises(RateLimited) as caught:
            await self.enter(self.call(key))
        return caught.value.retry_after


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_rate_knows_no_wall_clock(jump: float) -> None:
    host = Host()
    key = KeyLimits(requests=Limit(rate=Rate(0.1), burst=1), streams=9)
    await host.enter(host.call(key))
    host.wall = host.there = NOON + jump
    assert await host.refused(key) == pytest.approx(10)
    host.now += 10
    await host.enter(host.call(key))


@pytest.mark.parametrize("jump", JUMPS)
async def test_what_was_spent_is_spent_when_the_clock_is_set_right(jump: float) -> None:
    host = Host()
    key = KeyLimits(budget=Budget(day=10))
    await host.spend(key, 11)
    host.wall = host.there = NOON + jump
    if abs(jump) >= DAY:
        await host.spend(key, 11)  # another day, and that is what the clock says
    wait = await host.refused(key)
    assert 0 < wait <= DAY
    for number in range(100):  # others come, and make the store look for what it can forget
        await host.enter(
            host.call(KeyLimits(requests=Limit(rate=Rate(1), burst=1), streams=9), name=f"k{number}")
        )
    host.wall = host.there = NOON
    assert await host.refused(key) == 0.5 * DAY


@pytest.mark.parametrize("jump", JUMPS)
async def test_the_stores_clock_says_which_period_it_is(jump: float) -> None:
    host = Host()
    key = KeyLimits(budget=Budget(month=10))
    host.wall += jump
    await host.spend(key, 11)
    assert await host.refused(key) == 5.5 * DAY
    host.wall = NOON
    assert await host.refused(key) == 5.5 * DAY


async def test_a_call_over_a_jump_is_settled_where_it_began() -> None:
    host = Host()
    key = KeyLimits(budget=Budget(month=1000))
    call = host.call(key)
    admission = await host.enter(call)
    call.attempts.append(attempt(10))
    host.wall = host.there = NOON + 40 * DAY
    await host.leave(admission)
    host.wall = host.there = NOON
    [claim] = budget_claims(budget_prefix("key", "k"), Budget(month=1000), NOON)
    [balance] = await host.store.balances([claim])
    assert (balance.spent, balance.reserved) == (pytest.approx(10), 0)
