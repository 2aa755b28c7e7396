"""One turn at a time per session, in order, whoever gives up on the way."""

import asyncio
import random

import pytest

from gateway.conversations.turnstile import Turnstile
from gateway.errors import Unavailable


class Sessions:
    """Takes turns and notes who had one."""

    def __init__(self, max_waiting: int | None = None) -> None:
        self.turnstile = Turnstile(max_waiting)
        self.had: list[str] = []
        self.leave = asyncio.Semaphore(0)
        self._inside: set[tuple[str, str]] = set()

    async def turn(self, name: str, tenant: str = "t", session: str = "s") -> None:
        async with self.turnstile.turn(tenant, session):
            assert (tenant, session) not in self._inside
            self._inside.add((tenant, session))
            self.had.append(name)
            try:
                await self.leave.acquire()
            finally:
                self._inside.discard((tenant, session))

    async def start(self, *names: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.turn(name)) for name in names]
        await settled()
        return tasks


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_turns_come_in_the_order_of_asking() -> None:
    sessions = Sessions()
    tasks = await sessions.start("a", "b", "c")
    assert (sessions.had, sessions.turnstile.waiting) == (["a"], 2)
    sessions.leave.release()
    await settled()
    assert (sessions.had, sessions.turnstile.waiting) == (["a", "b"], 1)
    sessions.leave.release()
    sessions.leave.release()
    await asyncio.gather(*tasks)
    assert sessions.had == ["a", "b", "c"]
    assert (sessions.turnstile.waiting, len(sessions.turnstile)) == (0, 0)


async def test_sessions_and_tenants_do_not_wait_for_each_other() -> None:
    sessions = Sessions()
    places = [("t", "s"), ("t", "s2"), ("u", "s")]
    tasks = [asyncio.create_task(sessions.turn("x", *place)) for place in places]
    await settled()
    assert len(sessions.had) == 3
    for _ in places:
        sessions.leave.release()
    await asyncio.gather(*tasks)


async def test_nobody_pushes_in_while_a_turn_is_handed_over() -> None:
    sessions = Sessions()
    tasks = await sessions.start("a", "b")
    sessions.leave.release()
    while not tasks[0].done():
        await asyncio.sleep(0)
    late = asyncio.create_task(sessions.turn("late"))
    await settled()
    assert sessions.had == ["a", "b"]
    sessions.leave.release()
    sessions.leave.release()
    await asyncio.gather(*tasks, late)
    assert sessions.had == ["a", "b", "late"]


async def test_who_gives_up_waiting_leaves_the_line() -> None:
    sessions = Sessions()
    a, b, c = await sessions.start("a", "b", "c")
    b.cancel()
    await settled()
    assert sessions.turnstile.waiting == 1
    sessions.leave.release()
    sessions.leave.release()
    await asyncio.wait([a, b, c])
    assert sessions.had == ["a", "c"]
    assert len(sessions.turnstile) == 0


async def test_a_turn_handed_to_someone_who_just_gave_up_goes_to_the_next() -> None:
    sessions = Sessions()
    a, b, c = await sessions.start("a", "b", "c")
    a.cancel()
    while not a.done():  # the turn is b's now, but b has not run yet
        await asyncio.sleep(0)
        b.cancel()
    await settled()
    assert sessions.had == ["a", "c"]
    sessions.leave.release()
    await c
    assert (sessions.turnstile.waiting, len(sessions.turnstile)) == (0, 0)


async def test_a_turn_that_fails_is_over() -> None:
    turnstile = Turnstile()
    with pytest.raises(ZeroDivisionError):
        async with turnstile.turn("t", "s"):
            raise ZeroDivisionError
    async with turnstile.turn("t", "s"):
        assert len(turnstile) == 1


async def test_the_line_may_be_bounded() -> None:
    sessions = Sessions(max_waiting=1)
    tasks = await sessions.start("a", "b", "c")
    with pytest.raises(Unavailable):
        await tasks[2]
    sessions.leave.release()
    sessions.leave.release()
    await asyncio.gather(*tasks[:2])
    assert sessions.had == ["a", "b"]


@pytest.mark.parametrize("seed", range(20))
async def test_cancelled_at_random_nothing_is_lost_and_order_is_kept(seed: int) -> None:
    chance, sessions = random.Random(seed), Sessions()
    tasks = [asyncio.create_task(sessions.turn(f"{number:03}", session=str(number % 3))) for number in range(90)]
    running = set(tasks)
    while running:
        for task in chance.sample(sorted(running, key=tasks.index), min(3, len(running))):
            task.cancel()
        for _ in range(chance.randrange(4)):
            sessions.leave.release()
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        running = {task for task in tasks if not task.done()}
    assert all(task.cancelled() or task.exception() is None for task in tasks)
    for line in range(3):
        had = [name for name in sessions.had if int(name) % 3 == line]
        assert had == sorted(had)
    assert (sessions.turnstile.waiting, len(sessions.turnstile)) == (0, 0)
