"""An operation that is repeated while its store is down."""

import pytest

from sluice.storage import Reason
from sluice.storage.again import AGAIN, MAX_RETRY_SECONDS, MIN_RETRY_SECONDS, stored


class Failed(OSError):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Store:
    def __init__(self, *failures: Exception) -> None:
        self.now, self.calls, self.waits = 0.0, 0, list[float]()
        self._failures = [*failures]

    async def operation(self) -> None:
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0) if len(self._failures) > 1 or self.calls == 1 else self._failures[0]

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


async def run(store: Store) -> None:
    await stored(store.operation, clock=lambda: store.now, sleep=store.sleep)


async def test_a_store_that_comes_back_gets_the_operation_once_more() -> None:
    store = Store(Failed("timeout"))
    await run(store)
    assert (store.calls, store.waits) == (2, [MIN_RETRY_SECONDS])


async def test_a_store_that_stays_away_is_tried_for_a_bounded_time_with_growing_waits() -> None:
    store = Store(*[Failed("connection")] * 1000)
    with pytest.raises(Failed):
        await run(store)
    assert store.now <= AGAIN < store.now + MAX_RETRY_SECONDS
    assert store.waits == sorted(store.waits)
    assert max(store.waits) <= MAX_RETRY_SECONDS


@pytest.mark.parametrize("error", [Failed("reply"), OSError("no reason"), ValueError("ours")])
async def test_what_another_try_cannot_help_is_raised_at_once(error: Exception) -> None:
    store = Store(error)
    with pytest.raises(type(error)):
        await run(store)
    assert store.calls == 1
