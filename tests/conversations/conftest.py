import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.conversations import ConversationStore, SharedConversations
from sluice.conversations.memory import MemoryConversations
from sluice.conversations.redis import RedisConversations
from sluice.conversations.sqlite import SqliteConversations
from tests.servers import RedisServer, redis_server

_prefixes = (f"conversations{number}" for number in itertools.count())


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


def shared_store(kind: str, request: Any) -> SharedConversations:
    return RedisConversations(request.getfixturevalue("redis").url, prefix=next(_prefixes), timeout=10)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    kept: ConversationStore
    match request.param:
        case "memory":
            kept = MemoryConversations()
        case "sqlite":
            kept = SqliteConversations(tmp_path / "conversations.db")
        case kind:
            kept = shared_store(kind, request)
    yield kept
    await kept.close()


@pytest.fixture(params=["redis"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[SharedConversations]:
    """Those that several hosts share."""
    kept = shared_store(request.param, request)
    yield kept
    await kept.close()
