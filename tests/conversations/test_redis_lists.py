"""The lists of conversations in Redis: what is stored is listed, so that it can be found to be forgotten."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis.asyncio as client

from sluice.conversations import Retention, Swept, Turn
from sluice.conversations.redis import PAGE, STEP, RedisConversations
from tests.conversations.conftest import Clock, _prefixes
from tests.servers import RedisServer

DAY = 86400.0
Opener = Callable[..., RedisConversations]


@pytest.fixture
async def opened(redis: RedisServer) -> AsyncIterator[Opener]:
    """Opens gateways' stores at one place."""
    prefix, stores = next(_prefixes), list[RedisConversations]()

    def of(**options: Any) -> RedisConversations:
        stores.append(RedisConversations(redis.url, prefix=prefix, timeout=10, **options))
        return stores[-1]

    yield of
    for store in stores:
        await store.close()


async def say(store: RedisConversations, session: str, clock: Clock, tenant: str = "acme") -> str:
    id = await store.open(tenant, session)
    await store.append(tenant, session, id, [Turn("user", "hi", clock())])
    return id


async def listed(store: RedisConversations) -> list[str]:
    found, after = set(), ""
    while True:
        page, after = await store.page(after, 100)
        found |= {one.session for one in page}
        if not after:
            return sorted(found)


def meanwhile(script: Any, before: Callable[[], Awaitable[object]]) -> Any:
    """`script`, which runs once `before` is done."""

    class Late:
        async def each(self, runs: Any) -> Any:
            await before()
            return await script.each(runs)

        async def __call__(self, keys: Any, arguments: Any) -> Any:
            await before()
            return await script(keys, arguments)

    return Late()


async def test_conversations_stay_listed_where_their_age_is_lowered_and_raised_again(
    opened: Opener, clock: Clock
) -> None:
    long, short = (opened(keep=days * DAY, by_tenant=True) for days in (90, 1))
    await say(long, "old", clock)
    clock.now += 10 * DAY
    await say(short, "new", clock)
    await short.newest(9)
    await short.prune()
    assert (await long.newest(9))[1] == 2
    assert await listed(long) == ["new", "old"]
    assert await long.sweep(Retention(conversations=1), clock()) == Swept(1)
    assert await listed(long) == ["new"]
    await say(long, "again", clock)
    clock.now += 10 * DAY
    await short.newest(9)
    assert await long.delete_of("acme") == 2


async def test_conversations_that_have_expired_are_unlisted_in_bounded_steps(
    redis: RedisServer, opened: Opener, clock: Clock
) -> None:
    store = opened(keep=DAY)
    for number in range(STEP + 30):
        await say(store, f"s{number}", clock)
    async with client.Redis(port=redis.port) as server:
        for number in range(0, STEP + 30, 2):
            page, _ = await store.get(await store.open("acme", f"s{number}")) or (None, None)
            assert page is not None
            await server.delete(store._key(page.id.rpartition(".")[2]))
    clock.now += 2 * DAY
    await store.prune()
    await store.prune()
    assert (await store.newest(1))[1] == (STEP + 30) // 2


async def test_a_tenant_is_forgotten_whole_while_conversations_of_others_go(
    opened: Opener, clock: Clock
) -> None:
    store, other = opened(), opened()
    for number in range(PAGE):
        await say(store, f"x{number}", clock, "other")
    for number in range(PAGE):
        await say(store, f"s{number}", clock)
    asking, victims = store._asking, iter(range(PAGE))

    @asynccontextmanager
    async def meanwhile() -> AsyncIterator[Any]:
        """The oldest are deleted, so the places of all behind them change."""
        for _ in range(20):
            await other.delete(await other.open("other", f"x{next(victims)}"))
        async with asking() as raw:
            yield raw

    store._asking = meanwhile  # type: ignore[method-assign]
    assert await store.delete_of("acme") == PAGE
    assert {one for one in await listed(other) if one.startswith("s")} == set()


@pytest.mark.parametrize("way", ["by age", "by number", "by tenant", "by id"])
async def test_a_conversation_that_has_a_turn_while_it_is_deleted_stays_listed(
    way: str, opened: Opener, clock: Clock
) -> None:
    store, other = opened(by_tenant=True), opened(by_tenant=True)
    id = await say(store, "s", clock)
    await say(store, "t", clock)
    clock.now += DAY

    async def turn() -> None:
        await say(other, "s", clock)

    for script in ("_forget", "_unlist"):
        setattr(store, script, meanwhile(getattr(store, script), turn))
    match way:
        case "by age":
            await store.sweep(Retention(age=DAY / 2), clock())
        case "by number":
            await store.sweep(Retention(conversations=1), clock())
        case "by tenant":
            await store.delete_of("acme", "s")
        case _:
            await store.delete(id)
    assert "s" in await listed(other)
    assert len(await other.recent(await other.open("acme", "s"), 9)) > 0
    assert await other.sweep(Retention(conversations=0), clock()) != Swept()
    assert await listed(other) == []


async def test_a_first_turn_that_is_unlisted_before_it_is_stored_is_listed_again(
    opened: Opener, clock: Clock
) -> None:
    store, sweeping = opened(by_tenant=True), opened(by_tenant=True)

    async def sweep() -> None:
        await sweeping.sweep(Retention(conversations=0), clock())
        assert (await sweeping.newest(9))[1] == 0

    store._finish = meanwhile(store._finish, sweep)
    await say(store, "s", clock)
    assert await listed(sweeping) == ["s"]
    assert await sweeping.sweep(Retention(conversations=0), clock()) == Swept(1)


async def test_many_conversations_are_deleted_in_few_round_trips(opened: Opener, clock: Clock) -> None:
    store, trips = opened(by_tenant=True), list[int]()
    for number in range(2 * STEP):
        await say(store, f"s{number}", clock, f"t{number % STEP}")
    asking = store._asking

    def counted() -> Any:
        trips.append(1)
        return asking()

    store._asking = counted  # type: ignore[method-assign]
    assert await store.sweep(Retention(conversations=1), clock()) == Swept(STEP, more=True)
    assert len(trips) == 4
    trips.clear()
    assert await store.sweep(Retention(age=0), clock()) == Swept(STEP, more=True)
    assert len(trips) == 3
    trips.clear()
    for number in range(STEP):
        await say(store, f"s{number}", clock)
    trips.clear()
    assert await store.delete_of("acme") == STEP
    assert len(trips) == 3
