"""A target whose breaker is half-open gets one call at a time, however its callers come, wait and go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sluice.config.types import Hedge
from sluice.config.units import Seconds
from sluice.errors import NoCapacity, UpstreamError
from sluice.routing.health import BreakerState
from tests.proxy.scripts import Scene, Script

BROKEN = UpstreamError("server_error")


def half_open(scene: Scene) -> None:
    """The first target's breaker opened, and its time is over."""
    for _ in range(5):
        scene.targets[0].health.failed(BROKEN)
    scene.world.now += 5
    assert scene.targets[0].health.state is BreakerState.HALF_OPEN


async def asked(scene: Scene, calls: int) -> list[str]:
    """The first target that each of the calls was sent to, where all of them come at once."""
    made = [scene.call() for _ in range(calls)]
    tasks = [asyncio.create_task(scene.pipeline.answer(call, type(scene.client)())) for call in made]
    for _ in range(50):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [call.attempts[0].target.label for call in made]


@asynccontextmanager
async def far_store() -> AsyncIterator[None]:
    for _ in range(5):  # turns of the loop
        await asyncio.sleep(0)
    yield


async def test_while_the_limits_of_an_upstream_are_asked_for() -> None:
    scene = Scene([Script()] * 8, claims=lambda attempt, chat: far_store())
    half_open(scene)
    assert sorted(await asked(scene, 4)) == ["one", "two", "two", "two"]


async def test_where_calls_are_hedged() -> None:
    scene = Scene([Script()] * 8, hedge=Hedge(after=Seconds(30)))
    half_open(scene)
    assert sorted(await asked(scene, 4)) == ["one", "two", "two", "two"]


async def test_a_probe_without_room_lets_another_go() -> None:
    @asynccontextmanager
    async def full() -> AsyncIterator[None]:
        raise NoCapacity(1.0, "requests")
        yield

    def claims(attempt: Any, chat: Any) -> Any:
        return full() if attempt.target is scene.targets[0] else None

    scene = Scene([Script()] * 8, claims=claims)
    half_open(scene)
    assert await asked(scene, 2) == ["two", "two"]
    assert scene.targets[0].health.ready(), "it was not asked: the next call may find out"


@pytest.mark.parametrize("how", ["leaves", "fails"])
async def test_the_end_of_a_call_from_before_says_nothing_about_the_probe(how: str) -> None:
    scene = Scene([Script()] * 8)
    before = asyncio.create_task(scene.pipeline.answer(scene.call(), scene.client))
    for _ in range(10):
        await asyncio.sleep(0)
    half_open(scene)
    health = scene.targets[0].health
    probe = health.begin()
    assert probe
    if how == "leaves":
        before.cancel()
    else:
        scene.world.responses[0].abort(BROKEN)
    for _ in range(10):
        await asyncio.sleep(0)
    assert health.state is BreakerState.HALF_OPEN
    assert not health.ready(), "the probe is still under way"
    before.cancel()
    await asyncio.gather(before, return_exceptions=True)
    health.failed(BROKEN, probe)
    assert health.state is BreakerState.OPEN


async def test_a_second_try_is_not_sent_to_a_target_whose_breaker_opened_while_it_waited() -> None:
    async def sleep(seconds: float) -> None:
        for _ in range(4):
            scene.targets[0].health.failed(BROKEN)

    scene = Scene([Script(refusal="server_error"), Script()], sleep=sleep)
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await scene.play(task, 100)
    await task
    assert [attempt.target.label for attempt in call.attempts] == ["one", "two"]


async def test_an_active_probe_lets_no_second_call_go() -> None:
    scene = Scene([])
    half_open(scene)
    health = scene.targets[0].health
    assert health.begin()
    health.probe_succeeded()
    assert not health.ready()
