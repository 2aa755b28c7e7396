"""The store in a file that processes share: what every store does, then what only it has to do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits import Claim, Limit, Slot
from gateway.limits.shared import SharedStore
from tests.limits.stores import EPOCH, Lab, Oracle
from tests.limits.test_bucket_oracle import FAST, agrees, steps
from tests.limits.test_bucket_store import *  # noqa: F403  # until the suite knows this store


class SharedLab(Lab):
    def __init__(self, path: Path, **options: Any) -> None:
        self.steps = EPOCH
        self.path = path
        self.options = options
        self.store = self.another()

    def another(self) -> SharedStore:
        """A second process's view of the same file."""
        return SharedStore(self.path, clock=lambda: self.steps / 64, wall=lambda: self.steps / 64, **self.options)


@asynccontextmanager
async def shared_lab(**options: Any) -> AsyncIterator[SharedLab]:
    with TemporaryDirectory() as folder:
        opened = SharedLab(Path(folder) / "limits", **options)
        try:
            yield opened
        finally:
            await opened.store.close()


@pytest.fixture
async def at() -> AsyncIterator[SharedLab]:
    async with shared_lab() as opened:
        yield opened


@FAST
@given(st.lists(steps, max_size=40))
def test_agrees_with_the_oracle(sequence: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        async with shared_lab(size=256) as at:
            await agrees(at, Oracle(writes_only=True), sequence)

    asyncio.run(run())
