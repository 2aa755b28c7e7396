"""Conversations in Redis: bounds, expiry, keys in one slot, a server that is killed, frozen or restarted
empty."""

import asyncio
import contextlib
import time

import pytest
import redis.asyncio as client

from sluice.conversations import LEASE, ConversationsFailed, Lease, Turn
from sluice.conversations.leases import Leases
from sluice.conversations.redis import RedisConversations
from tests.servers import RedisServer

HANG = 60.0


def pair(name: str, size: int = 1) -> list[Turn]:
    return [Turn("user", name * size, 1.0), Turn("assistant", f"said {name}", 2.0)]


async def say(store: RedisConversations, name: str, session: str = "s", size: int = 1) -> str:
    id = await store.open("acme", session)
    await store.append("acme", session, id, pair(name, size))
    return id


async def test_a_long_conversation_keeps_its_latest_messages(redis: RedisServer) -> None:
    store = RedisConversations(redis.url, prefix="long", messages=6, timeout=10)
    for number in range(9):
        id = await say(store, str(number))
    assert [turn.content for turn in await store.recent(id, 100)] == [
        "6",
        "said 6",
        "7",
        "said 7",
        "8",
        "said 8",
    ]
    await store.close()


async def test_large_messages_push_older_ones_out_and_the_latest_turn_always_stays(
    redis: RedisServer,
) -> None:
    store = RedisConversations(redis.url, prefix="large", size=10_000, timeout=10)
    for number in range(9):
        id = await say(store, str(number), size=2_000)
    assert len(await store.recent(id, 100)) == 9
    await say(store, "9", size=20_000)
    assert [len(turn.content) for turn in await store.recent(id, 100)] == [20_000, 6]
    await store.close()


