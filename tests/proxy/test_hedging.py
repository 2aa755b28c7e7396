"""Two attempts side by side."""

import asyncio

import pytest

from sluice.errors import UpstreamError
from sluice.proxy.hedging import race


class Race:
    """Attempts that go on until they are told how to end."""

    def __init__(self) -> None:
        self.won = asyncio.Event()
        self.winner: asyncio.Task[None] | None = None
        self.ends: dict[str, asyncio.Future[None]] = {}
        self.cancelled: list[str] = []
        self.begun: dict[str, asyncio.Event] = {"first": asyncio.Event(), "second": asyncio.Event()}

    async def attempt(self, name: str) -> None:
        self.ends[name] = asyncio.get_running_loop().create_future()
        self.begun[name].set()
        try:
            await self.ends[name]
            self.content()
        finally:
            if self.ends[name].cancelled():
                self.cancelled.append(name)

    def content(self) -> None:
        self.winner = asyncio.current_task()
        self.won.set()

    def run(self, patience: float = 0.0, *, others: bool = True) -> "asyncio.Task[None]":
        second = (lambda: self.attempt("second")) if others else (lambda: None)
        return asyncio.create_task(
            race(self.attempt("first"), second, self.won, lambda: self.winner, patience)
        )

    async def both(self) -> None:
        for begun in self.begun.values():
            await begun.wait()


async def test_the_first_with_content_wins_and_the_other_is_cancelled() -> None:
    scene = Race()
    task = scene.run()
    await scene.both()
    scene.ends["second"].set_result(None)
    await task
    assert scene.cancelled == ["first"]


async def test_no_second_attempt_is_made_where_the_first_fails_in_time() -> None:
    scene = Race()
    task = scene.run(patience=60.0)
    await scene.begun["first"].wait()
    scene.ends["first"].set_exception(UpstreamError("reset"))
    with pytest.raises(UpstreamError) as caught:
        await task
    assert caught.value.kind == "reset"
    assert "second" not in scene.ends


async def test_one_failure_waits_for_the_other_and_the_last_error_counts() -> None:
    scene = Race()
    task = scene.run()
    await scene.both()
    scene.ends["first"].set_exception(UpstreamError("reset"))
    for _ in range(10):  # turns of the event loop, in which the race takes the first failure
        await asyncio.sleep(0)
    assert not task.done()
    scene.ends["second"].set_exception(UpstreamError("server_error"))
    with pytest.raises(UpstreamError) as caught:
        await task
    assert caught.value.kind == "server_error"


async def test_without_another_target_the_first_goes_on() -> None:
    scene = Race()
    task = scene.run(others=False)
    await scene.begun["first"].wait()
    scene.ends["first"].set_result(None)
    await task


async def test_a_cancelled_race_leaves_no_attempt_running() -> None:
    scene = Race()
    task = scene.run()
    await scene.both()
    task.cancel()
    await asyncio.wait([task])
    assert sorted(scene.cancelled) == ["first", "second"]
