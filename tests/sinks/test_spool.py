"""What becomes of records whose sink is slow, away, or refuses; and of those on disk when a process is
gone."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from sluice.config.types import RecordFile, Records
from sluice.config.units import Bytes, Seconds
from sluice.sinks.delivery import Delivered, RecordBatch
from sluice.sinks.record import Draft
from sluice.sinks.spill import Spill
from sluice.sinks.spool import Spool


class Sink:
    """`outcomes`: what it answers first, then "delivered"."""

    def __init__(self, *outcomes: str | Delivered) -> None:
        self.outcomes = list(outcomes)
        self.batches: list[RecordBatch] = []
        self.tries = 0
        self.hangs = False
        self.faults = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def deliver(self, batch: RecordBatch) -> Delivered:
        self.tries += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError
        outcome: Any = self.outcomes.pop(0) if self.outcomes else "delivered"
        if isinstance(outcome, Delivered):
            return outcome
        if outcome == "delivered":
            self.batches.append(batch)
            return Delivered("delivered")
        return Delivered(outcome, "status 500")

    @property
    def numbers(self) -> list[int]:
        return [json.loads(line)["n"] for batch in self.batches for line in batch.lines]


class Bench:
    """A spool, its clock, and what it counted."""

    def __init__(self, sink: Sink, **options: Any) -> None:
        self.now = 1000.0
        self.counts: Counter[str] = Counter()
        self.said: list[str] = []
        self.failed: list[str] = []
        self.lost: list[int] = []
        config = Records(
            name="a/b", file=RecordFile(path="unused"), **{"batch": 2, "interval": Seconds(0.01), **options}
        )
        self.spool = Spool(
            config,
            sink,
            count=lambda result, records: self.counts.update({result: records}),
            switched=self.said.append,
            failed=self.failed.append,
            lost=self.lost.append,
            clock=lambda: self.now,
            wall=lambda: 1_700_000_000.0 + self.now,
            chance=lambda: 1.0,
        )

    def add(self, *numbers: int) -> None:
        for number in numbers:
            self.spool.add(Draft({"n": number}, 1_700_000_000.0))

    async def stop(self) -> None:
        task = asyncio.create_task(self.spool.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


async def test_records_are_sent_in_batches_in_their_order() -> None:
    sink = Sink()
    bench = Bench(sink)
    bench.add(1, 2, 3, 4, 5)
    await bench.spool.round()
    assert sink.numbers == [1, 2, 3, 4]
    await bench.spool.round()
    assert sink.numbers == [1, 2, 3, 4, 5]
    assert bench.counts == {"delivered": 5}
    assert len({batch.name for batch in sink.batches}) == 3
    assert len(bench.spool) == 0


async def test_a_sink_that_fails_is_tried_again_later_and_later_with_the_same_batch() -> None:
    sink = Sink("again", "again", "again")
    bench = Bench(sink)
    bench.add(1)
    for wait in (1.0, 2.0, 4.0):
        await bench.spool.round()
        tries = sink.tries
        bench.now += wait - 0.01
        await bench.spool.round()
        assert sink.tries == tries
        bench.now += 0.02
    await bench.spool.round()
    assert sink.numbers == [1]
    assert bench.said == ["status 500", ""]
    assert bench.failed == ["status 500"] * 3
    assert bench.counts == {"delivered": 1}


async def test_what_a_sink_refuses_for_ever_does_not_block_the_rest() -> None:
    sink = Sink("refused")
    bench = Bench(sink)
    bench.add(1, 2, 3, 4)
    await bench.spool.round()
    assert sink.numbers == [3, 4]
    assert bench.counts == {"refused": 2, "delivered": 2}


async def test_records_of_a_batch_that_a_sink_refuses_are_counted_apart() -> None:
    sink = Sink(Delivered("delivered", refused=1))
    bench = Bench(sink)
    bench.add(1, 2)
    await bench.spool.round()
    assert (len(bench.spool), bench.counts) == (0, {"delivered": 1, "refused": 1})


async def test_a_sink_is_left_alone_for_as_long_as_it_says() -> None:
    sink = Sink(Delivered("again", "status 503", wait=20.0))
    bench = Bench(sink)
    bench.add(1)
    await bench.spool.round()
    bench.now += 19.9
    await bench.spool.round()
    assert sink.tries == 1
    bench.now += 0.2
    await bench.spool.round()
    assert sink.numbers == [1]


async def test_memory_is_bounded_and_what_is_dropped_is_counted() -> None:
    bench = Bench(Sink("again"), buffer=Bytes(3 * 2048))
    bench.add(1, 2, 3, 4, 5)
    assert bench.counts == {"dropped": 2}
    await bench.spool.round()
    bench.add(6)
    assert bench.counts == {"dropped": 3}
    bench.now += 100
    await bench.spool.round()
    bench.add(7)
    assert bench.counts == {"dropped": 3, "delivered": 2}


async def test_what_cannot_be_sent_is_kept_on_disk_and_sent_first(tmp_path: Path) -> None:
    sink = Sink("again")
    bench = Bench(sink, spill=str(tmp_path / "spill"))
    bench.add(1, 2, 3)
    await bench.spool.round()
    assert bench.counts == {"spilled": 3}
    assert len(bench.spool) == 0
    assert len(list((tmp_path / "spill").iterdir())) == 2
    bench.add(4, 5)
    await bench.spool.round()  # it is not time to try again yet
    assert bench.counts == {"spilled": 5}
    bench.now += 100
    bench.add(6)
    await bench.spool.round()
    assert sink.numbers == [1, 2, 3, 4, 5, 6]
    assert bench.counts == {"spilled": 5, "delivered": 6}
    assert not list((tmp_path / "spill").iterdir())
    assert {path.stat().st_mode & 0o777 for path in [tmp_path / "spill"]} == {0o700}


async def test_a_batch_on_disk_keeps_its_name(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path), "a", 1 << 20)
    batch = RecordBatch("1700000000123-host-1-7", 1_700_000_000.123, [b"{}"])
    spill.keep(batch)
    spill.keep(batch)  # a second time is no second file
    (name,) = spill.oldest()
    claimed = spill.claim(name)
    assert claimed is not None
    with claimed:
        assert claimed.batch == batch


async def test_the_next_process_sends_what_the_last_one_left(tmp_path: Path) -> None:
    first = Bench(Sink(*["again"] * 9), spill=str(tmp_path))
    first.add(1, 2, 3)
    await first.stop()
    assert first.counts == {"spilled": 3}
    sink = Sink()
    await Bench(sink, spill=str(tmp_path)).spool.round()
    assert sink.numbers == [1, 2, 3]
    assert not list(tmp_path.iterdir())


async def test_a_process_that_is_killed_loses_nothing_of_what_is_on_disk(tmp_path: Path) -> None:
    code = f"""
