"""Runs two attempts side by side: the first that has content wins, the other is cancelled (Dean and Barroso
2013)."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Attempt = Coroutine[Any, Any, None]


async def race(
    first: Attempt,
    second: Callable[[], Attempt | None],
    won: asyncio.Event,
    winner: Callable[[], "asyncio.Task[Any] | None"],
    patience: float,
) -> None:
    """Waits until one of two attempts has answered. `won` is set when one of them has content; `winner` is
    its task.

    `second` is called, and its coroutine run, if the first attempt has neither content nor failed after
    `patience` seconds; it returns None if there is no other target. Raises the winner's error, or the last
    error if both attempts fail before any content.
    """
    content = asyncio.create_task(won.wait())
    running = {asyncio.create_task(first)}
    try:
        done, _ = await asyncio.wait(
            {*running, content}, timeout=patience, return_when=asyncio.FIRST_COMPLETED
        )
        other = second() if not done else None
        if other is not None:
            running.add(asyncio.create_task(other))
        await _outcome(running, content, winner)
    finally:
        rest = {*running, content}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def _outcome(
    running: set["asyncio.Task[None]"],
    content: "asyncio.Task[Any]",
    winner: Callable[[], "asyncio.Task[Any] | None"],
) -> None:
    waiting = set(running)
    while True:
        done, _ = await asyncio.wait({*waiting, content}, return_when=asyncio.FIRST_COMPLETED)
        if content in done:
            chosen = winner()
            for task in running:
                if task is not chosen:
                    task.cancel()
            return await next(task for task in running if task is chosen)
        for task in done & waiting:
            waiting.discard(task)
            if task.exception() is None or not waiting:
                return task.result()
