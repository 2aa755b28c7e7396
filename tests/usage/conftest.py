import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sluice.usage import UsageStore
from sluice.usage.memory import MemoryUsage
from sluice.usage.postgres import PostgresUsage
from sluice.usage.redis import RedisUsage
from sluice.usage.sqlite import SqliteUsage
from tests.servers import PostgresServer, RedisServer, pgbouncer, postgres_server, redis_server

_prefixes = (f"usage{number}" for number in itertools.count())


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


@pytest.fixture(
    params=["memory", "sqlite", "redis", "valkey", "sentinel", "cluster", "postgres", "pgbouncer"]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UsageStore]:
    kept: UsageStore
    match request.param:
        case "memory":
            kept = MemoryUsage()
        case "sqlite":
            kept = SqliteUsage(tmp_path / "usage.db")
        case "postgres":
            kept = PostgresUsage(
                f"{request.getfixturevalue('postgres').url}&schema={next(_prefixes)}", timeout=10
            )
        case "pgbouncer":
            kept = PostgresUsage(f"{request.getfixturevalue('bouncer')}&schema={next(_prefixes)}", timeout=10)
        case kind:
            kept = RedisUsage(request.getfixturevalue(kind).url, prefix=next(_prefixes), timeout=10)
    yield kept
    await kept.close()
