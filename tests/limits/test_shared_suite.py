"""What every store does, asked of the shared one. To be deleted once `stores.STORES` names it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.limits.stores import Lab, Oracle
from tests.limits.test_bucket_oracle import FAST, agrees, steps
from tests.limits.test_bucket_store import *  # noqa: F403
from tests.limits.test_shared_store import shared_lab


@pytest.fixture
async def at() -> AsyncIterator[Lab]:  # type: ignore[no-redef]
    async with shared_lab() as opened:
        yield opened


@FAST
@given(st.lists(steps, max_size=40))
def test_agrees_with_the_oracle(sequence: list[tuple[str, Any]]) -> None:
    async def run() -> None:
        async with shared_lab(size=256) as at:
            await agrees(at, Oracle(writes_only=True), sequence)

    asyncio.run(run())
