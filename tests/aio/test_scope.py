import asyncio

import pytest

from sluice.aio.scope import Scope, scope_here


class Ended(Exception):
    pass


async def waiting(scopes: list[Scope]) -> str:
    try:
        with scope_here() as scope:
            scopes.append(scope)
            await asyncio.Event().wait()
    except Ended:
        await asyncio.sleep(0)  # the task can go on waiting afterwards
        return "ended"
    return "never"


async def started() -> tuple["asyncio.Task[str]", Scope]:
    scopes: list[Scope] = []
    task = asyncio.create_task(waiting(scopes))
    await asyncio.sleep(0)
    return task, scopes[0]


async def test_ends_with_the_error_wherever_it_waits() -> None:
    task, scope = await started()
    scope.end(Ended())
    scope.end(RuntimeError())
    assert await task == "ended"


async def test_another_cancellation_passes_through() -> None:
    task, _ = await started()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_is_a_cancellation() -> None:
    task, scope = await started()
    scope.end(Ended())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_ending_what_is_over_does_nothing() -> None:
    task, scope = await started()
    scope.end(Ended())
    await task
    scope.end(Ended())
    assert task.result() == "ended"
