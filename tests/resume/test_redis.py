"""What only a store that others share can do: be written here and read there, lose its writer, go down."""

import asyncio
import uuid
from contextlib import aclosing

import pytest

from sluice.errors import NotResumable, Unavailable
from sluice.resume import StreamHead
from sluice.resume.redis import RedisJournals
from sluice.storage import Reason
from tests.resume.test_journals import HEAD, everything, frames, until
from tests.servers import RedisServer


async def test_a_stream_is_read_where_it_is_not_written(redis: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    here, there = RedisJournals(redis.url, prefix=prefix), RedisJournals(redis.url, prefix=prefix)
    journal = await here.open("s", HEAD)
    reading = asyncio.create_task(everything(there, "s"))
    for number in range(50):
        journal.append(frames(number), last=number == 49)
        await asyncio.sleep(0)
    assert await reading == b"".join(frames(*range(50)))
    await here.close()
    await there.close()


async def test_readers_are_told_when_the_writer_is_gone(redis: RedisServer) -> None:
    store = RedisJournals(redis.url, prefix=uuid.uuid4().hex, lease=0.2)
    journal = await store.open("s", HEAD)
    journal.append(frames(0))
    async with aclosing(store.read("s", -1, None)) as batches:
        assert (await anext(batches)).data == frames(0)[0]
        for task in store._writers:  # as if the process had been killed
            task.cancel()
        with pytest.raises(NotResumable):
            await anext(batches)
    await store.close()


async def test_a_writer_that_says_nothing_keeps_its_lease(redis: RedisServer) -> None:
    store = RedisJournals(redis.url, prefix=uuid.uuid4().hex, lease=0.1)
    journal = await store.open("s", HEAD)
    async with aclosing(store.read("s", -1, 0.05)) as batches:
        for _ in range(10):
            assert (await anext(batches)).data == b""
    journal.append(frames(0), last=True)
    assert await everything(store, "s") == frames(0)[0]
    await store.close()


async def test_a_server_that_goes_down_costs_the_journal_only_and_is_reported(own_redis: RedisServer) -> None:
    failures: list[Reason] = []
    store = RedisJournals(own_redis.url, failed=failures.append)
    journals = [await store.open(str(number), HEAD) for number in range(5)]
    own_redis.kill()
    for journal in journals:
        journal.append(frames(0))
    await until(lambda: all(journal.unresumable for journal in journals))
    assert (await store.open("new", HEAD)).unresumable
    assert set(failures) == {"connection"}
    with pytest.raises(Unavailable):
        await store.find("0")
    with pytest.raises(Unavailable):
        await everything(store, "0")
    await store.close()


async def test_nothing_is_left_behind_for_ever(redis: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    store = RedisJournals(redis.url, prefix=prefix, stream_bytes=100)
    ended = await store.open("ended", HEAD)
    ended.append(frames(0), last=True)
    too_long = await store.open("long", HEAD)
    too_long.append([b"x" * 1000])
    await store.open("running", HEAD)
    (await store.open("unsaid", StreamHead("shop", "openai", 0, 60))).close()
    await everything(store, "ended")
    while (found := await store.find("long")) is None or not found.unresumable:
        await asyncio.sleep(0)
    while await store.find("unsaid") is not None:
        await asyncio.sleep(0)
    async with store.asking() as raw:
        keys = await raw.keys(f"{prefix}:*")
        assert len(keys) >= 4
        assert all([await raw.pttl(key) > 0 for key in keys])
    await store.close()
