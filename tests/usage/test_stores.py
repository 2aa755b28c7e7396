"""What every usage store keeps: sums, each batch once; and what the ones in files and servers do beside
that."""

import asyncio
import random
from pathlib import Path

import pytest

from sluice.conversations.sqlite import SqliteConversations
from sluice.usage import Figures, RowRefused, Subject, UsageBatch, UsageFailed, UsageStore
from sluice.usage.memory import MemoryUsage
from sluice.usage.redis import SECONDS, RedisUsage
from sluice.usage.sqlite import SqliteUsage
from tests.servers import RedisServer, redis_server

DAY, NEXT = "2026-11-25", "2026-11-26"
SHOP = Subject(DAY, "shop", "acme", "chat", "openai/gpt-5-mini")
ODD = Subject(DAY, "jwt:https://idp/ä", 'a"b,c:d|\u2028', "chat", "groq/openai/gpt-oss-120b")
FULL = Figures(1, 2, 3, 4, 5, 6, 7, 8)


def batch(number: int, *rows: tuple[Subject, Figures], writer: str = "w", day: str = DAY) -> UsageBatch:
    return UsageBatch(writer, number, day, list(rows))


async def held(store: UsageStore, day: str = DAY) -> dict[Subject, Figures]:
    return dict(await store.of_day(day))


async def test_figures_add_up_by_subject(store: UsageStore) -> None:
    await store.add(batch(1, (SHOP, FULL), (ODD, Figures(requests=1))))
    await store.add(batch(2, (SHOP, Figures(requests=10, nanos=2**62))))
    assert await held(store) == {SHOP: Figures(11, 2, 3, 4, 5, 6, 7 + 2**62, 8), ODD: Figures(requests=1)}


async def test_a_batch_that_is_brought_again_is_not_counted_again(store: UsageStore) -> None:
    for number in (1, 1, 2, 2, 1, 2):
        await store.add(batch(number, (SHOP, FULL)))
    await store.add(batch(1, (SHOP, FULL), writer="another"))
    assert (await held(store))[SHOP].requests == 3


@pytest.mark.parametrize("nanos", [2**63, 2**70, 10**400])
async def test_a_row_that_no_store_can_keep_is_refused_and_nothing_of_its_batch_is_kept(
    store: UsageStore, nanos: int
) -> None:
    if isinstance(store, MemoryUsage):  # it keeps any number
        return
    await store.add(batch(1, (SHOP, FULL)))
    with pytest.raises(RowRefused):
        await store.add(batch(2, (SHOP, FULL), (ODD, Figures(requests=1, output=3, nanos=nanos))))
    assert await held(store) == {SHOP: FULL}
    await store.add(batch(2, (SHOP, FULL)))
    assert (await held(store))[SHOP].requests == 2


async def test_a_name_that_is_no_unicode_is_refused(store: UsageStore) -> None:
    if isinstance(store, MemoryUsage):
        return
    with pytest.raises(RowRefused):
        await store.add(batch(1, (SHOP, FULL), (SHOP._replace(tenant="a\ud800"), FULL)))
    assert await held(store) == {}
    await store.add(batch(1, (SHOP, FULL)))
    assert await held(store) == {SHOP: FULL}


async def test_a_sum_that_is_too_large_keeps_no_other_row_from_being_stored(store: UsageStore) -> None:
    most = Figures(requests=1, nanos=2**63 - 1)
    await store.add(batch(1, (SHOP, most)))
    try:
        await store.add(batch(2, (ODD, FULL), (SHOP, most)))
    except RowRefused:
        await store.add(batch(2, (ODD, FULL)))
    await store.add(batch(3, (ODD, FULL)))
    rows = await held(store)
    assert rows[ODD] == Figures(2, 4, 6, 8, 10, 12, 14, 16)
    assert rows[SHOP].nanos >= 2**63 - 1
    assert type(rows[SHOP].nanos) is int


