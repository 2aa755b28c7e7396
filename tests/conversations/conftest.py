import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sluice.conversations import ConversationStore, SharedConversations
from sluice.conversations.memory import MemoryConversations
from sluice.conversations.postgres import PostgresConversations
from sluice.conversations.redis import RedisConversations
from sluice.conversations.sqlite import SqliteConversations
from sluice.storage.sealing import Seals
from tests.servers import PostgresServer, RedisServer, pgbouncer, postgres_server, redis_server

SHARED = [
    "redis", "valkey", "sentinel", "cluster", "postgres", "pgbouncer", "redis encrypted", "postgres encrypted",
]  # fmt: skip
LOCAL = ["memory", "sqlite", "sqlite encrypted"]
KEY = bytes(range(32))
_prefixes = (f"conversations{number}" for number in itertools.count())


class Clock:
    """The wall clock of a store and of what is said; Redis asks it for itself."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("sluice.conversations.redis.now", clock)
    return clock


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


def seals_of(*keys: bytes, plain: bool = True) -> Seals:
    seals = Seals()
    seals.use(keys, unsealed=plain)
    return seals


def shared_store(kind: str, request: Any, seals: Seals | None = None, **redis: Any) -> SharedConversations:
    kind, _, encrypted = kind.partition(" ")
    seals = seals or seals_of(*([KEY] if encrypted else []))
    if kind == "postgres":
        return PostgresConversations(
            f"{request.getfixturevalue('postgres').url}&schema={next(_prefixes)}", timeout=10, seals=seals
        )
    if kind == "pgbouncer":
        return PostgresConversations(
            f"{request.getfixturevalue('bouncer')}&schema={next(_prefixes)}", timeout=10, seals=seals
        )
    return RedisConversations(
        request.getfixturevalue(kind).url, prefix=next(_prefixes), timeout=10, seals=seals, **redis
    )


def local_store(kind: str, directory: Path) -> ConversationStore:
    if kind == "memory":
        return MemoryConversations()
    return SqliteConversations(
        directory / "conversations.db", seals_of(*([KEY] if kind.endswith("encrypted") else []))
    )


@pytest.fixture(params=[*LOCAL, *SHARED])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConversationStore]:
    kind = request.param
    kept = shared_store(kind, request) if kind in SHARED else local_store(kind, tmp_path)
    yield kept
    await kept.close()


@pytest.fixture(params=SHARED)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[SharedConversations]:
    """Those that several hosts share."""
    kept = shared_store(request.param, request)
    yield kept
    await kept.close()
