"""Budgets over a restart: a store that knows nothing is told what was spent, once; one that knows is left
alone."""

import asyncio

import pytest

from sluice.config.types import Alias, Budget, Config, Key, KeyLimits, Target, Upstream
from sluice.limits import BucketStore, Claim, Limit
from sluice.limits.memory import MemoryStore
from sluice.limits.redis import RedisStore
from sluice.policies.budgets import budget_claims, budget_prefix
from sluice.usage import Figures, Subject, UsageBatch, UsageStore
from sluice.usage.memory import MemoryUsage
from sluice.usage.opening import reopen
from tests.servers import RedisServer

NOON = 4_000_000_000.0  # 2096-10-02T07:06:40Z: what expires then does not expire during the test
DAY = "2096-10-02"
BUDGET = Budget(day=5, month=0.3)
CONFIG = Config(
    upstreams={"up": Upstream(backend="echo")},
    aliases={"chat": Alias(tiers=((Target(upstream="up", model="m"),),))},
    keys=(Key(id="shop", digest="sha256:" + "0" * 64, limits=KeyLimits(budget=BUDGET)),),
)


async def never_refilling() -> bool:
    try:
        await MemoryStore().take([Claim("b", Limit(1.0, 0.0))])
    except ValueError:
        return False
    return True


@pytest.fixture(params=["memory", "redis"])
async def buckets(request: pytest.FixtureRequest) -> BucketStore:
    if not await never_refilling():
        pytest.skip("the bucket stores of this version know no buckets that never refill")
    if request.param == "memory":
        return MemoryStore()
    redis: RedisServer = request.getfixturevalue("redis")
    return RedisStore(redis.url, prefix=request.node.name, timeout=10)


async def usage(dollars: float) -> UsageStore:
    store = MemoryUsage()
    await store.add(
        UsageBatch(
            "w", 1, DAY, [(Subject(DAY, "shop", "t", "chat", "up/m"), Figures(nanos=round(dollars * 1e9)))]
        )
    )
    return store


async def left(buckets: BucketStore) -> list[float]:
    claims = budget_claims(budget_prefix("key", "shop"), BUDGET, NOON)
    return [level.remaining for level in (await buckets.take(claims)).levels]


async def test_a_store_that_knows_nothing_is_charged(buckets: BucketStore) -> None:
    await reopen(buckets, await usage(0.25), CONFIG, NOON)
    assert await left(buckets) == pytest.approx([4.75, 0.05], abs=1e-6)
    await buckets.close()


async def test_what_was_spent_beyond_the_budget_stays_spent(buckets: BucketStore) -> None:
    await reopen(buckets, await usage(0.4), CONFIG, NOON)
    assert await left(buckets) == pytest.approx([4.6, -0.1], abs=1e-6)
    await buckets.close()


async def test_a_store_that_knows_is_left_alone(buckets: BucketStore) -> None:
    await buckets.take(budget_claims(budget_prefix("key", "shop"), BUDGET, NOON, 0.1))
    await reopen(buckets, await usage(0.1), CONFIG, NOON)
    assert await left(buckets) == pytest.approx([4.9, 0.2], abs=1e-6)
    await buckets.close()


async def test_of_many_that_start_at_once_one_charges(buckets: BucketStore) -> None:
    spent = await usage(0.2)
    await asyncio.gather(*(reopen(buckets, spent, CONFIG, NOON) for _ in range(8)))
    await reopen(buckets, spent, CONFIG, NOON)
    assert await left(buckets) == pytest.approx([4.8, 0.1], abs=1e-6)
    await buckets.close()


async def test_where_nothing_was_spent_no_bucket_is_touched(buckets: BucketStore) -> None:
    await reopen(buckets, MemoryUsage(), CONFIG, NOON)
    assert await left(buckets) == pytest.approx([5, 0.3], abs=1e-6)
    await buckets.close()


async def test_budgets_open_with_what_any_store_of_usage_says(store: UsageStore) -> None:
    rows = [(Subject(DAY, "shop", "t", "chat", f"up/{model}"), Figures(nanos=125_000_000)) for model in "ab"]
    await store.add(UsageBatch("w", 1, DAY, rows))
    buckets = MemoryStore()
    await reopen(buckets, store, CONFIG, NOON)
    assert await left(buckets) == pytest.approx([4.75, 0.05], abs=1e-6)
