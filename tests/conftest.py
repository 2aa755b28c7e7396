"""For all tests: what was collected stays out of the garbage collector's rounds; and servers for those that
ask for them."""

import gc
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.redis_clusters import Cluster
    from tests.servers import RedisServer, Watched


def pytest_collection_finish() -> None:
    """Tests that look for leaks collect garbage; without this, each walks through every collected test and
    its imports."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cluster() -> "Iterator[Cluster]":
    """One for all tests of a process; each test keeps to a prefix of its own."""
    from tests.redis_clusters import redis_cluster

    with redis_cluster() as found:
        yield found


@pytest.fixture(scope="session")
def valkey() -> "Iterator[RedisServer]":
    """Likewise; skips the test where there is none."""
    from tests.servers import redis_server, valkey_binaries

    for binary in valkey_binaries():
        with redis_server(binary) as found:
            yield found
        return
    pytest.skip("no valkey-server (make test fetches it into .cache/bin)")


@pytest.fixture(scope="session")
def sentinel() -> "Iterator[Watched]":
    """A Redis that is found by asking a Sentinel, for all tests of a process."""
    from tests.servers import RedisSentinel, Watched, redis_server

    with redis_server() as master, TemporaryDirectory(prefix="sentinel-") as directory:
        watching = RedisSentinel(directory, master)
        watching.start()
        try:
            yield Watched(master, watching)
        finally:
            watching.kill()
