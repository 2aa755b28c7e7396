"""Shadow calls: beside the caller's, in a scope of their own, and in none of the caller's figures."""

import asyncio
from typing import Any

import msgspec
import pytest

from sluice.config.types import Shadow
from sluice.proxy import shadows
from tests.proxy.scripts import ANSWER, ENDING, OPENING, Scene, Script, begun, frame

WORD = OPENING + frame({"content": ANSWER})


def shadowed(scripts: list[Script], **shadow: Any) -> Scene:
    """The alias's only target is "one", its shadow "two"."""
    scene = Scene(scripts, shadow=Shadow(**{"upstream": "two", "model": "m", "share": 0.9, **shadow}))
    scene.route = msgspec.structs.replace(scene.route, tiers=scene.route.tiers[:1], shadow=scene.targets[1])
    return scene


def counted(scene: Scene, name: str) -> float:
    """The sum of a metric's series by frontend and alias."""
    lines = scene.metrics.exposition().decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(f"sluice_{name}") and "chat" in line
    )


async def test_a_shadow_counts_nowhere_in_the_caller_s_figures() -> None:
    scene = shadowed([Script(), Script()])
    task = asyncio.create_task(scene.pipeline.answer(scene.call(), scene.client))
    await begun(scene, 2)
    first, double = scene.world.responses
    assert counted(scene, "streams_in_flight") == 1
    scene.world.now += 1
    double.push(WORD)
    assert counted(scene, "time_to_first_token_seconds_count") == 0
    first.push(WORD)
    double.push(frame({"content": "more"}))
    for response in (double, first):
        response.push(ENDING)
        response.finish()
    await task
    await until_gone(scene)
    assert counted(scene, "time_to_first_token_seconds_count") == 1
    assert counted(scene, "stream_end_total") == 1
    assert counted(scene, "inter_token_seconds_count") == 0
    exposition = scene.metrics.exposition().decode()
    assert 'sluice_overhead_seconds_count{phase="first_token"} 1' in exposition
    assert 'sluice_overhead_seconds_count{phase="request"} 1' in exposition
    assert scene.client.lines[-1]["message"] == ANSWER.strip()
    assert all(
        f'upstream_attempts_total{{model="m",outcome="ok",upstream="{name}"}} 1' in exposition
        for name in ("one", "two")
    )


async def until_gone(scene: Scene) -> None:
    while scene.pipeline.shadows.runs:
        await asyncio.sleep(0)


async def test_a_shadow_that_is_ended_does_not_end_its_call() -> None:
    scene = shadowed([Script(), Script()])
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await begun(scene, 2)
    [run] = scene.pipeline.shadows.runs
    run.drain()
    await until_gone(scene)
    assert not task.done()
    assert (run.call.end, call.end) == ("drain", "")
    scene.world.responses[0].push(WORD + ENDING)
    scene.world.responses[0].finish()
    await task
    assert call.end == "done"


async def test_a_call_that_ends_does_not_end_its_shadow() -> None:
    scene = shadowed([Script(), Script()])
    task = asyncio.create_task(scene.pipeline.answer(scene.call(), scene.client))
    await begun(scene, 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(scene.pipeline.shadows.runs) == 1
    scene.world.responses[1].push(WORD + ENDING)
    scene.world.responses[1].finish()
    await until_gone(scene)
    assert scene.world.open == 0


async def test_a_shadow_keeps_the_deadlines_of_its_target() -> None:
    scene = shadowed([Script(), Script()])
    task = asyncio.create_task(scene.pipeline.answer(scene.call(), scene.client))
    await begun(scene, 2)
    scene.world.responses[0].push(WORD + ENDING)
    scene.world.responses[0].finish()
    await task
    scene.world.now += 6
    scene.pipeline.tick(scene.world.now)
    await until_gone(scene)
    assert 'outcome="first_token_timeout",upstream="two"} 1' in scene.metrics.exposition().decode()


async def test_a_fault_in_a_shadow_is_told_to_the_log_alone() -> None:
    crashes: list[str] = []
    scene = shadowed([Script()])
    scene.pipeline.crashed = lambda crash, request_id: crashes.append(type(crash).__name__)

    class Broken:
        def send(self, *_: object, **__: object) -> Any:
            raise KeyError

        async def close(self) -> None: ...

    scene.route = msgspec.structs.replace(
        scene.route, shadow=msgspec.structs.replace(scene.targets[1], transport=Broken())
    )
    call = scene.call()
    task = asyncio.create_task(scene.pipeline.answer(call, scene.client))
    await begun(scene, 1)
    await until_gone(scene)
    assert crashes == ["KeyError"]
    scene.world.responses[0].push(WORD + ENDING)
    scene.world.responses[0].finish()
    await task
    assert call.end == "done"


async def test_only_a_share_of_calls_has_a_shadow_and_only_so_many_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for share, most, count in ((0.4, 100, 0), (0.9, 100, 1), (0.9, 0, 0)):
        monkeypatch.setattr(shadows, "MAX_SHADOW_CALLS", most)
        scene = shadowed([Script(), Script()], share=share)
        task = asyncio.create_task(scene.pipeline.answer(scene.call(), scene.client))
        await begun(scene, 1 + count)
        assert len(scene.pipeline.shadows.runs) == count
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await scene.pipeline.close()
        assert not scene.pipeline.shadows.runs
