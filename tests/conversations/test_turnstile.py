"""One turn at a time, first come first served, whoever gives up and whenever."""

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest

from sluice.conversations.turn_locks import TurnLocks
from sluice.conversations.turnstile import MAX_WAITING, Turnstile
from sluice.errors import Unavailable


class Session:
    """Turns of one session that note when they begin; each lasts until it is told to end."""

    def __init__(self, turnstile: Turnstile, session: str = "s", tenant: str = "acme") -> None:
        self._turnstile = turnstile
        self._names = tenant, session
        self.begun: list[int] = []
        self.inside = 0
        self._ends: dict[int, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def come(self) -> asyncio.Task[None]:
        number = len(self.tasks)
        self._ends[number] = asyncio.Event()
        self.tasks.append(asyncio.create_task(self._turn(number)))
        return self.tasks[-1]

    async def _turn(self, number: int) -> None:
        async with self._turnstile.turn(*self._names):
            self.begun.append(number)
            self.inside += 1
            assert self.inside == 1
            try:
                await self._ends[number].wait()
            finally:
                self.inside -= 1

    def end(self, number: int) -> None:
        self._ends[number].set()


async def settle() -> None:
    """Let everything that can run run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_turns_of_one_session_come_one_after_the_other_in_their_order() -> None:
    turnstile = Turnstile()
    session = Session(turnstile)
    for _ in range(10):
        session.come()
    for number in range(10):
        await settle()
        assert session.begun == list(range(number + 1))
        session.end(number)
    await asyncio.gather(*session.tasks)
    assert len(turnstile) == 0


async def test_other_sessions_and_other_tenants_do_not_wait() -> None:
    turnstile = Turnstile()
    sessions = [Session(turnstile, "s"), Session(turnstile, "t"), Session(turnstile, "s", "umbrella")]
    for session in sessions:
        session.come()
    await settle()
    assert [session.begun for session in sessions] == [[0], [0], [0]]
    assert len(turnstile) == 3
    for session in sessions:
        session.end(0)
    await settle()
    assert len(turnstile) == 0


async def test_one_more_than_may_wait_is_refused_and_the_others_are_served() -> None:
    turnstile = Turnstile()
    session = Session(turnstile)
    for _ in range(MAX_WAITING + 1):
        session.come()
    await settle()
    with pytest.raises(Unavailable):
        await session.come()
    for number in range(MAX_WAITING + 1):
        session.end(number)
    await asyncio.gather(*session.tasks[:-1])
    assert session.begun == list(range(MAX_WAITING + 1))
    assert len(turnstile) == 0


async def test_a_turn_that_fails_lets_the_next_one_in() -> None:
    turnstile = Turnstile()
    with pytest.raises(ZeroDivisionError):
        async with turnstile.turn("acme", "s"):
            raise ZeroDivisionError
    async with turnstile.turn("acme", "s"):
        pass
    assert len(turnstile) == 0


async def test_who_gives_up_while_waiting_is_passed_over() -> None:
    turnstile = Turnstile()
    session = Session(turnstile)
    for _ in range(4):
        session.come()
    await settle()
    for number in (1, 2):
        session.tasks[number].cancel()
        await settle()
    session.end(0)
    await settle()
    assert session.begun == [0, 3]
    session.end(3)
    await settle()
    assert len(turnstile) == 0


async def test_who_is_called_and_cancelled_at_once_calls_the_next() -> None:
    turnstile = Turnstile()
    session = Session(turnstile)
    async with turnstile.turn("acme", "s"):
        session.come()
        session.come()
        await settle()
    session.tasks[0].cancel()  # it is its turn, but it has not run yet
    await settle()
    assert session.begun == [1]
    session.end(1)
    await settle()
    assert len(turnstile) == 0


async def test_who_is_called_and_cancelled_at_once_with_nobody_behind_locks_nobody_out() -> None:
    turnstile = Turnstile()
    session = Session(turnstile)
    async with turnstile.turn("acme", "s"):
        session.come()
        await settle()
    session.tasks[0].cancel()
    await settle()
    assert session.begun == []
    assert len(turnstile) == 0
    async with asyncio.timeout(5), turnstile.turn("acme", "s"):
        pass


async def test_who_gives_up_just_before_the_turn_ends_is_passed_over() -> None:
    turnstile = Turnstile()
    session = Session(turnstile)
    async with turnstile.turn("acme", "s"):
        session.come()
        session.come()
        await settle()
        session.tasks[0].cancel()  # it still stands in the queue
    session.end(1)
    await settle()
    assert session.begun == [1]
    assert session.tasks[0].cancelled()
    assert len(turnstile) == 0


@pytest.mark.parametrize("steps", range(8))
@pytest.mark.parametrize("victim", range(3))
async def test_cancelling_anyone_at_any_step_leaves_everyone_else_served(steps: int, victim: int) -> None:
    turnstile = Turnstile()
    session = Session(turnstile)
    for number in range(4):
        session.come()
        session.end(number)
    for _ in range(steps):
        await asyncio.sleep(0)
    session.tasks[victim].cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(*session.tasks, return_exceptions=True)
    assert set(session.begun) | {victim} == {0, 1, 2, 3}
    assert session.begun == sorted(session.begun)
    assert len(turnstile) == 0


@pytest.mark.parametrize("seed", range(20))
async def test_a_storm_of_turns_and_cancellations_leaves_nothing_behind(seed: int) -> None:
    chance = random.Random(seed)
    waiting = 0

    def count(change: int) -> None:
        nonlocal waiting
        waiting += change

    turnstile = Turnstile(count)
    sessions = [Session(turnstile, str(n)) for n in range(3)]
    for _ in range(300):
        session = chance.choice(sessions)
        match chance.randrange(4):
            case 0 | 1:
                session.come()
            case 2 if session.tasks:
                chance.choice(session.tasks).cancel()
            case _ if session.tasks:
                session.end(chance.randrange(len(session.tasks)))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
    tasks = [task for session in sessions for task in session.tasks]
    for session in sessions:
        for number in range(len(session.tasks)):
            session.end(number)
    async with asyncio.timeout(5):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), asyncio.CancelledError, Unavailable}
    assert all(session.begun == sorted(session.begun) for session in sessions)
    assert (len(turnstile), waiting) == (0, 0)


# --- over processes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db-turns"


class Processes:
    """Two turnstiles with a file of their own each at one path, as two processes have them. Who waits tries again
    whenever the others have run."""

    def __init__(self, file: Path) -> None:
        self.waiting = [0, 0]
        self.locks = [TurnLocks(file, sleep=lambda _: asyncio.sleep(0)) for _ in range(2)]
        self.sessions = [
            Session(Turnstile(partial(self._count, number), locks)) for number, locks in enumerate(self.locks)
        ]

    def _count(self, number: int, by: int) -> None:
        self.waiting[number] += by


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_of_two_processes_one_has_the_turn_and_neither_passes_the_other_by(file: Path) -> None:
    it = Processes(file)
    busy, other = it.sessions
    for _ in range(3):
        busy.come()
    await settled()
    other.come()
    await settled()
    assert (busy.begun, other.begun) == ([0], [])
    assert it.waiting == [2, 1]
    busy.end(0)  # the next of its own waits behind the other process
    await settled()
    assert (busy.begun, other.begun) == ([0], [0])
    other.end(0)
    await settled()
    assert busy.begun == [0, 1]
    busy.end(1)
    busy.end(2)
    await asyncio.gather(*busy.tasks, *other.tasks)
    assert it.waiting == [0, 0]


async def test_other_sessions_do_not_wait_for_another_process(file: Path) -> None:
    first, second = (Turnstile(locks=TurnLocks(file)) for _ in range(2))
    async with first.turn("acme", "s"), second.turn("acme", "t"), second.turn("other", "s"):
        pass


async def test_who_gives_up_while_another_process_has_the_turn_leaves_nothing_behind(file: Path) -> None:
    it = Processes(file)
    one, two = it.sessions
    one.come()
    await settled()
    gone, next = two.come(), two.come()
    await settled()
    gone.cancel()
    await settled()
    assert gone.cancelled()
    one.end(0)
    await settled()
    assert two.begun == [1]
    two.end(1)
    await next
    third = one.come()
    one.end(1)
    await third
    assert it.waiting == [0, 0]


async def test_a_process_that_ends_gives_its_turns_back(file: Path) -> None:
    it = Processes(file)
    one, two = it.sessions
    one.come()
    await settled()
    two.come()
    await settled()
    assert two.begun == []
    it.locks[0].close()  # as the kernel does at its death
    await settled()
    assert two.begun == [0]
    two.end(0)
    one.end(0)
    await asyncio.gather(*one.tasks, *two.tasks)


async def test_a_turn_does_not_wait_for_ever_for_another_process(file: Path) -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    holder = TurnLocks(file)
    await holder.take("acme", "s", lambda _: None)
    waiter = Turnstile(locks=TurnLocks(file, sleep=sleep, clock=lambda: now))
    with pytest.raises(Unavailable):
        async with waiter.turn("acme", "s"):
            pass
    holder.give_back("acme", "s")
    async with waiter.turn("acme", "s"):
        pass
    assert file.stat().st_mode & 0o777 == 0o600
