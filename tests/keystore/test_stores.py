"""What every store of dynamic keys does: one suite for memory, SQLite and Redis."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from sluice.config.types import Budget, KeyLimits, Limit
from sluice.config.units import Rate
from sluice.keystore import PAGE, KeyStore, Superseded, decode, encode
from tests.keystore.keys import stored

Open = Callable[[], KeyStore]
FULL = stored(
    "shop:eu/1@x",
    tenant="shop",
    aliases=("chat", "code"),
    default_alias="chat",
    limits=KeyLimits(
        requests=(Limit(rate=Rate.parse("500/min"), burst=20), Limit(rate=Rate.parse("20000/day"))),
        tokens=Limit(rate=Rate.parse(0.25)),
        streams=3,
        budget=Budget(day=5, soft=0.5),
        weight=2.5,
    ),
    origins=("https://shop.example",),
    expires="2099-12-31T23:59:59Z",
    enabled=False,
    rotated=2.25,
    old=Superseded("sha256:" + "b" * 64, 99.75),
)


async def test_a_key_comes_back_as_it_was(opened: Callable[[], KeyStore]) -> None:
    store = opened()
    assert await store.put(FULL, 0) == 1
    [entry] = (await opened().changes(0)).entries
    assert (entry.id, entry.revision, entry.key) == (FULL.id, 1, FULL)
    assert entry.key is not None
    requests = entry.key.limits.requests
    assert isinstance(requests, tuple)
    assert [(limit.rate, limit.capacity) for limit in requests] == [(500 / 60, 20), (20000 / 86400, 20000)]


@pytest.mark.parametrize(
    "text", ["500/min", "0.1/s", "1/day", "333.33/h", "0.000001/min", "123456789012345/s", 0.25, 1e-7]
)
def test_a_rate_comes_back_to_the_bit(text: object) -> None:
    limits = KeyLimits(requests=Limit(rate=Rate.parse(text)))
    key = decode("k", 1, encode(stored("k", limits=limits))).key
    assert key is not None
    assert isinstance(key.limits.requests, Limit)
    assert (float(key.limits.requests.rate), key.limits.requests.rate.window) == (
        float(Rate.parse(text)),
        Rate.parse(text).window,
    )


async def test_changes_are_numbered_and_read_from_where_one_was(opened: Open) -> None:
    store = opened()
    assert [await store.put(stored(id), 0) for id in "abc"] == [1, 2, 3]
    seen = await store.changes(0)
    assert (seen.generation, [entry.id for entry in seen.entries], seen.total) == (3, ["a", "b", "c"], 3)
    assert not (await store.changes(3)).entries
    assert await store.put(stored("a", enabled=False), 1) == 4
    seen = await store.changes(3)
    assert [(entry.id, entry.revision) for entry in seen.entries] == [("a", 4)]
    assert [entry.id for entry in (await store.changes(1)).entries] == ["b", "c", "a"]


async def test_what_is_deleted_shows_in_the_total(opened: Open) -> None:
    store = opened()
    for id in "abc":
        await store.put(stored(id), 0)
    assert await store.delete("b", 2)
    seen = await store.changes(3)
    assert (seen.generation, list(seen.entries), seen.total) == (4, [], 2)
    assert await store.ids() == {"a", "c"}
    assert await store.put(stored("b"), 0) == 5


async def test_a_change_of_another_revision_is_refused_and_changes_nothing(opened: Open) -> None:
    store = opened()
    assert await store.put(stored("a"), 7) is None
    assert not await store.delete("a", 0)
    assert not await store.delete("a", 1)
    assert await store.put(stored("a"), 0) == 1
    assert await store.put(stored("a", enabled=False), 0) is None
    assert await store.put(stored("a", enabled=False), 2) is None
    assert not await store.delete("a", 2)
    seen = await store.changes(0)
    assert (seen.generation, [entry.key for entry in seen.entries]) == (1, [stored("a")])


async def test_of_many_changes_at_the_same_time_one_is_made(opened: Open) -> None:
    stores = [opened() for _ in range(4)]
    for revision in range(5):
        made = await asyncio.gather(*(store.put(stored("a"), revision) for store in stores for _ in range(5)))
        assert [number for number in made if number is not None] == [revision + 1]


async def test_more_than_a_page_is_read_page_by_page(opened: Open) -> None:
    store = opened()
    count = PAGE * 2 + 1 if type(store).__name__ == "MemoryKeys" else PAGE + 1
    for start in range(0, count, 100):
        await asyncio.gather(
            *(store.put(stored(f"k{number}"), 0) for number in range(start, min(count, start + 100)))
        )
    since, ids, pages = 0, [], 0
    while (page := await store.changes(since)).generation != since:
        since, pages = page.generation, pages + 1
        ids += [entry.id for entry in page.entries]
        assert page.total == count
    assert (len(ids), len(set(ids)), pages) == (count, count, -(-count // PAGE))


async def test_another_process_sees_the_same(shared: Open) -> None:
    one, two = shared(), shared()
    assert await one.put(stored("a"), 0) == 1
    assert await two.put(stored("b"), 0) == 2
    assert await two.put(stored("a", enabled=False), 1) == 3
    assert await one.put(stored("a"), 1) is None
    assert [entry.id for entry in (await one.changes(0)).entries] == ["b", "a"]


def test_what_cannot_be_read_lets_nobody_in() -> None:
    good = encode(stored("a"))
    assert decode("a", 1, good).key == stored("a")
    assert decode("a", 1, good.replace(b'"limits":{', b'"limits":{"from_the_future":1,')).key is None
    for broken in (b"", b"{}", b"\xff", b"[]", good[:-1]):
        assert decode("a", 1, broken).key is None
    assert decode("a", 1, good[:-1] + b',"from_the_future":1}').key == stored("a")


def test_what_is_kept_is_small() -> None:
    assert len(encode(stored("a"))) < 500
    assert msgspec.json.decode(encode(FULL), type=dict)["limits"]["requests"][0]["rate"] == "500/min"
