"""What every store of responses does."""

import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import redis.asyncio as client

from sluice.kept import ResponsesFailed, ResponseStore
from sluice.kept.memory import MemoryResponses
from sluice.kept.postgres import PostgresResponses
from sluice.kept.redis import LISTED, RedisResponses
from sluice.kept.sealed import SealedResponses, WatchedResponses
from sluice.kept.sqlite import SqliteResponses
from sluice.model.kept import KeptResponse
from sluice.storage.sealing import Seals
from tests.servers import PostgresServer, RedisServer, pgbouncer, postgres_server, redis_server

KEEP = 100.0
KEY, NEWER = bytes(range(32)), bytes(range(1, 33))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def bouncer(postgres: PostgresServer) -> Iterator[str]:
    with pgbouncer(postgres) as address:
        yield address


_names = (f"responses{number}" for number in itertools.count())
KINDS = ("sqlite", "redis", "valkey", "sentinel", "cluster", "postgres", "pgbouncer")


def opened(
    kind: str, request: pytest.FixtureRequest, directory: Path, clock: Clock, name: str
) -> ResponseStore:
    """A store of this kind at the place of this name."""
    match kind:
        case "sqlite":
            return SqliteResponses(directory / f"{name}.db", KEEP, clock)
        case "redis" | "valkey" | "sentinel" | "cluster":
            return RedisResponses(request.getfixturevalue(kind).url, KEEP, clock, prefix=name, timeout=10)
        case "pgbouncer":
            return PostgresResponses(
                f"{request.getfixturevalue('bouncer')}&schema={name}", KEEP, clock, timeout=10
            )
        case _:
            url = f"{request.getfixturevalue('postgres').url}&schema={name}"
            return PostgresResponses(url, KEEP, clock, timeout=10)


def with_keys(store: ResponseStore, *keys: bytes, plain: bool = True) -> ResponseStore:
    seals = Seals()
    seals.use(keys, unsealed=plain)
    return SealedResponses(store, seals)


@pytest.fixture(params=["memory", *KINDS, *(f"{kind} encrypted" for kind in KINDS)])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[ResponseStore]:
    kind, _, encrypted = request.param.partition(" ")
    found: ResponseStore
    found = (
        MemoryResponses(KEEP, clock)
        if kind == "memory"
        else opened(kind, request, tmp_path, clock, next(_names))
    )
    yield with_keys(found, KEY) if encrypted else found
    await found.close()


def kept(
    id: str = "resp_1", created: float = 1000.0, items: tuple[str, ...] = ("msg_1", "rs_1")
) -> KeptResponse:
    return KeptResponse(id, "resp_0", created, b'[{"a":1}]', b'{"id":"x"}', items)


async def test_a_response_is_its_tenants_alone(store: ResponseStore) -> None:
    await store.put("a", kept())
    assert await store.get("a", "resp_1") == kept()
    assert await store.holder("a", "msg_1") == kept()
    assert await store.get("b", "resp_1") is None
    assert await store.holder("b", "msg_1") is None
    assert not await store.delete("b", "resp_1")
    assert await store.get("a", "no") is None
    assert await store.holder("a", "no") is None


async def test_what_is_deleted_is_gone_with_its_items(store: ResponseStore) -> None:
    await store.put("a", kept())
    assert await store.delete("a", "resp_1")
    assert not await store.delete("a", "resp_1")
    assert await store.get("a", "resp_1") is None
    assert await store.holder("a", "rs_1") is None


async def test_a_response_of_the_same_id_takes_the_others_place(store: ResponseStore) -> None:
    await store.put("a", kept())
    await store.put("a", kept(items=("msg_2",)))
    assert await store.holder("a", "msg_1") is None
    assert await store.holder("a", "msg_2") == kept(items=("msg_2",))


async def test_what_is_too_old_is_forgotten(store: ResponseStore, clock: Clock) -> None:
    await store.put("a", kept())
    clock.now += KEEP + 1
    assert await store.get("a", "resp_1") is None
    assert await store.holder("a", "msg_1") is None
    assert not await store.delete("a", "resp_1")
    await store.put("a", kept("resp_2", clock.now))
    clock.now -= KEEP
    assert await store.get("a", "resp_1") is None


async def all_ids(store: ResponseStore, tenant: str) -> list[str]:
    found: set[str] = set()
    after = ""
    while True:
        ids, after = await store.ids(tenant, after, 3)
        found |= {*ids}
        if not after:
            return sorted(found)


