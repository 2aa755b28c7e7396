import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest

from sluice.keystore import KeyStore
from sluice.keystore.memory import MemoryKeys
from sluice.keystore.postgres import PostgresKeys
from sluice.keystore.redis import RedisKeys
from sluice.keystore.sqlite import SqliteKeys
from tests.servers import PostgresServer, RedisServer, pgbouncer, postgres_server, redis_server

_prefixes = (f"keys{number}" for number in itertools.count())
Open = Callable[[], KeyStore]


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """One real server for all tests of a process; each test keeps to a prefix of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Likewise, with a schema for each test."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def bouncer(postgres: PostgresServer) -> Iterator[str]:
    """The address of a pooler in transaction mode before it."""
    with pgbouncer(postgres) as address:
        yield address


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that the test may stop and kill."""
    with redis_server() as server:
        yield server


class _Closing:
    def __init__(self, store: KeyStore) -> None:
        self.aclose = store.close


async def _opening(make: Open) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        def opened() -> KeyStore:
            store = make()
            stack.push_async_exit(aclosing(_Closing(store)))
            return store

        yield opened


def _maker(kind: str, request: Any, tmp_path: Path) -> Open:
    if kind in ("redis", "valkey", "sentinel", "cluster"):
        url, prefix = request.getfixturevalue(kind).url, next(_prefixes)
        return lambda: RedisKeys(url, prefix=prefix, timeout=10)
    if kind in ("postgres", "pgbouncer"):
        base = (
            request.getfixturevalue("postgres").url
            if kind == "postgres"
            else request.getfixturevalue("bouncer")
        )
        address = f"{base}&schema={next(_prefixes)}"
        return lambda: PostgresKeys(address, timeout=10)
    if kind == "sqlite":
        return lambda: SqliteKeys(tmp_path / "keys.db")
    memory = MemoryKeys()
    return lambda: memory


@pytest.fixture(
    params=["memory", "sqlite", "redis", "valkey", "sentinel", "cluster", "postgres", "pgbouncer"]
)
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the same store, each time as another process would."""
    async for opening in _opening(_maker(request.param, request, tmp_path)):
        yield opening


@pytest.fixture(params=["sqlite", "redis", "cluster", "postgres"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """The same, of those that outlive a process."""
    async for opening in _opening(_maker(request.param, request, tmp_path)):
        yield opening
