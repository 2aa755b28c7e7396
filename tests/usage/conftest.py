import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sluice.usage import UsageStore
from sluice.usage.memory import MemoryUsage
from sluice.usage.redis import RedisUsage
from sluice.usage.sqlite import SqliteUsage
from tests.servers import RedisServer, redis_server

_prefixes = (f"usage{number}" for number in itertools.count())


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """One real server for all tests of a process; each test keeps to a prefix of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UsageStore]:
    kept: UsageStore
    match request.param:
        case "memory":
            kept = MemoryUsage()
        case "sqlite":
            kept = SqliteUsage(tmp_path / "usage.db")
        case _:
            kept = RedisUsage(request.getfixturevalue("redis").url, prefix=next(_prefixes))
    yield kept
    await kept.close()
