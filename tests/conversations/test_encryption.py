"""Encrypted conversations: what is at rest, what a key reads, and that nothing can be moved or passed off."""

import itertools
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import pytest
import redis.asyncio

from sluice.conversations import (
    ConversationsFailed,
    ConversationStore,
    Lease,
    Resealed,
    SharedConversations,
    Turn,
)
from sluice.conversations.postgres import PostgresConversations
from sluice.conversations.redis import RedisConversations
from sluice.conversations.sqlite import SqliteConversations
from sluice.storage.sealing import Seals
from tests.conversations.conftest import KEY, seals_of
from tests.servers import PostgresServer, RedisServer

NEWER = bytes(range(1, 33))
TURNS = [
    Turn("user", "My secret question", 1.0),
    Turn("assistant", "The secret answer", 2.0, thoughts='[["secret","x",""]]'),
]
_schemas = (f"encryption{number}" for number in itertools.count())


class Place(Protocol):
    """Where stores keep things, seen from beside the gateway."""

    def open(self, seals: Seals) -> ConversationStore: ...
    async def stored(self) -> list[bytes]: ...
    async def swap(self) -> None:
        """Give the messages of the two conversations to each other."""
        ...


class InSqlite:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, seals: Seals) -> ConversationStore:
        return SqliteConversations(self._path, seals)

    async def stored(self) -> list[bytes]:
        with closing(sqlite3.connect(self._path)) as database:
            messages = database.execute("SELECT content, thoughts FROM turn").fetchall()
            found = [*itertools.chain(*messages, *database.execute("SELECT last_message FROM conversation"))]
        return [value if isinstance(value, bytes) else value.encode() for value in found]

    async def swap(self) -> None:
        with closing(sqlite3.connect(self._path)) as database, database:
            database.execute("UPDATE turn SET conversation = 3 - conversation")


class InRedis:
    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def open(self, seals: Seals) -> ConversationStore:
        return RedisConversations(self._server.url, timeout=10, seals=seals)

    async def stored(self) -> list[bytes]:
        async with redis.asyncio.Redis(port=self._server.port) as client:
            lists = [key async for key in client.scan_iter("sluice:conversation:*:turns")]
            found = [entry for key in lists for entry in await client.lrange(key, 0, -1)]  # type: ignore[misc]
            return found + [await client.hget(key.removesuffix(b":turns"), "last") for key in lists]  # type: ignore[misc]

    async def swap(self) -> None:
        async with redis.asyncio.Redis(port=self._server.port) as client:
            one, two = [key async for key in client.scan_iter("sluice:conversation:*:turns")]
            await client.rename(one, "aside")
            await client.rename(two, one)
            await client.rename("aside", two)


class InPostgres:
    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._schema = next(_schemas)

    def open(self, seals: Seals) -> ConversationStore:
        return PostgresConversations(f"{self._server.url}&schema={self._schema}", timeout=10, seals=seals)

    async def _rows(self, statement: str) -> list[Any]:
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self._server.port, user="postgres", database="postgres"
        )
        try:
            return list(await connection.fetch(statement.replace("{s}", self._schema)))
        finally:
            await connection.close()

    async def stored(self) -> list[bytes]:
        rows = await self._rows(
            "SELECT data FROM {s}.sluice_turn UNION ALL SELECT last_message FROM {s}.sluice_conversation"
        )
        return [data for (data,) in rows]

    async def swap(self) -> None:
        await self._rows("UPDATE {s}.sluice_turn SET conversation = 3 - conversation")


class Gateways:
    """Gateways at one place, each with keys of its own."""

    def __init__(self, place: Place, stack: AsyncExitStack) -> None:
        self.place = place
        self._stack = stack

    def __call__(self, *keys: bytes, plain: bool = True) -> ConversationStore:
        store = self.place.open(seals_of(*keys, plain=plain))
        self._stack.push_async_callback(store.close)
        return store


@pytest.fixture(params=["sqlite", "redis", "postgres"])
async def gateways(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Gateways]:
    place: Place
    match request.param:
        case "sqlite":
            place = InSqlite(tmp_path / "state.db")
        case "redis":
            place = InRedis(request.getfixturevalue("own_redis"))
        case _:
            place = InPostgres(request.getfixturevalue("postgres"))
    async with AsyncExitStack() as stack:
        yield Gateways(place, stack)


async def say(store: ConversationStore, session: str = "s") -> str:
    id = await store.open("acme", session)
    await store.append("acme", session, id, TURNS)
    return id


async def refused(store: ConversationStore, id: str) -> None:
    """None of the ways to read this conversation tells anything of it."""
    for asked in (store.recent(id, 9), store.get(id), store.messages(id, 0, 9)):
        with pytest.raises(ConversationsFailed) as failed:
            await asked
        assert failed.value.reason == "key"


async def test_nothing_that_was_said_is_at_rest(gateways: Gateways) -> None:
    store = gateways(KEY)
    id = await say(store)
    assert await store.recent(id, 9) == TURNS
    assert (await store.newest(9))[0][0].last_message == "The secret answer"
    at_rest = b"".join(await gateways.place.stored())
    assert len(at_rest) > 100
    for text in (b"secret", b"question", b"answer"):
        assert text not in at_rest


