"""Every test with sockets runs on both event loops."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.upstream.calls import Caller


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    """Calls through one transport per test; at the end no connection, place or waiter may be left."""
    caller = Caller()
    yield caller
    await caller.close()
