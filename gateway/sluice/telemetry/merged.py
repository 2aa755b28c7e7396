"""One exposition for all processes of a gateway, made by one that has nothing else to do (the supervisor)."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import add

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sluice.telemetry.board import FORGOTTEN, Board, Cells, Record
from sluice.telemetry.metrics import TABLE
from sluice.telemetry.series import Distribution, Family, Value

GREATEST = ("process_max_fds", "process_start_time_seconds")
"""What is the same for all processes: everything else that the kernel tells of them is summed."""


CHUNK = 512
"""Cells that are looked at together: where none of them has changed since the last time, neither has a text."""
LONGEST = 64
"""Cells of the largest series, at least."""


class _Line(msgspec.Struct, eq=False):
    """A series, as it was shown the last time."""

    record: Record
    series: Value | Distribution
    greatest: bool
    text: str = ""


class MergedExposition:
    """`pids`: the processes that run."""

    def __init__(self, board: Board, pids: Callable[[], Iterable[int]]) -> None:
        self._board = board
        self._families: dict[str, Family] = {}
        self._greatest: set[str] = set()
        for name, spec in TABLE.items():
            if spec.merge != "apart":
                self._families[f"sluice_{name}"] = Family(spec.kind, f"sluice_{name}", spec.help, spec.labels, spec.buckets)
            if spec.merge == "max":
                self._greatest.add(f"sluice_{name}")
        self._lines: dict[str, list[_Line]] = {name: [] for name in self._families}
        self._texts: dict[str, bytes] = {}
        """Of each family; none of those with a line that was written anew since."""
        self._chunks: dict[int, list[_Line]] = {}
        self._seen: dict[int, object] = {}
        self._read = 0
        self._processes = CollectorRegistry()
        self._processes.register(_Processes(pids))
        PlatformCollector(registry=self._processes)

    def prepare(self, everybody: Iterable[int], alive: Iterable[int]) -> None:
        """Write the lines of series that are new, so that no scrape has to do it for all of a large configuration."""
        self._follow()
        every, lively = [*everybody], [*alive]
        for chunk, lines in self._chunks.items():
            if chunk not in self._seen:
                self._renew(chunk, lines, every, lively)

    def text(self, everybody: Iterable[int], alive: Iterable[int]) -> bytes:
        """Prometheus text format 0.0.4. Counted in the slots of `everybody`; of those `alive` the process runs."""
        self._follow()
        every, lively = [*everybody], [*alive]
        for chunk, lines in self._chunks.items():
            self._renew(chunk, lines, every, lively)
        for name, family in self._families.items():
            if name not in self._texts:
                text = family.head + "".join([line.text for line in self._lines[name]])
                self._texts[name] = text.encode("utf-8", "replace")
        return b"".join((*map(self._texts.__getitem__, self._families), generate_latest(self._processes)))

    def _follow(self) -> None:
        """Take in the series that are new."""
        board = self._board
        board.catch_up()
        for record in board.records[self._read :]:
            family = self._families.get(record.family)
            if family is not None:
                kind = Distribution(()) if record.size > 1 else Value()
                line = _Line(record, kind, record.family in self._greatest)
                self._lines[record.family].append(line)
                self._chunks.setdefault(record.at // CHUNK, []).append(line)
        self._read = len(board.records)

    def _renew(self, chunk: int, lines: list[_Line], every: list[int], lively: list[int]) -> None:
        """Write the lines of a chunk anew, where one of its cells has changed."""
        board, start = self._board, chunk * CHUNK
        end = start + CHUNK + LONGEST
        slots = [board.cells(slot)[start:end] for slot in every]
        flags = board.flags[start:end]
        seen = b"".join((flags, *slots)), every, lively, len(lines)
        if self._seen.get(chunk) == seen:
            return
        self._seen[chunk] = seen
        sums: Sequence[float] = [0.0] * (end - start)
        for cells in slots:
            sums = list(map(add, sums, cells.tolist()))
        gone = False
        for line in lines:
            at, size, before = line.record.at - start, line.record.size, line.text
            if flags[at] == FORGOTTEN:
                gone = True
                continue
            series = line.series
            series.kept = bool(flags[at])
            if isinstance(series, Distribution):
                series.counts = list(map(int, sums[at : at + size - 1]))
                series.sum = sums[at + size - 1]
            elif line.greatest:
                series.value = max((float(board.cells(slot)[line.record.at]) for slot in lively), default=0.0)
            else:
                series.value = sums[at]
            line.text = self._families[line.record.family].text(line.record.values, series)
            if line.text != before:
                self._texts.pop(line.record.family, None)
        if gone:
            self._drop(chunk, flags, start)

    def _drop(self, chunk: int, flags: Cells, start: int) -> None:
        """Forget the series that are forgotten; if a name comes back, it is another series."""
        lines = self._chunks[chunk]
        kept = [line for line in lines if flags[line.record.at - start] != FORGOTTEN]
        gone = set(map(id, lines)) - set(map(id, kept))
        for family in {line.record.family for line in lines}:
            self._texts.pop(family, None)
            self._lines[family] = [line for line in self._lines[family] if id(line) not in gone]
        lines[:] = kept


class _Processes(Collector):
    """What prometheus-client tells of one process, summed over several, with the time of those that have ended."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._collectors: dict[int, ProcessCollector] = {}

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        known, self._collectors = self._collectors, {}
        for pid in self._pids():
            collector = known.get(pid) or ProcessCollector(pid=partial(int, pid), registry=None)  # a new one reads /proc/stat
            self._collectors[pid] = collector
            for metric in collector.collect():
                together = found.get(metric.name)
                if together is None:
                    found[metric.name] = metric
                    continue
                before, more = together.samples[0], metric.samples[0]
                value = max(before.value, more.value) if before.name in GREATEST else before.value + more.value
                together.samples[0] = before._replace(value=value)
        cpu = found.get("process_cpu_seconds")
        if cpu is not None:
            ended = os.times()
            cpu.samples[0] = cpu.samples[0]._replace(value=cpu.samples[0].value + ended.children_user + ended.children_system)
        yield from found.values()
