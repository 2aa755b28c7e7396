"""For all tests: what was collected stays out of the garbage collector's rounds, and a Redis Cluster for those that ask."""

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.redis_clusters import Cluster


def pytest_collection_finish() -> None:
    """Tests that look for leaks collect garbage; without this, each walks through every collected test and its imports."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def cluster() -> "Iterator[Cluster]":
    """One for all tests of a process; each test keeps to a prefix of its own."""
    from tests.redis_clusters import redis_cluster

    with redis_cluster() as found:
        yield found