import asyncio, os, signal, sys
sys.path.insert(0, {os.getcwd()!r})
from tests.sinks.test_spool import Bench, Sink
async def main():
    sink = Sink("again")
    bench = Bench(sink, spill={str(tmp_path)!r})
    bench.add(1, 2, 3, 4)
    await bench.spool.round()
    bench.now += 100
    sink.hangs = True
    asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGKILL)
    await bench.spool.round()  # holds a file's lock when it dies
asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == -9
    sink = Sink()
    await Bench(sink, spill=str(tmp_path)).spool.round()
    assert sink.numbers == [1, 2, 3, 4]


async def test_what_is_left_at_the_end_is_sent() -> None:
    sink = Sink()
    bench = Bench(sink, interval=Seconds(3600))
    bench.add(1, 2, 3)
    await bench.stop()
    assert sink.numbers == [1, 2, 3]


async def test_what_is_left_at_the_end_and_not_taken_is_counted_where_it_cannot_be_kept() -> None:
    bench = Bench(Sink(*["again"] * 9))
    bench.add(1, 2, 3)
    await bench.stop()
    assert (bench.counts, bench.lost) == ({"dropped": 3}, [3])


async def test_a_disk_that_is_full_keeps_records_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = Sink("again", "again")
    bench = Bench(sink, spill=str(tmp_path))

    def full(self: Spill, batch: RecordBatch) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spill, "keep", full)
    bench.add(1, 2, 3)
    await bench.spool.round()
    assert len(bench.spool) == 3
    monkeypatch.undo()
    bench.now += 100
    await bench.spool.round()
    assert bench.counts == {"spilled": 3}
    bench.now += 100
    await bench.spool.round()
    assert sink.numbers == [1, 2, 3]


async def test_the_directory_is_bounded(tmp_path: Path) -> None:
    bench = Bench(Sink(*["again"] * 9), spill=str(tmp_path), spill_max=Bytes(20))
    bench.add(1, 2, 3, 4)
    await bench.spool.round()
    assert bench.counts == {"spilled": 2}
    assert len(bench.spool) == 2


async def test_two_processes_do_not_send_the_same_file(tmp_path: Path) -> None:
    bench = Bench(Sink("again"), spill=str(tmp_path))
    bench.add(1, 2)
    await bench.spool.round()
    spill = Spill(str(tmp_path), "a/b", 1 << 20)
    (name,) = spill.oldest()
    claimed = spill.claim(name)
    assert claimed is not None
    with claimed:
        assert Spill(str(tmp_path), "a/b", 1 << 20).claim(name) is None
        claimed.done()
    assert spill.claim(name) is None
    assert Spill(str(tmp_path), "a", 1 << 20).oldest() == []


async def test_a_fault_is_another_try_later(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Sink()
    bench = Bench(sink)
    broken: Callable[[RecordBatch], Any] = lambda batch: 1 / 0  # noqa: E731
    monkeypatch.setattr(sink, "deliver", broken)
    bench.add(1)
    await bench.spool._safely()
    assert bench.said == ["ZeroDivisionError"]
    monkeypatch.undo()
    bench.now += 100
    await bench.spool._safely()
    assert sink.numbers == [1]


async def test_a_fault_while_a_batch_is_sent_is_over_with_the_next_try() -> None:
    sink = Sink()
    sink.faults = 2
    bench = Bench(sink)
    bench.add(1)
    for _ in range(3):
        await bench.spool._safely()
        bench.now += 100
    assert (sink.numbers, bench.said) == ([1], ["ZeroDivisionError", ""])


async def test_a_fault_at_the_end_loses_nothing_that_can_be_kept(tmp_path: Path) -> None:
    sink = Sink()
    sink.faults = 9
    bench = Bench(sink, spill=str(tmp_path))
    bench.add(1, 2, 3)
    await bench.stop()
    assert bench.counts == {"spilled": 3}
    other = Sink()
    other.faults = 9
    kept_nowhere = Bench(other)
    kept_nowhere.add(1, 2, 3)
    await kept_nowhere.stop()
    assert kept_nowhere.counts == {"dropped": 3}
