"""Kept responses while their store fails: by the clock that is passed in, and no other."""

from typing import Any, cast

import pytest

from sluice.errors import Unavailable
from sluice.policies.kept import DOUBTFUL_SECONDS, KeptResponses
from sluice.storage.again import AGAIN, stored


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class Down(OSError):
    reason = "connection"


async def broken() -> None:
    raise Down


async def test_what_a_failing_store_has_not_is_in_doubt_until_the_clock_has_gone_on() -> None:
    clock = Clock()
    kept = KeptResponses(cast("Any", None), lambda: 0.0, clock=clock)
    kept.check()
    with pytest.raises(Unavailable):
        await kept.guarded(broken())
    clock.now += DOUBTFUL_SECONDS - 1
    with pytest.raises(Unavailable):
        kept.check()
    clock.now += 1
    kept.check()


async def test_it_is_tried_again_for_its_time_by_the_clock() -> None:
    clock, tries = Clock(), 0

    async def put() -> None:
        nonlocal tries
        tries += 1
        raise Down

    with pytest.raises(Down):
        await stored(put, clock=clock, sleep=clock.sleep)
    assert AGAIN - 1 < clock.now - 1000 <= AGAIN
    assert tries > AGAIN