async def test_days_are_apart_and_a_day_without_usage_is_empty(store: UsageStore) -> None:
    await store.add(batch(1, (SHOP, FULL)))
    await store.add(batch(2, (SHOP._replace(day=NEXT), Figures(requests=9)), day=NEXT))
    assert (await held(store, NEXT)) == {SHOP._replace(day=NEXT): Figures(requests=9)}
    assert (await held(store))[SHOP] == FULL
    assert await held(store, "2026-01-01") == {}


async def test_what_was_read_does_not_change_and_what_was_brought_is_not_kept(store: UsageStore) -> None:
    figures = Figures(requests=1)
    await store.add(batch(1, (SHOP, figures)))
    before = await held(store)
    await store.add(batch(2, (SHOP, figures)))
    figures.requests = 100
    assert before[SHOP].requests == 1
    assert (await held(store))[SHOP].requests == 2


async def test_old_days_can_be_forgotten(store: UsageStore) -> None:
    await store.add(batch(1, (SHOP, FULL)))
    await store.add(batch(2, (SHOP._replace(day=NEXT), FULL), day=NEXT))
    await store.prune(NEXT)
    if not isinstance(store, RedisUsage):  # there they expire by themselves
        assert await held(store) == {}
    assert await held(store, NEXT)


async def test_many_writers_at_once_lose_nothing(store: UsageStore) -> None:
    dice = random.Random(5)
    subjects = [SHOP._replace(key=f"k{number}") for number in range(7)]
    expected: dict[Subject, int] = {}

    async def write(writer: int) -> None:
        for number in range(1, 11):
            rows = [
                (subject, Figures(requests=1, nanos=dice.randrange(1, 10**9)))
                for subject in dice.sample(subjects, 3)
            ]
            for subject, figures in rows:
                expected[subject] = expected.get(subject, 0) + figures.nanos
            await store.add(batch(number, *rows, writer=f"w{writer}"))

    await asyncio.gather(*(write(number) for number in range(8)))
    assert {subject: figures.nanos for subject, figures in (await held(store)).items()} == expected


# SQLite


