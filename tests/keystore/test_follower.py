"""Following a store: what one process changes all know, whatever becomes of the store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from sluice.errors import Unavailable
from sluice.keystore import PAGE, KeyStore
from sluice.keystore.follower import Follower
from sluice.keystore.memory import MemoryKeys
from sluice.keystore.redis import RedisKeys
from sluice.keystore.table import KeyTable
from sluice.storage import Reason
from tests.keystore.keys import stored
from tests.servers import RedisServer

Open = Callable[[], KeyStore]
HANG = 20
"""Seconds after which a test gives up."""


class Process(Follower):
    """A follower that looks when the test says so."""

    def __init__(self, store: KeyStore) -> None:
        self.reasons: list[Reason] = []
        self.successes = 0
        super().__init__(store, KeyTable(), failed=self.reasons.append, succeeded=self._succeed)

    def _succeed(self) -> None:
        self.successes += 1

    def known(self) -> dict[str, bool]:
        """The ids, and whether each key is enabled."""
        return {entry.id: entry.key is not None and entry.key.enabled for entry in self.table.entries}

    def revision(self, id: str) -> int:
        entry = self.table.get(id)
        return entry.revision if entry is not None else 0


async def test_what_one_process_changes_the_others_know_after_the_next_look(opened: Open) -> None:
    one, two = Process(opened()), Process(opened())
    assert await one.put(stored("a"), 0)
    assert await one.put(stored("b"), 0)
    assert one.known() == {"a": True, "b": True}
    await two.follow()
    assert two.known() == one.known()
    assert await two.put(stored("a", enabled=False), two.revision("a"))
    assert await two.delete("b", two.revision("b"))
    assert two.known() == {"a": False}
    await one.follow()
    assert one.known() == {"a": False}


async def test_a_change_of_what_another_has_changed_is_refused_and_known_by_then(opened: Open) -> None:
    one, two = Process(opened()), Process(opened())
    await one.put(stored("a"), 0)
    await two.follow()
    assert await one.put(stored("a", enabled=False), one.revision("a"))
    assert not await two.put(stored("a"), two.revision("a"))
    assert two.known() == {"a": False}
    assert await one.delete("a", one.revision("a"))
    assert not await two.delete("a", two.revision("a"))
    assert two.known() == {}
    assert not await two.put(stored("a"), 7)


async def test_what_is_deleted_and_made_again_between_two_looks_is_the_new_one(opened: Open) -> None:
    one, two = Process(opened()), Process(opened())
    await one.put(stored("a"), 0)
    await two.follow()
    await one.delete("a", one.revision("a"))
    await one.put(stored("a", tenant="new"), 0)
    await two.follow()
    entry = two.table.get("a")
    assert entry is not None
    assert entry.key is not None
    assert entry.key.tenant == "new"


async def test_a_look_that_changes_are_made_during_undoes_none(opened: Open) -> None:
    one, two = Process(opened()), Process(opened())
    for number in range(20):
        await one.put(stored(f"k{number}"), 0)
    await two.follow()

    async def change(process: Process, number: int) -> None:
        id = f"k{number}"
        if number % 3 == 0:
            assert await process.delete(id, process.revision(id))
            assert id not in process.known()
        else:
            assert await process.put(stored(id, enabled=False), process.revision(id))
            assert process.known()[id] is False

    changes = [change((one, two)[number % 2], number) for number in range(20)]
    await asyncio.gather(*changes, *(process.follow() for process in (one, two) * 10))
    await asyncio.gather(one.follow(), two.follow())
    expected = {f"k{number}": False for number in range(20) if number % 3}
    assert (one.known(), two.known()) == (expected, expected)


async def test_more_than_a_page_is_all_read() -> None:
    store = MemoryKeys()
    for number in range(PAGE + 10):
        await store.put(stored(f"k{number}"), 0)
    process = Process(store)
    await process.follow()
    assert len(process.table) == PAGE + 10


async def test_a_started_follower_looks_again_and_again(opened: Open) -> None:
    looks: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def sleep(seconds: float) -> None:
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        looks.put_nowait(until)
        await until

    one = Process(opened())
    two = Follower(opened(), KeyTable(), sleep=sleep)
    async with asyncio.timeout(HANG):
        await two.start()
        for id in "abc":
            await one.put(stored(id), 0)
            (await looks.get()).set_result(None)
            next_look = await looks.get()
            assert two.table.get(id) is not None
            looks.put_nowait(next_look)
        await two.close()


class Broken(MemoryKeys):
    """A store that raises whatever the test likes."""

    error: Exception | None = None

    async def changes(self, since: int):  # type: ignore[no-untyped-def]
        if self.error is not None:
            raise self.error
        return await super().changes(since)


@pytest.mark.parametrize("error", [ValueError("x"), ZeroDivisionError(), OSError()])
async def test_whatever_goes_wrong_the_known_keys_stay_and_the_next_look_is_made(error: Exception) -> None:
    store = Broken()
    process = Process(store)
    await process.put(stored("a"), 0)
    store.error = error
    for _ in range(3):
        await process.follow()
    assert (process.down, process.known(), process.reasons) == (True, {"a": True}, ["reply"] * 3)
    with pytest.raises(Unavailable):
        await process.put(stored("b"), 0)
    store.error = None
    before = process.successes
    await process.follow()
    assert (process.down, process.successes) == (False, before + 1)
    assert await process.put(stored("b"), 0)


# Redis in trouble


@asynccontextmanager
async def processes(server: RedisServer, count: int = 2) -> AsyncIterator[list[Process]]:
    made = [Process(RedisKeys(server.url, prefix="p", timeout=10)) for _ in range(count)]
    try:
        yield made
    finally:
        for process in made:
            await process.close()


async def test_a_frozen_server_costs_no_key_and_no_change_is_made_behind_ones_back(
    own_redis: RedisServer,
) -> None:
    store = RedisKeys(own_redis.url, prefix="p", timeout=HANG)
    process, other = Process(store), Process(RedisKeys(own_redis.url, prefix="p", timeout=HANG))
    await process.put(stored("a"), 0)
    own_redis.stop()
    store._timeout = 0.3
    async with asyncio.timeout(HANG):
        with pytest.raises(Unavailable):
            await process.put(stored("late"), 0)
        with pytest.raises(Unavailable):
            await process.delete("a", process.revision("a"))
        await process.follow()
    assert (process.down, process.known()) == (True, {"a": True})
    own_redis.resume()
    store._timeout = HANG
    for follower in (process, other):
        while follower.down or not follower.known():
            await follower.follow()
        assert follower.known() == {"a": True}
        await follower.close()


async def test_a_server_that_freezes_within_a_change_does_not_make_it_later(own_redis: RedisServer) -> None:
    class Freezing(RedisKeys):
        """Freezes the server between the question for the time and the change."""

        async def _evaluate(self, script, *arguments):  # type: ignore[no-untyped-def]
            own_redis.stop()
            return await super()._evaluate(script, *arguments)

    store, reader = (
        Freezing(own_redis.url, prefix="p", timeout=0.3),
        Process(RedisKeys(own_redis.url, prefix="p")),
    )
    process = Process(store)
    with pytest.raises(Unavailable):
        await process.put(stored("late"), 0)
    own_redis.resume()
    async with asyncio.timeout(HANG):
        await reader.follow()
        while reader.down:
            await reader.follow()
    assert reader.known() == {}
    await process.close()
    await reader.close()


async def test_a_server_that_restarts_empty_is_given_the_keys_back(own_redis: RedisServer) -> None:
    async with processes(own_redis, 3) as (one, two, late):
        for id in ("a", "b", "c"):
            await one.put(stored(id), 0)
        await one.put(stored("b", enabled=False), one.revision("b"))
        await two.follow()
        own_redis.kill()
        await one.follow()
        assert (one.down, one.known()) == (True, {"a": True, "b": False, "c": True})
        own_redis.start()
        await asyncio.gather(one.follow(), two.follow())
        for process in (one, two, late):
            await process.follow()
            assert process.known() == {"a": True, "b": False, "c": True}
        assert await two.put(stored("a", enabled=False), two.revision("a"))
        assert await late.delete("c", late.revision("c"))
        await one.follow()
        assert one.known() == {"a": False, "b": False}


async def test_a_server_that_lost_its_last_changes_is_told_them_again(own_redis: RedisServer) -> None:
    async with processes(own_redis) as (one, two):
        import redis.asyncio as client

        raw = client.Redis(port=own_redis.port)
        await one.put(stored("a"), 0)
        names = [name.decode() for name in await raw.keys("*")]
        before = {name: await raw.dump(name) for name in names}
        await one.put(stored("a", enabled=False), one.revision("a"))
        await one.put(stored("b"), 0)
        for name, value in before.items():
            await raw.restore(name, 0, value, replace=True)
        await raw.aclose()
        await one.follow()
        await two.follow()
        assert one.known() == two.known() == {"a": False, "b": True}


async def test_something_else_under_our_names_is_a_failure_and_no_crash(own_redis: RedisServer) -> None:
    async with processes(own_redis) as (one, two):
        import redis.asyncio as client

        raw = client.Redis(port=own_redis.port)
        await one.put(stored("a"), 0)
        await raw.set("{p}:keys", "another's")
        await one.follow()
        assert (one.down, one.known()) == (True, {"a": True})
        await raw.delete("{p}:keys")
        await raw.hset("{p}:keys", mapping={"generation": "many"})
        await two.follow()
        assert two.down
        await raw.aclose()