async def test_a_conversation_expires_after_its_last_turn_and_is_no_longer_listed(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisConversations(redis.url, prefix="ends", keep=100, timeout=10)
    id = await say(store, "a")
    server = client.Redis(port=redis.port)
    for key in [key async for key in server.scan_iter("ends:conversation:*")]:
        assert 90 < await server.ttl(key) <= 100
        await server.delete(key)  # as if the time had come
    assert await store.get(id) is None
    assert (await store.newest(5))[0] == []
    later = time.time() + 101
    monkeypatch.setattr("sluice.conversations.redis.now", lambda: later)
    assert await store.newest(5) == ([], 0)
    await server.aclose()
    await store.close()


async def test_all_keys_of_a_session_end_and_are_in_one_slot(redis: RedisServer) -> None:
    store = RedisConversations(redis.url, prefix="slot", timeout=10)
    one, two = Lease("acme", "s", "one"), Lease("acme", "s", "two")
    begun = await store.begin(one, 9)
    assert begun is not None
    assert await store.begin(two, 9) is None
    await store.finish(one, begun.id, pair("a"))
    server = client.Redis(port=redis.port)
    keys = [key.decode() async for key in server.scan_iter("slot:conversation:*")]
    assert len(keys) == 4
    assert len({key.partition("{")[2].partition("}")[0] for key in keys}) == 1
    assert -1 not in [await server.ttl(key) for key in keys]
    await server.aclose()
    await store.close()


async def test_strange_ids_find_nothing(redis: RedisServer) -> None:
    store = RedisConversations(redis.url, prefix="strange", timeout=10)
    id = await say(store, "a")
    for strange in (
        "",
        ".",
        "}",
        "{}",
        "x" * 5000,
        "é",
        id[1:],
        f"x{id}",
        id.rpartition(".")[2],
        "a." + "}" * 22,
    ):
        assert await store.get(strange) is None
        assert await store.recent(strange, 9) == []
    await store.close()


async def test_a_server_that_is_frozen_or_gone_is_a_failure_in_bounded_time(own_redis: RedisServer) -> None:
    patient = RedisConversations(own_redis.url, timeout=HANG)
    id = await say(patient, "a")
    await patient.close()
    store = RedisConversations(own_redis.url, timeout=0.2)
    own_redis.stop()
    async with asyncio.timeout(HANG):
        for call in (
            store.open("acme", "s"),
            store.recent(id, 1),
            store.get(id),
            store.begin(Lease("acme", "s", "x"), 1),
        ):
            with pytest.raises(ConversationsFailed, match="timeout"):
                await call
    own_redis.kill()
    with pytest.raises(ConversationsFailed, match="connection"):
        await store.newest(1)
    await store.close()


async def test_a_turn_is_stored_when_the_server_is_back_and_begins_anew_what_it_lost(
    own_redis: RedisServer,
) -> None:
    store = RedisConversations(own_redis.url, timeout=HANG)
    of = Leases(store, lambda operation, error: None)
    lease, begun = await of.begin("acme", "s", 9, lambda change: None)
    own_redis.kill()
    storing = asyncio.create_task(of.finish(lease, begun.id, pair("a")))
    await asyncio.sleep(0.05)
    assert not storing.done()
    own_redis.start()
    await storing
    assert await store.recent(begun.id, 9) == pair("a")
    await of.close()
    await store.close()


async def test_while_the_server_is_down_one_call_at_a_time_asks_and_nobody_else_waits_for_it(
    own_redis: RedisServer,
) -> None:
    store = RedisConversations(own_redis.url, timeout=0.3)
    of = Leases(store, lambda operation, error: None)
    own_redis.stop()
    with pytest.raises(ConversationsFailed):
        await of.begin("acme", "first", 9, lambda change: None)
    one = asyncio.create_task(of.begin("acme", "one", 9, lambda change: None))
    await asyncio.sleep(0)
    with pytest.raises(ConversationsFailed, match="timeout"):
        await of.begin("acme", "two", 9, lambda change: None)
    assert not one.done()
    own_redis.resume()
    await asyncio.gather(one, return_exceptions=True)
    async with asyncio.timeout(HANG):
        while True:
            with contextlib.suppress(ConversationsFailed):  # slow machines have not answered yet
                lease, _ = await of.begin("acme", "three", 9, lambda change: None)
                break
    await of.leave(lease)
    await of.close()
    await store.close()


async def test_a_lease_that_ends_later_than_any_can_is_cut_to_the_length_of_one(redis: RedisServer) -> None:
    """The server's clock was set back, or it is not ours: a session waited for it as long as that."""
    store = RedisConversations(redis.url, prefix="late", timeout=10)
    async with client.Redis(port=redis.port) as raw:
        for late in ("1e999", "nan", "x", str(round((time.time() + 86400) * 1000))):
            first = Lease("acme", late, "first")
            assert await store.begin(first, 10) is not None
            [key] = [
                one for one in await raw.keys("late:*:lease") if await raw.hget(one, "holder") == b"first"
            ]
            await raw.hset(key, mapping={"until": late, "asked:gone": late})
            await raw.zadd(key.replace(b":lease", b":queue"), {"gone": 1})
            await store.begin(Lease("acme", late, "second"), 10)
            fields = await raw.hgetall(key)
            seconds, _ = await raw.time()
            for field in (b"until", b"asked:gone"):
                assert float(fields.get(field, 0)) <= (seconds + LEASE + 1) * 1000
            await raw.delete(key, key.replace(b":lease", b":queue"))
    await store.close()


@pytest.mark.parametrize("spoilt", ["turns", "bytes"])
async def test_a_turn_that_could_not_be_stored_does_not_seem_stored(redis: RedisServer, spoilt: str) -> None:
    store = RedisConversations(redis.url, prefix=f"spoilt-{spoilt}", timeout=10)
    id = await say(store, "one")
    lease = Lease("acme", "s", "holder")
    assert await store.begin(lease, 10) is not None
    async with client.Redis(port=redis.port) as raw:
        [turns] = await raw.keys(f"spoilt-{spoilt}:*:turns")
        if spoilt == "bytes":
            await raw.hset(turns.removesuffix(b":turns"), "bytes", "x")
        else:
            await raw.rename(turns, "aside")
            await raw.set(turns, "x")
            with pytest.raises(ConversationsFailed):
                await store.finish(lease, id, pair("two"))
            await raw.rename("aside", turns)
    await store.finish(lease, id, pair("two"))  # as it is sent again
    assert [turn.content for turn in await store.recent(id, 10)] == ["one", "said one", "two", "said two"]
    await store.close()