async def test_a_key_that_is_lost_costs_the_histories_and_nothing_else(gateways: Gateways) -> None:
    id = await say(gateways(KEY))
    for store in (gateways(NEWER), gateways()):
        await refused(store, id)
        [listed], count = await store.newest(9)
        assert (listed.id, listed.session, listed.last_message, count) == (id, "s", "", 1)
        assert await store.open("acme", "s") == id
        other = await say(store, "other")
        assert await store.recent(other, 9) == TURNS
        assert await store.delete(other)
    assert await gateways().delete(id)


async def test_keys_are_rotated(gateways: Gateways) -> None:
    id = await say(gateways(KEY))
    both = gateways(NEWER, KEY)
    assert await both.recent(id, 9) == TURNS
    await say(both)
    assert await both.recent(id, 9) == TURNS * 2
    assert await gateways(KEY, NEWER).recent(id, 9) == TURNS * 2
    newer = gateways(NEWER)
    assert await newer.recent(id, 2) == TURNS
    with pytest.raises(ConversationsFailed):
        await newer.recent(id, 3)


async def test_what_was_said_before_there_were_keys_is_read_unless_that_is_refused(
    gateways: Gateways,
) -> None:
    id = await say(gateways())
    store = gateways(KEY)
    assert await store.recent(id, 9) == TURNS
    assert (await store.newest(9))[0][0].last_message == "The secret answer"
    strict = gateways(KEY, plain=False)
    await refused(strict, id)
    assert (await strict.newest(9))[0][0].last_message == ""
    await say(strict)
    assert await strict.recent(id, 2) == TURNS
    assert (await store.recent(id, 9)) == TURNS * 2


async def test_what_older_keys_and_nobody_encrypted_is_encrypted_by_the_first_key(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sqlite", "redis", "postgres"):
        monkeypatch.setattr(f"sluice.conversations.{module}.RESEALED", 2)
    id = await say(gateways())
    await say(gateways(KEY))
    both = gateways(NEWER, KEY)
    await say(both)
    assert await gateways().reseal(id) == Resealed()
    assert await both.reseal(id) == Resealed(messages=4)
    assert await both.reseal(id) == Resealed()
    strict = gateways(NEWER, plain=False)
    assert await strict.recent(id, 9) == TURNS * 3
    assert (await strict.newest(9))[0][0].last_message == "The secret answer"
    await say(gateways(KEY))
    assert await strict.reseal(id) == Resealed(unreadable=2)
    assert await both.reseal("nothing") == Resealed()


async def test_turns_that_push_messages_out_meanwhile_leave_none_under_the_older_key(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.conversations.redis.RESEALED", 2)

    def opened(*keys: bytes) -> RedisConversations:
        return RedisConversations(own_redis.url, timeout=10, messages=8, seals=seals_of(*keys))

    async with AsyncExitStack() as stack:
        older, store, newer = opened(KEY), opened(NEWER, KEY), opened(NEWER)
        for each in (older, store, newer):
            stack.push_async_callback(each.close)
        for _ in range(4):
            id = await say(older)
        turns, run = [store], store._reseal

        async def meanwhile(keys: Any, arguments: Any) -> Any:
            if turns:
                await say(turns.pop())
            return await run(keys, arguments)

        monkeypatch.setattr(store, "_reseal", meanwhile)
        found = await store.reseal(id)
        assert (found.unreadable, found.left) == (0, 0)
        assert await newer.recent(id, 9) == TURNS * 4

        turns += [older] * 1000  # a gateway that has not been told of the newer key yet
        assert (await store.reseal(id)).left > 0


async def test_a_preview_that_changes_while_it_is_encrypted_anew_is_encrypted_by_the_first_key(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, store = gateways(KEY), gateways(NEWER, KEY)
    if isinstance(store, SqliteConversations):
        pytest.skip("does it in one transaction")
    id = await say(older)
    again = [1]
    asking = store._asking  # type: ignore[attr-defined]
    calls = 0

    @asynccontextmanager
    async def meanwhile() -> AsyncIterator[Any]:
        nonlocal calls
        calls += 1
        if calls > 1 and again:  # the preview has been read
            again.pop()
            await say(older)
        async with asking() as raw:
            yield raw

    monkeypatch.setattr(store, "_asking", meanwhile)
    assert (await store.reseal(id)).left == 0
    newer = gateways(NEWER)
    assert (await newer.newest(9))[0][0].last_message == "The secret answer"
    assert await newer.recent(id, 9) == TURNS * 2


async def test_messages_that_were_moved_to_another_conversation_are_refused(gateways: Gateways) -> None:
    store = gateways(KEY)
    ids = [await say(store, session) for session in ("one", "two")]
    await gateways.place.swap()
    for id in ids:
        await refused(store, id)


async def test_a_turn_that_cannot_read_its_history_begins_with_a_failure(gateways: Gateways) -> None:
    await say(gateways(KEY))
    store = gateways(NEWER)
    if isinstance(store, SqliteConversations):
        pytest.skip("has no leases")
    shared: SharedConversations = store  # type: ignore[assignment]
    with pytest.raises(ConversationsFailed) as failed:
        await shared.begin(Lease("acme", "s", "holder"), 9)
    assert failed.value.reason == "key"