async def test_all_of_a_tenant_are_listed_and_deleted(store: ResponseStore, clock: Clock) -> None:
    for number in range(10):
        await store.put(f"t{number % 2}", kept(f"resp_{number}", items=(f"msg_{number}",)))
    assert await all_ids(store, "t1") == [f"resp_{number}" for number in (1, 3, 5, 7, 9)]
    assert await all_ids(store, "nobody") == []
    assert await store.delete_of("nobody") == 0
    assert await store.delete_of("t1") == 5
    assert await store.delete_of("t1") == 0
    assert await all_ids(store, "t1") == []
    assert await store.holder("t1", "msg_1") is None
    assert len(await all_ids(store, "t0")) == 5
    clock.now += KEEP + 1
    assert await all_ids(store, "t0") == []


async def test_ids_may_hold_anything(store: ResponseStore) -> None:
    strange = kept("é\0 {x}:*" * 50, items=("\0", "", "msg", "msg"))
    await store.put("a\0b", strange)
    found = await store.get("a\0b", strange.id)
    assert found is not None
    assert (found.id, {*found.items}) == (strange.id, {"\0", "", "msg"})
    assert await store.holder("a\0b", "\0") == found
    assert await store.get("a", f"\0b{strange.id}") is None
    assert await all_ids(store, "a\0b") == [strange.id]
    assert await store.delete("a\0b", strange.id)
    assert await store.holder("a\0b", "msg") is None


