from collections.abc import AsyncIterator, Iterator

import pytest

from tests.limits.stores import STORES, Lab, Server, lab
from tests.servers import RedisServer, redis_server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """One real server for all tests of a process; each test keeps to a prefix of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A server that the test may stop and kill."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session", params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    """Each store by its name."""
    found: str = request.param
    return found


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, kind: str) -> Server | None:
    """What the store needs to run."""
    redis = ("redis", "valkey", "sentinel", "cluster")
    found: Server | None = request.getfixturevalue(kind) if kind in redis else None
    return found


@pytest.fixture
async def at(kind: str, server: Server | None) -> AsyncIterator[Lab]:
    async with lab(kind, server) as opened:
        yield opened
