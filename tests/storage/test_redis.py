"""The client of Redis and everybody who uses it, against real servers that refuse, are demoted or are not
there."""

import asyncio
import contextlib
import itertools
import re
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
import redis.asyncio as client

from sluice.conversations import ConversationsFailed, Lease, Turn
from sluice.conversations.redis import RedisConversations
from sluice.errors import Unavailable
from sluice.keystore import KeyStoreFailed as KeysFailed
from sluice.keystore.redis import RedisKeys
from sluice.limits import Claim, Limit
from sluice.limits.faults import BucketStoreFailed as LimitsFailed
from sluice.limits.redis import RedisStore
from sluice.resume import StreamHead
from sluice.resume.redis import RedisJournals
from sluice.storage import REASONS, Reason
from sluice.usage import Figures, Subject, UsageBatch, UsageFailed
from sluice.usage.redis import RedisUsage
from tests.keystore.keys import stored
from tests.servers import RedisSentinel, RedisServer, free_port, redis_binaries, redis_server

PASSWORD = "geheim"
HANG = 20
"""Seconds after which a test gives up."""
DAY = "2026-11-30"
_prefixes = (f"user{number}" for number in itertools.count())


@pytest.fixture(autouse=True)
def _asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.resume.redis.LEFT_ALONE", 0.0)


Work = Callable[[], Awaitable[object]]


class User:
    """One who uses Redis: `read` and `write` once; the reason for which it failed, or None."""

    def __init__(
        self,
        read: Callable[[], Awaitable[object]],
        write: Callable[[], Awaitable[object]],
        close: Callable[[], Awaitable[object]],
    ) -> None:
        self._read = read
        self._write = write
        self.close = close

    async def read(self) -> Reason | None:
        return await self._reason(self._read)

    async def write(self) -> Reason | None:
        return await self._reason(self._write)

    async def _reason(self, what: Work) -> Reason | None:
        try:
            await what()
        except (ConversationsFailed, LimitsFailed, KeysFailed, UsageFailed) as error:
            return error.reason
        return None


def limits(url: str) -> User:
    store = RedisStore(url, prefix=next(_prefixes), timeout=HANG)

    async def take() -> None:
        await store.take([Claim("k", Limit(10.0, 1.0))])

    return User(take, take, store.close)


def keys(url: str) -> User:
    store = RedisKeys(url, prefix=next(_prefixes), timeout=HANG)
    numbers = iter(range(1000))

    async def put() -> None:
        assert await store.put(stored(f"k{next(numbers)}"), 0) is not None

    return User(lambda: store.changes(0), put, store.close)


def usage(url: str) -> User:
    store = RedisUsage(url, prefix=next(_prefixes), timeout=HANG)
    numbers = iter(range(1, 1000))

    async def add() -> None:
        await store.add(UsageBatch("w", next(numbers), DAY, [(Subject(DAY, "k", "t", "a", "m"), Figures(1))]))

    return User(lambda: store.of_day(DAY), add, store.close)


def resume(url: str) -> User:
    reasons: list[Reason] = []
    store = RedisJournals(
        f"{url}{'&' if '?' in url else '?'}timeout={HANG}s", prefix=next(_prefixes), failed=reasons.append
    )
    numbers = iter(range(1000))

    async def find() -> None:
        reasons.clear()
        try:
            await store.find("s")
        except Unavailable:
            raise UsageFailed("", reasons[-1]) from None

    async def write() -> None:
        reasons.clear()
        journal = await store.open(f"s{next(numbers)}", StreamHead("k", "openai", 0, 60))
        if journal.unresumable:
            raise UsageFailed("", reasons[-1])
        journal.append([b"x"], last=True)

    return User(find, write, store.close)


def conversations(url: str) -> User:
    store = RedisConversations(url, prefix=next(_prefixes), timeout=HANG)
    numbers = (str(number) for number in itertools.count())

    async def turn() -> None:
        lease = Lease("acme", next(numbers), "holder")
        begun = await store.begin(lease, 10)
        assert begun is not None
        await store.finish(lease, begun.id, [Turn("user", "hello", 1.0)])

    return User(lambda: store.recent(f"x.{'y' * 22}", 10), turn, store.close)


USERS = {"conversations": conversations, "limits": limits, "keys": keys, "usage": usage, "resume": resume}


@pytest.fixture(params=USERS)
def using(request: pytest.FixtureRequest) -> Callable[[str], User]:
    found: Callable[[str], User] = USERS[request.param]
    return found


@asynccontextmanager
async def opened(using: Callable[[str], User], url: str) -> AsyncIterator[User]:
    user = using(url)
    try:
        yield user
    finally:
        await user.close()


