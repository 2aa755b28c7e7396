"""The client of PostgreSQL: migrations beside the version before, and servers that refuse, freeze, die and
come back."""

import asyncio
import contextlib
import hashlib
import re
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from sluice.conversations import ConversationsFailed, Lease, Turn
from sluice.conversations import postgres as conversations
from sluice.conversations.leases import Leases
from sluice.conversations.postgres import PostgresConversations
from sluice.kept import postgres as responses
from sluice.kept.postgres import PostgresResponses
from sluice.keystore import KeyStoreFailed
from sluice.keystore import postgres as keystore
from sluice.keystore.postgres import PostgresKeys
from sluice.model.kept import KeptResponse
from sluice.storage import Reason
from sluice.storage.postgres import PostgresClient, PostgresFailed, StoreTables
from sluice.storage.postgres_address import address_of
from sluice.usage import Figures, Subject, UsageBatch, UsageFailed
from sluice.usage import postgres as usage
from sluice.usage.postgres import PostgresUsage
from tests.keystore.keys import stored
from tests.servers import PostgresServer, free_port, postgres_server

HANG = 60.0
DAY = "2026-11-30"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may stop and kill."""
    with postgres_server() as server:
        yield server


FIRST = "CREATE TABLE {s}.thing (name text PRIMARY KEY)"
SECOND = "ALTER TABLE {s}.thing ADD COLUMN size integer NOT NULL DEFAULT 0; CREATE INDEX thing_size ON {s}.thing (size)"
OLD, NEW = StoreTables("things", (FIRST,)), StoreTables("things", (FIRST, SECOND))
BREAKING = StoreTables("things", (FIRST, SECOND, "ALTER TABLE {s}.thing DROP COLUMN size"), breaks=3)


@asynccontextmanager
async def client(
    server: PostgresServer, schema: str, part: StoreTables, timeout: float = HANG
) -> AsyncIterator[PostgresClient]:
    made = PostgresClient(address_of(f"{server.url}&schema={schema}"), part, connections=2, timeout=timeout)
    yield made
    await made.close()


async def add(to: PostgresClient, name: str) -> None:
    async with to.asking() as connection:
        await connection.execute(to.statement("INSERT INTO {s}.thing (name) VALUES ($1)"), name)


async def count(of: PostgresClient) -> int:
    async with of.asking() as connection:
        found: int = await connection.fetchval(of.statement("SELECT count(*) FROM {s}.thing"))
        return found


async def test_a_version_and_the_one_before_it_run_side_by_side(postgres: PostgresServer) -> None:
    async with client(postgres, "beside", OLD) as old:
        await add(old, "before")
        async with client(postgres, "beside", NEW) as new:
            writing = [asyncio.create_task(add(old, f"old {number}")) for number in range(20)]
            await add(new, "new")
            await asyncio.gather(*writing)
            await add(old, "after")
            async with client(postgres, "beside", OLD) as restarted:
                await add(restarted, "restarted")
                assert await count(restarted) == await count(new) == await count(old) == 24
            async with new.asking() as connection:
                part = await connection.fetchrow(new.statement("SELECT version, least FROM {s}.sluice_part"))
            assert tuple(part) == (2, 1), "the version before, started again, has not set it back"


async def test_of_many_that_start_at_once_one_migrates(postgres: PostgresServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(postgres, "many", part)) for part in (OLD, NEW) * 5]
        await asyncio.gather(*(add(each, str(number)) for number, each in enumerate(clients)))
        assert await count(clients[0]) == 10


async def test_a_version_that_cannot_live_with_the_tables_refuses_to_use_them(
    postgres: PostgresServer,
) -> None:
    async with client(postgres, "breaking", NEW) as new:
        await add(new, "a")
    async with client(postgres, "breaking", BREAKING) as newest:
        await add(newest, "b")
    async with client(postgres, "breaking", NEW) as new:
        with pytest.raises(PostgresFailed, match="reply"):
            await add(new, "c")


async def test_a_migration_that_fails_leaves_nothing_behind(postgres: PostgresServer) -> None:
    async with client(
        postgres, "half", StoreTables("things", (FIRST, "CREATE TABLE {s}.other (x nonsense)"))
    ) as broken:
        with pytest.raises(PostgresFailed):
            await add(broken, "a")
    async with client(postgres, "half", OLD) as old:
        await add(old, "a")


async def talk(url: str) -> None:
    store = PostgresConversations(url, timeout=HANG)
    lease = Lease("acme", "s", uuid.uuid4().hex)
    begun = await store.begin(lease, 99)
    assert begun is not None
    await store.finish(lease, begun.id, [Turn("user", "hello", 1.0)])
    assert await store.recent(begun.id, 99) == [*begun.turns, Turn("user", "hello", 1.0)]
    await store.close()


async def make_keys(url: str) -> None:
    store = PostgresKeys(url, timeout=HANG)
    id = uuid.uuid4().hex
    await store.put(stored(id), 0)
    assert id in await store.ids()
    await store.close()


async def count_usage(url: str) -> None:
    store = PostgresUsage(url, timeout=HANG)
    subject = Subject(DAY, uuid.uuid4().hex, "t", "a", "m")
    await store.add(UsageBatch(uuid.uuid4().hex, 1, DAY, [(subject, Figures(1))]))
    assert (subject, Figures(1)) in await store.of_day(DAY)
    await store.close()


async def keep_responses(url: str) -> None:
    store = PostgresResponses(url, 100.0, lambda: 1000.0, timeout=HANG)
    kept = KeptResponse(uuid.uuid4().hex, "", 1000.0, b"[]", b"{}", ("msg",))
    await store.put("acme", kept)
    assert await store.get("acme", kept.id) == kept
    await store.close()


OURS = {
    "conversations": (conversations.TABLES, talk),
    "keys": (keystore.TABLES, make_keys),
    "usage": (usage.TABLES, count_usage),
    "responses": (responses.TABLES, keep_responses),
}


@pytest.mark.parametrize("name", OURS)
async def test_our_own_stores_work_beside_their_next_version(name: str, postgres: PostgresServer) -> None:
    part, use = OURS[name]
    url = f"{postgres.url}&schema=ours_{name}"
    await use(url)
    tables = re.findall(r"TABLE \{s\}\.(\w+)", " ".join(part.migrations))
    more = ";".join(
        f"ALTER TABLE {{s}}.{table} ADD COLUMN later text NOT NULL DEFAULT ''" for table in tables
    )
    next_version = StoreTables(part.name, (*part.migrations, more))
    async with client(postgres, f"ours_{name}", next_version) as migrated, migrated.asking():
        pass
    await use(url)


MIGRATIONS = {
    "conversations": ["97182ee112952f0f", "a7d646484cadfa8d"],
    "keys": ["291c6b1cb6f22729"],
    "usage": ["0928e84f639bc38f", "d32ea70bbb717038"],
    "responses": ["d6782c9322c74d59"],
}
"""Each migration that was ever landed, by the beginning of its SHA-256."""


@pytest.mark.parametrize("name", OURS)
def test_a_migration_that_databases_have_had_never_changes(name: str) -> None:
    """What is added comes as another one, and here behind the others. The tables of usage are made of the names of
    its figures: with a new one, the migrations from before need the old names written out."""
    found = [hashlib.sha256(one.encode()).hexdigest()[:16] for one in OURS[name][0].migrations]
    assert found == MIGRATIONS[name]


async def reasons(url: str, timeout: float = HANG) -> set[Reason | None]:
    """Why each store fails there; None: it does not."""
    stores = (
        PostgresConversations(url, timeout=timeout),
        PostgresKeys(url, timeout=timeout),
        PostgresUsage(url, timeout=timeout),
    )
    talk, keys, usage = stores
    calls = (
        talk.begin(Lease("acme", "s", "x"), 1),
        keys.put(stored("a"), 0),
        usage.add(UsageBatch("w", 1, DAY, [(Subject(DAY, "k", "t", "a", "m"), Figures(1))])),
    )
    found: set[Reason | None] = set()
    for call in calls:
        try:
            await call
        except (ConversationsFailed, KeyStoreFailed, UsageFailed) as error:
            found.add(error.reason)
        else:
            found.add(None)
    for store in stores:
        await store.close()
    return found


async def test_what_is_wrong_with_a_server_has_its_reason(postgres: PostgresServer) -> None:
    async with client(postgres, "public", OLD) as admin, admin.asking() as connection:
        await connection.execute("CREATE ROLE nobody LOGIN")
        await connection.execute("CREATE DATABASE frozen")
        await connection.execute("ALTER DATABASE frozen SET default_transaction_read_only = on")
    base = f"127.0.0.1:{postgres.port}"
    assert await reasons(f"postgresql://postgres@{base}/nothing?sslmode=disable") == {"database"}
    assert await reasons(f"postgresql://stranger@{base}/postgres?sslmode=disable") == {"wrongpass"}
    assert await reasons(f"postgresql://nobody@{base}/postgres?sslmode=disable&schema=theirs") == {"noperm"}
    assert await reasons(f"postgresql://postgres@{base}/frozen?sslmode=disable") == {"readonly"}
    assert await reasons(f"postgresql://postgres@{base}/postgres?sslmode=require") <= {"tls", "connection"}
    assert await reasons(f"postgresql://postgres@127.0.0.1:{free_port()}/postgres") == {"connection"}
    assert await reasons(
        f"postgresql://postgres@127.0.0.1:{free_port()},{base}/postgres?sslmode=disable&schema=second"
    ) == {None}


async def test_a_server_that_is_frozen_is_a_failure_in_bounded_time_and_works_again_at_once(
    own_postgres: PostgresServer,
) -> None:
    patient = PostgresConversations(own_postgres.url, timeout=HANG)
    id = await patient.open("acme", "s")
    await patient.append("acme", "s", id, [Turn("user", "hello", 1.0)])
    await patient.close()
    store = PostgresConversations(own_postgres.url, timeout=0.3)
    own_postgres.stop()
    async with asyncio.timeout(HANG):
        for call in (store.open("acme", "s"), store.recent(id, 1), store.newest(1)):
            with pytest.raises(ConversationsFailed, match="timeout"):
                await call
    own_postgres.resume()
    async with asyncio.timeout(HANG):
        while True:
            with contextlib.suppress(ConversationsFailed):
                assert len(await store.recent(id, 9)) == 1
                break
    await store.close()


async def test_a_turn_is_stored_once_when_the_server_is_back(own_postgres: PostgresServer) -> None:
    store = PostgresConversations(own_postgres.url, timeout=HANG)
    of = Leases(store, lambda operation, error: None)
    lease, begun = await of.begin("acme", "s", 9, lambda change: None)
    own_postgres.kill()
    turn = [Turn("user", "hello", 1.0)]
    storing = asyncio.create_task(of.finish(lease, begun.id, turn))
    await asyncio.sleep(0.05)
    assert not storing.done()
    await asyncio.to_thread(own_postgres.start)
    await storing
    await store.finish(lease, begun.id, turn)
    assert await store.recent(begun.id, 9) == turn
    await of.close()
    await store.close()


async def test_a_closed_store_says_so(postgres: PostgresServer) -> None:
    store = PostgresConversations(postgres.url)
    await store.close()
    with pytest.raises(ConversationsFailed):
        await store.newest(1)


async def test_calls_that_fail_together_at_one_host_go_to_the_other(
    postgres: PostgresServer, own_postgres: PostgresServer
) -> None:
    """Two hosts, and two calls at a time: were each of them to go on to the next host, they would come back."""
    for server in (postgres, own_postgres):
        async with client(server, "together", OLD) as made:
            await add(made, "before")
    hosts = f"127.0.0.1:{own_postgres.port},127.0.0.1:{postgres.port}"
    url = f"postgresql://postgres@{hosts}/postgres?sslmode=disable&connect_timeout=30&schema=together"
    several = PostgresClient(address_of(url), OLD, connections=2, timeout=2.0)

    async def two() -> list[int | BaseException]:
        return await asyncio.gather(count(several), count(several), return_exceptions=True)

    async with asyncio.timeout(HANG):
        while await two() != [1, 1]:  # the machine may be busy
            pass
        own_postgres.stop()
        while 1 not in await two():
            pass
    await several.close()


async def test_a_host_that_does_not_answer_hides_no_other(postgres: PostgresServer) -> None:
    """It does not answer at all, for longer than any call may take."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        first = f"127.0.0.1:{gone.getsockname()[1]},127.0.0.1:{postgres.port}"
        url = f"postgresql://postgres@{first}/postgres?sslmode=disable&connect_timeout=30&schema=several"
        made = PostgresClient(address_of(url), OLD, connections=2, timeout=2.0)
        async with asyncio.timeout(HANG):
            while True:  # the machine may be busy
                with contextlib.suppress(PostgresFailed):
                    await add(made, "thing")
                    break
        await made.close()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # of a connection that asyncpg left half made
@pytest.mark.parametrize("reply", [b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I", b"R\0\0\0\x08\0\0\0\x63", b"$-1\r\n"])
async def test_what_is_no_postgres_is_a_store_that_fails(reply: bytes) -> None:
    """A server without a version (the first one) ended the start with a traceback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if await reader.read(65536):
                writer.write(reply)
                await reader.read(65536)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        address = address_of(f"postgresql://127.0.0.1:{server.sockets[0].getsockname()[1]}/d?sslmode=disable")
        asked = PostgresClient(address, OLD, connections=1, timeout=2.0)
        with pytest.raises(PostgresFailed):
            async with asked.asking():
                raise AssertionError("it is no server")
        await asked.close()
