"""Deadlines of many waits, with one timer for those of the same length."""

import asyncio
from collections.abc import Callable
from typing import Any

from sluice.upstream.deadlines import Deadlines


class Loop:
    """An event loop's clock and timers, by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[..., None], Any]] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> Any:
        self.made += 1
        entry = (when, callback, args)
        self.timers.append(entry)
        return type("Handle", (), {"cancel": lambda _: self.timers.remove(entry)})()

    def run_until(self, now: float) -> None:
        while due := [entry for entry in self.timers if entry[0] <= now]:
            entry = min(due, key=lambda one: one[0])
            self.timers.remove(entry)
            self.now = entry[0]
            entry[1](*entry[2])
        self.now = now


class Wait:
    def __init__(self) -> None:
        self.late = 0

    def too_late(self) -> None:
        self.late += 1


def made() -> tuple[Loop, Deadlines]:
    loop: Any = Loop()
    return loop, Deadlines(loop)


def test_waits_of_one_length_share_a_timer_and_end_in_their_order() -> None:
    loop, deadlines = made()
    waits = [Wait() for _ in range(100)]
    for number, wait in enumerate(waits):
        loop.now = number / 100
        deadlines.expect(wait, 5.0)
    assert len(loop.timers) == 1
    loop.run_until(5.495)
    assert [wait.late for wait in waits] == [1] * 50 + [0] * 50
    loop.run_until(10.0)
    assert [wait.late for wait in waits] == [1] * 100
    assert not loop.timers


def test_a_wait_that_is_over_is_never_too_late() -> None:
    loop, deadlines = made()
    over, late = Wait(), Wait()
    deadlines.expect(over, 5.0)
    deadlines.expect(late, 7.0)
    deadlines.forget(over, 5.0)
    deadlines.forget(over, 99.0)
    loop.run_until(20.0)
    assert (over.late, late.late) == (0, 1)


def test_no_timer_is_left_at_the_end() -> None:
    loop, deadlines = made()
    deadlines.expect(Wait(), 5.0)
    deadlines.close()
    assert not loop.timers


async def test_on_a_real_loop() -> None:
    deadlines, done = Deadlines(asyncio.get_running_loop()), asyncio.Event()
    wait = type("Waits", (), {"too_late": lambda _: done.set()})()
    deadlines.expect(wait, 0.001)
    async with asyncio.timeout(60):
        await done.wait()
    deadlines.close()