@pytest.fixture(
    scope="module", params=redis_binaries() or [None], ids=lambda path: (path or "none").split("/")[1]
)
def guarded(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with a password, and with users that may do less; of every version at hand."""
    options = ["--requirepass", PASSWORD, "--user", "nothing", "on", f">{PASSWORD}", "~*", "+@connection"]
    options += ["--user", "elsewhere", "on", f">{PASSWORD}", "~other*", "+@all", "--databases", "2"]
    with redis_server(request.param, *options) as server:
        yield server


@pytest.mark.parametrize(
    ("login", "path", "reason"),
    [
        ("", "/0", "noauth"),
        (":wrong@", "/0", "wrongpass"),
        ("nobody:wrong@", "/0", "wrongpass"),
        (f"nothing:{PASSWORD}@", "/0", "noperm"),
        (f"elsewhere:{PASSWORD}@", "/0", "noperm"),
        (f":{PASSWORD}@", "/2", "database"),
        (f":{PASSWORD}@", "/1", None),
        (f":{PASSWORD}@", "?db=1", None),
    ],
)
async def test_everybody_knows_why_it_is_refused(
    guarded: RedisServer, using: Callable[[str], User], login: str, path: str, reason: str | None
) -> None:
    patient = f"{path}{'&' if '?' in path else '?'}connect_timeout={HANG}s"  # however slow the machine
    async with opened(using, f"valkey://{login}127.0.0.1:{guarded.port}{patient}") as user:
        assert await user.write() == reason
        assert await user.read() == reason


@contextmanager
def out_of_memory() -> Iterator[str]:
    with redis_server(None, "--maxmemory", "1", "--maxmemory-policy", "noeviction") as server:
        yield server.url


@contextmanager
def cluster_without_slots() -> Iterator[str]:
    with redis_server(None, "--cluster-enabled", "yes") as server:
        yield f"redis://127.0.0.1:{server.port}"


@contextmanager
def nobody() -> Iterator[str]:
    yield f"redis://127.0.0.1:{free_port()}"


@contextmanager
def no_tls() -> Iterator[str]:
    with redis_server() as server:
        yield f"rediss://127.0.0.1:{server.port}?connect_timeout=1s"  # Redis 7.0 answers nothing to a hello


@contextmanager
def no_sentinel() -> Iterator[str]:
    yield f"redis+sentinel://127.0.0.1:{free_port()}/main"


@contextmanager
def too_few_replicas() -> Iterator[str]:
    with redis_server(None, "--min-replicas-to-write", "1") as server:
        yield server.url


@pytest.mark.parametrize(
    ("server", "reasons"),
    [
        (out_of_memory, {"oom"}),
        (cluster_without_slots, {"clusterdown"}),
        (nobody, {"connection"}),
        (no_tls, {"tls", "connection", "timeout"}),
        (no_sentinel, {"no_master"}),
        (too_few_replicas, {"noreplicas"}),
    ],
)
async def test_what_a_server_cannot_do_has_its_reason(
    using: Callable[[str], User], server: Callable[[], object], reasons: set[str]
) -> None:
    with server() as url:  # type: ignore[attr-defined]
        async with opened(using, url) as user:
            assert await user.write() in reasons


@pytest.mark.parametrize(
    "reply",
    [
        b"+OK",
        b"$-1",
        b":7",
        b"*-1",
        b"*0",
        b"*1\r\n+OK",
        b"*2\r\n:1\r\n:2",
        b"*3\r\n$-1\r\n$-1\r\n$-1",
        b"*1\r\n*1\r\n*0",
    ],
)
async def test_what_is_no_redis_is_a_store_that_fails(using: Callable[[str], User], reply: bytes) -> None:
    """One who answers everything with the same: a start ended with a traceback, calls with a 500."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                commands = re.findall(rb"(?:^|\r\n)\*\d+\r\n\$\d+\r\n", data)
                writer.write((reply + b"\r\n") * len(commands))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, opened(using, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as user:
        for _ in range(2):
            assert await user.write() in (None, *REASONS)
            assert await user.read() in (None, *REASONS)


async def test_a_node_of_a_cluster_that_has_other_keys_is_known_as_such(using: Callable[[str], User]) -> None:
    with (
        redis_server(None, "--cluster-enabled", "yes") as here,
        redis_server(None, "--cluster-enabled", "yes") as there,
    ):
        async with (
            client.Redis(port=here.port) as raw,
            client.Redis(port=there.port) as other,
            asyncio.timeout(HANG),
        ):
            name = await other.execute_command("CLUSTER", "MYID")
            await raw.execute_command("CLUSTER", "MEET", "127.0.0.1", there.port)
            while name not in await raw.execute_command("CLUSTER", "NODES"):
                await asyncio.sleep(0.01)
            await other.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            while b"cluster_state:ok" not in await raw.execute_command("CLUSTER", "INFO"):
                await asyncio.sleep(0.01)
        async with opened(using, f"redis://127.0.0.1:{here.port}") as user:
            assert await user.write() == "moved"
            assert await user.read() == "moved"


async def test_a_sentinel_whose_host_is_gone_does_not_keep_the_others_from_being_asked(
    using: Callable[[str], User],
) -> None:
    """It does not answer at all, for longer than any call may take."""
    with (
        redis_server() as master,
        tempfile.TemporaryDirectory(prefix="sentinel-") as directory,
        socket.create_server(("127.0.0.1", 0)) as gone,
    ):
        sentinel = RedisSentinel(directory, master)
        sentinel.start()
        try:
            hosts = f"127.0.0.1:{gone.getsockname()[1]},127.0.0.1:{sentinel.port}"
            url = f"redis+sentinel://{hosts}/main?connect_timeout=30s"
            async with opened(using, url) as user, asyncio.timeout(HANG):
                while await user.write() is not None:  # the machine may be busy
                    await asyncio.sleep(0.05)
        finally:
            sentinel.kill()


@pytest.mark.parametrize("first", ["read", "write"])
async def test_a_demoted_master_that_keeps_its_connections_is_left(
    using: Callable[[str], User], first: str
) -> None:
    with (
        redis_server() as old,
        redis_server() as new,
        tempfile.TemporaryDirectory(prefix="sentinel-") as directory,
    ):
        sentinel = RedisSentinel(directory, old)
        sentinel.start()
        try:
            async with (
                opened(using, f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main") as user,
                client.Redis(port=sentinel.port) as watcher,
                client.Redis(port=old.port) as raw,
                client.Redis(port=new.port) as other,
            ):
                assert await user.write() is None
                assert await user.read() is None
                await watcher.execute_command("SENTINEL", "REMOVE", "main")
                await raw.execute_command("REPLICAOF", "127.0.0.1", new.port)
                async with asyncio.timeout(HANG):
                    while (await raw.info("replication"))["master_link_status"] != "up":
                        await asyncio.sleep(0.01)
                await watcher.execute_command("SENTINEL", "MONITOR", "main", "127.0.0.1", new.port, 1)
                assert await getattr(user, first)() == "readonly"
                assert await user.read() is None
                assert await user.write() is None
                await other.ping()
                assert await other.dbsize() > 0
        finally:
            sentinel.kill()


async def test_a_host_that_has_become_a_replica_is_left_too_and_found_again(
    using: Callable[[str], User],
) -> None:
    """Without sentinels the name is all there is: it is resolved again, and once it is a master's it
    serves."""
    with redis_server() as server:
        async with opened(using, server.url) as user, client.Redis(port=server.port) as raw:
            assert await user.write() is None
            await raw.execute_command("REPLICAOF", "127.0.0.1", free_port())
            before = (await raw.info("stats"))["total_connections_received"]
            assert {await user.write() for _ in range(3)} == {"readonly"}
            assert (await raw.info("stats"))["total_connections_received"] > before
            await raw.execute_command("REPLICAOF", "NO", "ONE")
            assert await user.write() is None
            assert await user.read() is None


@asynccontextmanager
async def far_away(port: int, seconds: float) -> AsyncIterator[str]:
    """A way to the server on which every answer takes as long."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
        while data := await reader.read(65536):
            await asyncio.sleep(delay)
            writer.write(data)
        writer.close()

    tasks: set[asyncio.Task[object]] = set()

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        tasks.update(
            asyncio.create_task(one) for one in (pump(reader, back, 0.0), pump(there, writer, seconds))
        )

    async with await asyncio.start_server(link, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for task in tasks:
            task.cancel()


async def test_a_server_that_is_far_away_can_be_used_with_a_timeout_that_says_so() -> None:
    with redis_server() as server:
        async with far_away(server.port, 0.06) as url:
            near, far = RedisStore(url), RedisStore(f"{url}?timeout=10s")
            assert (near.timeout, far.timeout) == (0.05, 10.0)
            with pytest.raises(LimitsFailed) as refused:
                await near.take([Claim("k", Limit(10.0, 1.0))])
            assert refused.value.reason == "timeout"
            assert (await far.take([Claim("k", Limit(10.0, 1.0))])).admitted
            await near.close()
            await far.close()
