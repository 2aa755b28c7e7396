"""One exposition for all processes of a gateway, made by one that has nothing else to do (the supervisor)."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sluice.telemetry.board import FORGOTTEN, Board, Cells, Record
from sluice.telemetry.exemplars import Found, latest, unpacked
from sluice.telemetry.formats import Format
from sluice.telemetry.metrics import of_process
from sluice.telemetry.series import EXEMPLARS, REFINED, Distribution, Family, Value, again, exemplified
from sluice.telemetry.table import TABLE

GREATEST = ("process_max_fds", "process_start_time_seconds")
"""Metrics of the process that are the same for all processes; all others are summed."""


CHUNK = 2048
"""Cells that are compared together: if none has changed since the last scrape, the texts have not either."""
MIN_LARGEST_SERIES = 64
"""Cells of the largest series, at least."""


class _Line(msgspec.Struct, eq=False):
    """A series with its latest text. Its cells are those of its chunk from `at` to `end`."""

    record: Record
    series: Value | Distribution
    greatest: bool
    at: int
    end: int
    text: bytes = b""
    metric: bytes | None = None
    """The protobuf message; None: it has not been encoded since the text changed."""
    beside: object = None
    """The bytes beside the series from which it was encoded, other than the numbers of the text."""


class MergedExposition:
    """The exposition of all processes. `pids` returns the processes that run."""

    def __init__(self, board: Board, pids: Callable[[], Iterable[int]]) -> None:
        self._board = board
        self._families: dict[str, Family] = {}
        self._greatest: set[str] = set()
        for name, spec in TABLE.items():
            if spec.merge != "apart":
                self._families[f"sluice_{name}"] = Family(
                    spec.kind, f"sluice_{name}", spec.help, spec.labels, spec.buckets
                )
            if spec.merge == "max":
                self._greatest.add(f"sluice_{name}")
        self._lines: dict[str, list[_Line]] = {name: [] for name in self._families}
        self._chunks: dict[int, list[_Line]] = {}
        self._seen: dict[int, tuple[list[bytes], list[int], list[int], int]] = {}
        """For each chunk: the bytes of its flags and of its cells in each slot, the numbers of these slots,
        and the number of its lines."""
        self._sums: dict[int, list[float]] = {}
        """For each chunk: the sums of its cells over these slots."""
        self._areas: dict[tuple[str, tuple[str, ...]], Record] = {}
        """Areas beside histograms: their cells and exemplars, by the name that ends in REFINED or EXEMPLARS.
        """
        self._read = 0
        self._started = time.time_ns()
        self._processes = CollectorRegistry()
        self._processes.register(_Processes(pids))
        PlatformCollector(registry=self._processes)

    def prepare(self, everybody: Iterable[int], alive: Iterable[int]) -> None:
        """Renders the lines of new series, so that a scrape does not have to do that for all series of a
        large configuration."""
        self._follow()
        every, lively = [*everybody], [*alive]
        for chunk, lines in self._chunks.items():
            if chunk not in self._seen:
                self._renew(chunk, lines, every, lively)

    def text(self, everybody: Iterable[int], alive: Iterable[int], format: Format = "text") -> bytes:
        """Yields the exposition of the counts in the slots of `everybody`; the processes in `alive` run.
        After a request for protobuf, all processes count for native histograms."""
        self._follow()
        every, lively = [*everybody], [*alive]
        for chunk, lines in self._chunks.items():
            self._renew(chunk, lines, every, lively)
        parts: list[bytes] = []
        if format == "protobuf":
            self._board.refine()
            for name, family in self._families.items():
                parts.append(family.family([self._metric(line, every) for line in self._lines[name]]))
        elif format == "otlp":
            times = (self._started, time.time_ns())
            for name, family in self._families.items():
                points = [family.point(line.record.values, line.series) for line in self._lines[name]]
                parts.append(family.family(points, times))
            parts.append(of_process(self._processes, format, times))
            return b"".join(parts)
        else:
            for name, family in self._families.items():
                parts.append(family.head(format))
                parts += (
                    [line.text for line in self._lines[name]]
                    if format == "text"
                    else self._exemplified(name, every)
                )
        parts.append(of_process(self._processes, format))
        return b"".join(parts)

    def totals(self, name: str, by: str, slots: Iterable[int]) -> dict[str, float]:
        """Returns the sums of a metric's series in these slots, by the values of one label."""
        self._follow()
        at, cells = TABLE[name].labels.index(by), [self._board.cells(slot) for slot in slots]
        found: dict[str, float] = {}
        for line in self._lines[f"sluice_{name}"]:
            record = line.record
            if self._board.flags[record.at] != FORGOTTEN:
                found[record.values[at]] = found.get(record.values[at], 0.0) + sum(
                    one[record.at] for one in cells
                )
        return found

    def _exemplified(self, name: str, every: list[int]) -> Iterator[bytes]:
        for line in self._lines[name]:
            data = self._beside(line.record, EXEMPLARS, every)
            yield exemplified(line.text, _found(data)) if data else line.text

    def _metric(self, line: _Line, every: list[int]) -> bytes:
        """Returns a series as protobuf, encoded again if anything of it has changed."""
        series, record = line.series, line.record
        beside: list[list[bytes]] = []
        if isinstance(series, Distribution):
            beside = [self._beside(record, what, every) for what in (REFINED, EXEMPLARS)]
        if line.metric is not None and line.beside == beside:
            return line.metric
        found: Found = ()
        if isinstance(series, Distribution):
            cells, exemplars = beside
            numbers = [memoryview(of_slot).cast("d").tolist() for of_slot in cells]
            series.cells = [*map(sum, zip(*numbers, strict=True))]
            found = _found(exemplars)
        line.beside = beside
        line.metric = self._families[record.family].metric(record.values, series, found)
        return line.metric

    def _beside(self, record: Record, what: str, every: list[int]) -> list[bytes]:
        """Returns the bytes beside a series in the slots that have any."""
        area = self._areas.get((record.family + what, record.values))
        if area is None or self._board.flags[area.at] == FORGOTTEN:
            return []
        nothing = bytes(8 * area.size)
        found = [bytes(self._board.cells(slot)[area.at : area.at + area.size]) for slot in every]
        return [data for data in found if data != nothing]

    def _follow(self) -> None:
        """Adds the series that are new."""
        board = self._board
        board.catch_up()
        for record in board.records[self._read :]:
            family = self._families.get(record.family)
            if family is not None:
                kind = Distribution(()) if record.size > 1 else Value()
                chunk, at = divmod(record.at, CHUNK)
                line = _Line(record, kind, record.family in self._greatest, at, at + record.size)
                self._lines[record.family].append(line)
                self._chunks.setdefault(chunk, []).append(line)
            else:
                self._areas[record.family, record.values] = record
        self._read = len(board.records)

    def _renew(self, chunk: int, lines: list[_Line], every: list[int], lively: list[int]) -> None:
        """Renders the lines of a chunk again whose sums have changed."""
        board, start = self._board, chunk * CHUNK
        end = start + CHUNK + MIN_LARGEST_SERIES
        flags = board.flags[start:end]
        cells = [bytes(flags), *[bytes(board.cells(slot)[start:end]) for slot in every]]
        seen = cells, every, lively, len(lines)
        before = self._seen.get(chunk)
        if before == seen:
            return
        self._seen[chunk] = seen
        nothing = bytes(len(cells[0]))
        numbers = [memoryview(of_slot).cast("d").tolist() for of_slot in cells[1:] if of_slot != nothing]
        sums: list[float] = [*map(sum, zip(*numbers, strict=True))] or [0.0] * len(flags)
        if before is not None and before[1:] == seen[1:] and before[0][0] == cells[0]:
            self._rewrite(lines, self._sums[chunk], sums, flags, lively)
        else:
            self._write_all(chunk, lines, sums, flags, lively)
        self._sums[chunk] = sums

    def _rewrite(
        self, lines: list[_Line], before: list[float], sums: list[float], flags: Cells, lively: list[int]
    ) -> None:
        """Renders the lines again whose sums differ from the previous ones. This is nearly all of a scrape's
        work, so each line is checked with little effort. The flags must not have changed."""
        for line in lines:
            at, end = line.at, line.end
            if end - at > 1:
                cells = sums[at:end]
                if cells == before[at:end]:
                    continue
            elif sums[at] != before[at] or line.greatest:
                cells = [sums[at]]
            else:
                continue
            text = None if line.greatest else again(line.series, cells)
            if text is None:
                self._write(line, cells, bool(flags[at]), lively)
            else:
                line.text, line.metric = text, None

    def _write_all(
        self, chunk: int, lines: list[_Line], sums: list[float], flags: Cells, lively: list[int]
    ) -> None:
        gone = False
        for line in lines:
            at = line.at
            if flags[at] == FORGOTTEN:
                gone = True
            else:
                self._write(line, sums[at : line.end], bool(flags[at]), lively)
        if gone:
            self._drop(chunk, flags)

    def _write(self, line: _Line, sums: list[float], kept: bool, lively: list[int]) -> None:
        """Write the lines of a series."""
        series, record = line.series, line.record
        series.kept = kept
        if isinstance(series, Distribution):
            series.sum = sums.pop()
            series.counts = sums
        elif line.greatest:
            series.value = max((float(self._board.cells(slot)[record.at]) for slot in lively), default=0.0)
        else:
            [series.value] = sums
        line.text = self._families[record.family].text(record.values, series)
        line.metric = None

    def _drop(self, chunk: int, flags: Cells) -> None:
        """Drops the series that are forgotten; if such a name is used again, it is a new series."""
        lines = self._chunks[chunk]
        kept = [line for line in lines if flags[line.at] != FORGOTTEN]
        gone = set(map(id, lines)) - set(map(id, kept))
        for family in {line.record.family for line in lines}:
            self._lines[family] = [line for line in self._lines[family] if id(line) not in gone]
        lines[:] = kept


def _found(data: list[bytes]) -> Found:
    return latest(map(unpacked, data))


class _Processes(Collector):
    """prometheus-client's process metrics, summed over several processes, with the CPU time of those that
    have ended."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._collectors: dict[int, ProcessCollector] = {}

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        known, self._collectors = self._collectors, {}
        for pid in self._pids():
            collector = known.get(pid) or ProcessCollector(
                pid=partial(int, pid), registry=None
            )  # a new one reads /proc/stat
            self._collectors[pid] = collector
            for metric in collector.collect():
                together = found.get(metric.name)
                if together is None:
                    found[metric.name] = metric
                    continue
                before, more = together.samples[0], metric.samples[0]
                value = (
                    max(before.value, more.value) if before.name in GREATEST else before.value + more.value
                )
                together.samples[0] = before._replace(value=value)
        cpu = found.get("process_cpu_seconds")
        if cpu is not None:
            ended = os.times()
            cpu.samples[0] = cpu.samples[0]._replace(
                value=cpu.samples[0].value + ended.children_user + ended.children_system
            )
        yield from found.values()
