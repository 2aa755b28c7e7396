"""The figures of processes: those of prometheus-client, which others' dashboards know."""

import os
import subprocess
import sys

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from sluice.telemetry.process import GREATEST, ProcessFigures
from sluice.telemetry.series import slices
from tests.telemetry.test_series import parsed


def theirs() -> dict[str, tuple[str, str, float]]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return flat(generate_latest(registry).decode())


def ours(figures: ProcessFigures) -> dict[str, float]:
    return {name: value for name, (_, _, value) in flat(exposition(figures)).items()}


def exposition(figures: ProcessFigures) -> str:
    return b"".join(slices(figures.families(), lambda: 0.0, 1.0)).decode()


def flat(text: str) -> dict[str, tuple[str, str, float]]:
    """Type, help and value of each sample, by its name and labels."""
    return {
        name + "".join(f",{label}={shown}" for label, shown in labels): (kind, help, value)
        for kind, help, samples in parsed(text).values()
        for (name, labels), value in samples.items()
    }


def test_they_are_those_of_prometheus_client() -> None:
    before, own, after = theirs(), flat(exposition(ProcessFigures())), theirs()
    assert {name: of[:2] for name, of in own.items()} == {name: of[:2] for name, of in before.items()}
    for name, (_, _, value) in own.items():
        if not name.startswith(("process_resident", "process_virtual", "process_open")):
            assert before[name][2] <= value <= after[name][2], name
        assert value > 0


def test_several_processes_are_summed_but_for_what_is_the_same_for_all() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        both = ours(ProcessFigures(lambda: (os.getpid(), child.pid)))
        of_child = ours(ProcessFigures(lambda: (child.pid,)))
    finally:
        child.communicate(b"\n")
    own = ours(ProcessFigures())
    for name in GREATEST:
        assert both[f"{name}"] == max(own[f"{name}"], of_child[f"{name}"])
    assert both["process_open_fds"] > of_child["process_open_fds"] > 0
    assert both["process_virtual_memory_bytes"] > of_child["process_virtual_memory_bytes"]


def test_of_ended_children_the_processor_time_is_left() -> None:
    gone = subprocess.Popen([sys.executable, "-c", "sum(range(10**6))"])
    gone.wait()
    assert next(iter(ours(ProcessFigures(lambda: (gone.pid,))))).startswith("python_info,")
    itself = ours(ProcessFigures())["process_cpu_seconds_total"]
    assert ours(ProcessFigures(lambda: (os.getpid(),)))["process_cpu_seconds_total"] > itself
