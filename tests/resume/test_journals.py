"""What every store of journals does, memory and Redis alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from sluice.errors import NotResumable
from sluice.resume import FrameBatch, Journals, StreamHead
from sluice.resume.memory import MemoryJournals
from sluice.resume.redis import RedisJournals

HEAD = StreamHead(owner="shop", frontend="widget", heartbeat=0.0, window=60.0)
LIMIT = 4096

Make = Callable[[], Journals]


@pytest.fixture(params=["memory", "redis", "valkey", "sentinel", "cluster"])
async def journals(request: pytest.FixtureRequest) -> AsyncIterator[Journals]:
    store: Journals
    if request.param == "memory":
        store = MemoryJournals(stream_bytes=LIMIT)
    else:
        url = request.getfixturevalue(request.param).url
        store = RedisJournals(url, prefix=uuid.uuid4().hex, stream_bytes=LIMIT)
    yield store
    await store.close()


def frames(*numbers: int) -> list[bytes]:
    return [b"frame %d\n" % number for number in numbers]


async def everything(journals: Journals, stream: str, after: int = -1) -> bytes:
    async with aclosing(journals.read(stream, after, None)) as batches:
        return b"".join([batch.data async for batch in batches])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def ended(journals: Journals, stream: str) -> None:
    while (found := await journals.find(stream)) is not None and not found.ended:
        await asyncio.sleep(0)


async def test_a_stream_is_read_from_any_place(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0))
    journal.append(frames(1, 2))
    journal.append(frames(3), last=True)
    await ended(journals, "s")
    for after in range(-1, 4):
        assert await everything(journals, "s", after) == b"".join(frames(*range(after + 1, 4)))


async def test_a_place_that_never_was_is_behind_the_end(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0))
    reading = asyncio.create_task(everything(journals, "s", 999_999_999))
    journal.append(frames(1), last=True)
    assert await reading == b""


async def test_a_new_stream_is_found_at_once(journals: Journals) -> None:
    await journals.open("s", HEAD)
    found = await journals.find("s")
    assert found is not None
    assert (found.head, found.newest, found.ended, found.unresumable) == (HEAD, -1, False, False)


async def test_how_a_stream_stands_is_known(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0, 1, 2), last=True)
    await ended(journals, "s")
    found = await journals.find("s")
    assert found is not None
    assert (found.newest, found.ended) == (2, True)


async def test_a_stream_that_is_not_there_is_not_found(journals: Journals) -> None:
    assert await journals.find("s") is None
    with pytest.raises(NotResumable):
        await everything(journals, "s")


async def test_a_reader_waits_for_what_is_to_come(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0))
    async with aclosing(journals.read("s", -1, None)) as batches:
        assert (await anext(batches)).data == frames(0)[0]
        following = asyncio.ensure_future(anext(batches))
        journal.append(frames(1))
        assert (await following).data == frames(1)[0]
        journal.append(frames(2), last=True)
        assert b"".join([batch.data async for batch in batches]) == frames(2)[0]


async def test_a_reader_is_told_where_nothing_comes_in_time(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0))
    async with aclosing(journals.read("s", 0, 0.001)) as batches:
        assert await anext(batches) == FrameBatch(b"")
        assert await anext(batches) == FrameBatch(b"")


async def test_readers_do_not_disturb_each_other(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    readers = [asyncio.create_task(everything(journals, "s", after)) for after in (-1, -1, 1)]
    for number in range(5):
        journal.append(frames(number), last=number == 4)
        await asyncio.sleep(0)
    assert await asyncio.gather(*readers) == [b"".join(frames(*range(at, 5))) for at in (0, 0, 2)]


async def test_a_reader_may_leave(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    reader = asyncio.create_task(everything(journals, "s"))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    journal.append(frames(0), last=True)
    assert await everything(journals, "s") == frames(0)[0]


async def test_what_is_too_long_is_lost_to_readers_old_and_new(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0))
    async with aclosing(journals.read("s", -1, None)) as batches:
        await anext(batches)
        journal.append([b"x" * LIMIT])
        assert journal.unresumable
        journal.append(frames(1), last=True)
        journal.close()
        while (found := await journals.find("s")) is not None and not found.unresumable:
            await asyncio.sleep(0)
        assert found is not None
        assert found.head.owner == "shop"
        # a reader that waits has to be told
        if isinstance(journals, MemoryJournals):
            with pytest.raises(NotResumable):
                await anext(batches)
    with pytest.raises(NotResumable):
        await everything(journals, "s")


async def test_a_stream_that_is_cut_gives_what_it_has_and_says_so(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0, 1))
    journal.close()
    got = b""
    async with aclosing(journals.read("s", -1, None)) as batches:
        while len(got) < len(b"".join(frames(0, 1))):
            got += (await anext(batches)).data
        with pytest.raises(NotResumable):
            await anext(batches)
    assert got == b"".join(frames(0, 1))


async def test_closing_a_stream_that_has_ended_changes_nothing(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    journal.append(frames(0), last=True)
    journal.close()
    assert await everything(journals, "s") == frames(0)[0]


async def test_a_stream_is_forgotten_when_its_window_is_over(journals: Journals) -> None:
    journal = await journals.open("s", StreamHead("shop", "widget", 0.0, 0.0))
    journal.append(frames(0), last=True)
    while await journals.find("s") is not None:
        await asyncio.sleep(0)


async def test_a_journal_knows_for_how_long_nobody_has_read(journals: Journals) -> None:
    journal = await journals.open("s", HEAD)
    assert journal.unread == float("inf")
    async with aclosing(journals.read("s", -1, None)) as batches:
        following = asyncio.ensure_future(anext(batches))
        number = 0
        while journal.unread == float("inf"):
            journal.append(frames(number))
            number += 1
            await asyncio.sleep(0.001)
        await following
        assert journal.unread < 60
    assert journal.unread < 60


async def test_a_long_backlog_is_read_in_portions(journals: Journals, request: pytest.FixtureRequest) -> None:
    store = MemoryJournals() if isinstance(journals, MemoryJournals) else journals
    if isinstance(store, RedisJournals):
        store.stream_bytes = 1 << 20
    journal = await store.open("s", HEAD)
    said = [b"%d" % (number % 10) * 1000 for number in range(500)]
    journal.append(said, last=True)
    async with aclosing(store.read("s", -1, None)) as batches:
        got = [batch.data async for batch in batches]
    assert b"".join(got) == b"".join(said)
    assert max(map(len, got)) <= 4 * (64 << 10)