async def test_a_file_keeps_it_over_a_restart_and_may_be_that_of_the_conversations(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    conversations = SqliteConversations(path)
    first = SqliteUsage(path)
    await first.add(batch(1, (SHOP, FULL)))
    await first.close()
    await first.close()
    await conversations.close()
    again, conversations = SqliteUsage(path), SqliteConversations(path)
    await again.add(batch(1, (SHOP, FULL)))
    assert await held(again) == {SHOP: FULL}
    assert await conversations.newest(1) == ([], 0)
    await again.close()
    await conversations.close()


async def test_two_processes_may_use_one_file(tmp_path: Path) -> None:
    stores = [SqliteUsage(tmp_path / "usage.db") for _ in range(2)]
    await asyncio.gather(
        *(s.add(batch(n, (SHOP, FULL), writer=str(i))) for i, s in enumerate(stores) for n in range(1, 9))
    )
    assert (await held(stores[0]))[SHOP].requests == 16
    for store in stores:
        await store.close()


async def test_a_batch_is_all_there_or_none_of_it(tmp_path: Path) -> None:
    store = SqliteUsage(tmp_path / "usage.db")
    broken = Figures(requests=1)
    broken.nanos = 2**70  # more than a column holds
    with pytest.raises(UsageFailed):
        await store.add(batch(1, (SHOP, FULL), (ODD, broken)))
    assert await held(store) == {}
    await store.add(batch(1, (SHOP, FULL)))
    assert await held(store) == {SHOP: FULL}
    await store.close()


async def test_a_file_that_cannot_be_used_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be looked at as one" * 20)
    with pytest.raises(OSError, match="SQLite"):
        SqliteUsage(tmp_path / "text")
    with pytest.raises(OSError):
        SqliteUsage(tmp_path / "nowhere" / "usage.db")


# Redis


async def test_days_expire_in_redis(redis: RedisServer) -> None:
    store = RedisUsage(redis.url, prefix="expiring")
    await store.add(batch(1, (SHOP, FULL)))
    assert SECONDS - 60 < await store._client.raw.ttl(f"expiring:usage:{DAY}") <= SECONDS
    await store.close()


async def test_a_server_that_is_gone_or_silent_is_a_failure_in_bounded_time() -> None:
    with redis_server() as server:
        store = RedisUsage(server.url, timeout=30)
        await store.add(batch(1, (SHOP, FULL)))
        server.stop()
        store._timeout = 0.2
        with pytest.raises(UsageFailed):
            await store.add(batch(2, (SHOP, FULL)))
        server.resume()
        store._timeout = 30
        await store.add(batch(2, (SHOP, FULL)))  # it may have counted it when it woke up
        assert (await held(store))[SHOP].requests == 2
        server.kill()
        with pytest.raises(UsageFailed):
            await store.of_day(DAY)
        server.start()
        assert await held(store) == {}
        await store.close()


async def test_a_key_of_another_kind_is_a_failure(redis: RedisServer) -> None:
    store = RedisUsage(redis.url, prefix="foreign")
    await store._client.raw.set(f"foreign:usage:{DAY}", "text")
    with pytest.raises(UsageFailed):
        await store.add(batch(1, (SHOP, FULL)))
    await store.close()


# dimensions: rows apart by the hour, or by a tag's value


def of(dimension: str, number: int, *rows: tuple[Subject, Figures], day: str = DAY) -> UsageBatch:
    return UsageBatch("w", number, day, list(rows), dimension, 8)


ODD_VALUE = 'ä"b,c:d|\u2028'


async def test_dimensions_are_apart_from_days_and_from_each_other(store: UsageStore) -> None:
    early, late = SHOP._replace(value="09"), SHOP._replace(value="10")
    await store.add(batch(1, (SHOP, FULL)))
    await store.add(of("hour", 2, (early, FULL), (late, Figures(requests=1))))
    await store.add(of("tag:project", 3, (SHOP._replace(value=ODD_VALUE), FULL), (SHOP, Figures(requests=2))))
    await store.add(of("hour", 4, (early, FULL)))
    assert await held(store) == {SHOP: FULL}
    twice = Figures(2, 4, 6, 8, 10, 12, 14, 16)
    assert dict(await store.of_day(DAY, "hour")) == {early: twice, late: Figures(requests=1)}
    tagged = {SHOP._replace(value=ODD_VALUE): FULL, SHOP: Figures(requests=2)}
    assert dict(await store.of_day(DAY, "tag:project")) == tagged
    assert await store.of_day(DAY, "tag:other") == []
    assert await store.of_day(NEXT, "hour") == []


async def test_a_batch_of_a_dimension_is_counted_once(store: UsageStore) -> None:
    row = (SHOP._replace(value="09"), FULL)
    for number in (1, 1, 2, 1, 2):
        await store.add(of("hour", number, row))
    assert dict(await store.of_day(DAY, "hour"))[row[0]].requests == 2


async def test_one_dimension_can_be_forgotten_before_the_others(store: UsageStore) -> None:
    hour, tag = SHOP._replace(value="09"), SHOP._replace(value="alpha")
    await store.add(batch(1, (SHOP, FULL)))
    await store.add(of("hour", 2, (hour, FULL)))
    await store.add(of("tag:project", 3, (tag, FULL)))
    await store.add(of("hour", 4, (hour._replace(day=NEXT), FULL), day=NEXT))
    await store.prune(NEXT, "hour")
    if not isinstance(store, RedisUsage):
        assert await store.of_day(DAY, "hour") == []
    assert await held(store) == {SHOP: FULL}
    assert dict(await store.of_day(DAY, "tag:project")) == {tag: FULL}
    assert await store.of_day(NEXT, "hour")
    await store.prune(NEXT)
    if not isinstance(store, RedisUsage):
        assert await store.of_day(DAY, "tag:project") == []


async def test_a_row_of_a_dimension_that_cannot_be_kept_is_refused_with_its_batch(store: UsageStore) -> None:
    if isinstance(store, MemoryUsage):
        return
    with pytest.raises(RowRefused):
        await store.add(of("tag:project", 1, (SHOP, FULL), (SHOP._replace(value="a\ud800"), FULL)))
    assert await store.of_day(DAY, "tag:project") == []