async def test_an_item_that_a_later_response_repeats_is_the_later_ones(store: ResponseStore) -> None:
    await store.put("a", kept("resp_1", items=("msg",)))
    await store.put("a", kept("resp_2", items=("msg",)))
    found = await store.holder("a", "msg")
    assert found is not None
    assert found.id == "resp_2"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_encrypted_response_opens_with_its_key_and_as_itself_alone(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> None:
    inner = opened(kind, request, tmp_path, clock, next(_names))
    ours = with_keys(inner, KEY)
    await ours.put("a", kept())
    at_rest = await inner.get("a", "resp_1")
    assert at_rest is not None
    assert b"{" not in at_rest.response[:1] + at_rest.input[:1]
    assert await with_keys(inner, NEWER, KEY).get("a", "resp_1") == kept()
    for moved in (
        msgspec.structs.replace(at_rest, id="resp_2"),
        msgspec.structs.replace(at_rest, previous="resp_9"),
        msgspec.structs.replace(at_rest, input=at_rest.response, response=at_rest.input),
    ):
        await inner.put("a", moved)
        with pytest.raises(ResponsesFailed, match="key"):
            await ours.get("a", moved.id)
    await inner.put("a", at_rest)
    for other in (with_keys(inner, NEWER), with_keys(inner)):
        with pytest.raises(ResponsesFailed, match="key"):
            await other.get("a", "resp_1")
        with pytest.raises(ResponsesFailed, match="key"):
            await other.holder("a", "msg_1")
    await with_keys(inner).put("a", kept("plain", items=()))
    assert await ours.get("a", "plain") == kept("plain", items=())
    with pytest.raises(ResponsesFailed, match="key"):
        await with_keys(inner, KEY, plain=False).get("a", "plain")
    await inner.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_too_old_is_deleted_beside_the_calls_in_bounded_steps(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, most in (("sqlite", "DELETED_AT_ONCE"), ("postgres", "DELETED_AT_ONCE"), ("redis", "PAGE")):
        monkeypatch.setattr(f"sluice.kept.{module}.{most}", 2)
    name = next(_names)
    store = opened(kind, request, tmp_path, clock, name)
    for number in range(5):
        await store.put("a", kept(f"old{number}", items=(f"msg_old{number}",)))
    clock.now += KEEP + 1
    await store.put("a", kept("new", clock.now, items=("msg_new",)))
    clock.now -= KEEP
    assert len(await all_ids(store, "a")) == 6, "a call does not wait until others' responses are deleted"
    clock.now += KEEP
    assert [await store.forget() for _ in range(3)] == [True, True, False]
    clock.now -= KEEP
    assert await all_ids(store, "a") == ["new"]
    assert await store.get("a", "old0") is None
    assert await store.holder("a", "msg_new") is not None
    await store.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_all_of_a_tenant_are_found_where_they_were_kept_for_less_meanwhile(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> None:
    name, later = next(_names), Clock()
    long, short = opened(kind, request, tmp_path, clock, name), opened(kind, request, tmp_path, later, name)
    await long.put("a", kept("old"))
    later.now += KEEP + 1  # as a store that keeps for less sees it
    await short.put("a", kept("new", later.now))
    assert await all_ids(long, "a") == ["new", "old"]
    assert await long.delete_of("a") == 2
    assert await long.get("a", "old") is None
    for store in (long, short):
        await store.close()


def at_rest(path: Path) -> bytes:
    """All bytes of an SQLite file and of its log."""
    return b"".join([file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*"))])


@pytest.mark.parametrize("way", ["one", "tenant", "age"])
async def test_what_is_deleted_is_in_no_byte_of_the_file(way: str, tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "state.db"
    store = SqliteResponses(path, KEEP, clock)
    secret = KeptResponse("resp_1", "", clock.now, b"a secret" * 2000, b"secrecy", ("msg_1",))
    for id in ("resp_0", "resp_1"):
        await store.put("a", msgspec.structs.replace(secret, id=id))
    assert b"secre" in at_rest(path)
    match way:
        case "one":
            assert await store.delete("a", "resp_0")
            assert await store.delete("a", "resp_1")
        case "tenant":
            assert await store.delete_of("a") == 2
        case _:
            clock.now += KEEP + 1
            assert not await store.forget()
    assert b"secre" not in at_rest(path)
    await store.close()


async def test_what_was_deleted_while_somebody_read_is_taken_out_of_the_log_with_the_next_call(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.storage.sqlite.ERASING", 0.0)
    path = tmp_path / "state.db"
    store = SqliteResponses(path, KEEP, clock)
    await store.put("a", KeptResponse("resp_1", "", clock.now, b"a secret", b"secrecy", ()))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM sluice_response").fetchall()
        assert await store.delete("a", "resp_1")
        assert b"secre" in at_rest(path)
    assert await store.get("a", "resp_1") is None
    assert b"secre" not in at_rest(path)
    await store.close()


async def test_in_redis_everything_expires(redis: RedisServer, clock: Clock) -> None:
    prefix = next(_names)
    store = RedisResponses(redis.url, KEEP, clock, prefix=prefix, timeout=10)
    await store.put("a", kept())
    async with client.Redis(port=redis.port) as server:
        keys = [key async for key in server.scan_iter(f"{prefix}:*")]
        assert len(keys) == 4
        assert all([0 < await server.ttl(key) <= KEEP + LISTED * (b":of:" in key) for key in keys])
    await store.close()


async def test_a_store_that_is_down_is_said_in_bounded_time() -> None:
    told: list[str] = []

    class Watch:
        def failed(self, reason: str) -> None:
            told.append(reason)

        def succeeded(self) -> None:
            told.append("well")

    with redis_server() as server:
        store = WatchedResponses(RedisResponses(server.url, KEEP, Clock(), timeout=0.5), Watch())
        await store.put("a", kept())
        server.kill()
        for call in (
            store.get("a", "resp_1"),
            store.put("a", kept()),
            store.delete("a", "resp_1"),
            store.delete_of("a"),
        ):
            with pytest.raises(ResponsesFailed):
                await call
        await store.close()
    assert told == ["well", *["connection"] * 4]


async def test_memory_is_bounded_and_forgets_the_oldest_first(clock: Clock) -> None:
    few = MemoryResponses(KEEP, clock, responses=2)
    small = MemoryResponses(KEEP, clock, size=2 * len(b'[{"a":1}]{"id":"x"}'))
    for store in (few, small):
        for number in range(3):
            await store.put("a", kept(f"resp_{number}", items=(f"msg_{number}",)))
        assert await store.get("a", "resp_0") is None
        assert await store.holder("a", "msg_0") is None
        assert await store.get("a", "resp_2") is not None


async def test_a_file_is_read_after_a_restart_and_may_hold_more(tmp_path: Path, clock: Clock) -> None:
    from sluice.conversations.sqlite import SqliteConversations

    conversations = SqliteConversations(tmp_path / "state.db")
    for _ in range(2):
        store = SqliteResponses(tmp_path / "state.db", KEEP, clock)
        await store.put("a", kept())
        await store.close()
    again = SqliteResponses(tmp_path / "state.db", KEEP, clock)
    assert await again.get("a", "resp_1") == kept()
    await again.close()
    await conversations.close()
