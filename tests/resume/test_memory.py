"""The bounds of the journals in memory."""

import asyncio

import pytest

from sluice.errors import NotResumable
from sluice.resume import StreamHead
from sluice.resume.memory import MemoryJournals
from tests.resume.test_journals import everything, frames


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def head(window: float = 60.0) -> StreamHead:
    return StreamHead("shop", "widget", 0.0, window)


async def test_streams_expire_each_after_its_own_window() -> None:
    clock = Clock()
    journals = MemoryJournals(clock)
    for name, window in (("long", 60.0), ("short", 10.0)):
        (await journals.open(name, head(window))).append(frames(0), last=True)
    clock.now += 10
    assert (await journals.find("short"), await journals.find("long")) != (None, None)
    assert await journals.find("short") is None
    clock.now += 50
    assert await journals.find("long") is None


async def test_a_running_stream_does_not_expire() -> None:
    clock = Clock()
    journals = MemoryJournals(clock)
    await journals.open("s", head(0))
    clock.now += 1e6
    assert await journals.find("s") is not None


async def test_where_there_are_too_many_streams_those_that_ended_go_first() -> None:
    journals = MemoryJournals(streams=2)
    running = await journals.open("running", head())
    (await journals.open("ended", head())).append(frames(0), last=True)
    await journals.open("new", head())
    assert await journals.find("ended") is None
    assert not running.unresumable
    await journals.open("newer", head())
    assert running.unresumable


async def test_all_bytes_are_bounded_and_given_back() -> None:
    journals = MemoryJournals(all_bytes=10_000)
    for number in range(20):
        (await journals.open(str(number), head())).append([b"x" * 1000], last=True)
    kept = [number for number in range(20) if await journals.find(str(number)) is not None]
    assert kept == list(range(11, 20))


async def test_a_reader_of_a_stream_that_makes_room_is_told() -> None:
    journals = MemoryJournals(streams=1)
    await journals.open("s", head())
    reading = asyncio.create_task(everything(journals, "s"))
    await asyncio.sleep(0)
    await journals.open("another", head())
    with pytest.raises(NotResumable):
        await reading


async def test_nobody_reads_means_seconds_on_the_clock() -> None:
    clock = Clock()
    journals = MemoryJournals(clock)
    journal = await journals.open("s", head())
    reading = asyncio.create_task(everything(journals, "s"))
    await asyncio.sleep(0)
    assert journal.unread == 0
    journal.append(frames(0), last=True)
    await reading
    clock.now += 7
    assert journal.unread == 7
