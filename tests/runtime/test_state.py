"""A process's state: what is opened is closed in the reverse order, also where the opening fails or is
cancelled halfway."""

import asyncio
import gc
import io
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sluice.config.loader import Loaded
from sluice.conversations import Retention, Swept
from sluice.runtime import state as module
from sluice.runtime.snapshot import Snapshot
from sluice.runtime.state import ProcessState
from sluice.telemetry.logs import LogLines
from tests.runtime.held import SERVER, loaded

TEXT = f"{SERVER}upstreams: {{echo: {{backend: echo}}}}\naliases: {{chat: {{tiers: [[{{upstream: echo, model: m}}]]}}}}\n"
OPENS = ("usage_ledger", "conversation_store", "key_follower", "bucket_store", "journals")
"""In this order."""


class Watched:
    """What was opened and closed, in the order that it was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: str = "") -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        for name in OPENS:
            monkeypatch.setattr(module, name, self._watched(name, getattr(module, name), fails))

    def _watched(self, name: str, build: Callable[..., Any], fails: str) -> Callable[..., Any]:
        def built(*args: Any) -> Any:
            if name == fails:
                raise OSError("it cannot be opened")
            self.opened.append(name)
            store = build(*args)
            close = store.close

            async def closing() -> None:
                self.closed.append(name)
                await close()

            store.close = closing
            return store

        return built


def state(of: Loaded | None = None) -> ProcessState:
    return ProcessState(of or loaded(TEXT), LogLines(io.BytesIO()))


async def test_what_is_opened_is_closed_in_the_reverse_order(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, before = Watched(monkeypatch), asyncio.all_tasks()
    async with state():
        assert watched.opened == [*OPENS]
        assert watched.closed == []
    assert watched.closed == [*reversed(OPENS)]
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("fails", OPENS)
async def test_where_one_cannot_be_opened_those_before_it_are_closed(
    monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    watched, before = Watched(monkeypatch, fails), asyncio.all_tasks()
    with pytest.raises(OSError, match="cannot be opened"):
        async with state():
            raise AssertionError("it is not open")
    assert watched.opened == [*OPENS[: OPENS.index(fails)]]
    assert watched.closed == watched.opened[::-1]
    assert asyncio.all_tasks() == before


async def test_an_opening_that_is_cancelled_closes_what_it_had_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched, before, reached = Watched(monkeypatch), asyncio.all_tasks(), asyncio.Event()

    async def never(self: ProcessState) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(ProcessState, "_greet", never)
    opening = asyncio.create_task(state().__aenter__())
    await reached.wait()
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert watched.closed == [*reversed(OPENS)]
    assert asyncio.all_tasks() == before


async def test_a_closing_that_is_cancelled_closes_everything_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watched, before, reached = Watched(monkeypatch), asyncio.all_tasks(), asyncio.Event()
    opened = await state().__aenter__()

    async def never() -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(opened.settlements, "close", never)
    opened._closing.push_async_callback(never)
    closing = asyncio.create_task(opened.__aexit__(None, None, None))
    await reached.wait()
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert watched.closed == [*reversed(OPENS)]
    assert asyncio.all_tasks() == before


async def test_a_file_of_a_store_that_is_none_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database" * 1000)
    before = asyncio.all_tasks()
    with pytest.raises(Exception, match=r"state\.db"):
        async with state(loaded(f'{TEXT}state: "sqlite:{tmp_path}/state.db"\n')):
            raise AssertionError("it is not open")
    assert asyncio.all_tasks() == before


async def test_a_wall_clock_that_has_jumped_ahead_deletes_nothing_that_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = time.time()
    swept: list[float] = []
    text = f'{TEXT}responses: {{store: "sqlite:{tmp_path}/kept"}}\n'
    async with state(loaded(text)) as opened:

        async def sweep(kept: Retention, now: float) -> Swept:
            swept.append(now)
            return Swept()

        async def forget() -> bool:
            swept.append(time.time())
            return False

        monkeypatch.setattr(opened.conversations, "sweep", sweep)
        monkeypatch.setattr(opened.kept.store, "forget", forget)
        assert opened.kept.store is not None
        for jump in (0.0, 400 * 86_400.0, 0.0):
            monkeypatch.setattr("time.time", lambda jump=jump: there + jump)
            await opened._sweep(Retention(age=86_400.0))
            await opened._forget(opened.kept.store)
    assert len(swept) == 5
    assert max(swept) < there + 3_600


@pytest.mark.parametrize(("address", "seconds"), [("", 1.0), ("?timeout=250ms", 1.0), ("?timeout=30s", 30.0)])
async def test_the_end_of_an_answer_waits_as_long_as_a_call_of_its_store_may_take(
    address: str, seconds: float
) -> None:
    store = f"redis://127.0.0.1:1/0{address}"
    async with state(loaded(f'{TEXT}state: "{store}"\nresponses: {{store: "{store}"}}\n')) as opened:
        assert (opened.turns.patience, opened.kept.patience) == (seconds, seconds)


@pytest.fixture
def process() -> Iterator[Callable[[], tuple[object, ...]]]:
    """What is the process's: its log's handlers, its collector, its signals."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)

    def settings() -> tuple[object, ...]:
        root = logging.getLogger()
        handled = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
        return [*root.handlers], root.level, gc.get_threshold(), handled

    yield settings
    logging.getLogger().removeHandler(handler)


async def test_it_leaves_the_process_alone(process: Callable[[], tuple[object, ...]]) -> None:
    before, frozen = process(), gc.get_freeze_count()
    async with state() as opened, Snapshot(loaded(TEXT), opened):
        assert process() == before
    assert process() == before
    assert gc.get_freeze_count() <= frozen  # what another test's gateway froze may be freed meanwhile


async def test_what_waits_is_counted_and_written_at_the_end() -> None:
    out = io.BytesIO()
    with suppress(ZeroDivisionError):
        async with ProcessState(loaded(TEXT), LogLines(out)) as opened:
            opened.deferred.later(opened.log.info, "counted at last")
            raise ZeroDivisionError
    assert b"counted at last" in out.getvalue()
