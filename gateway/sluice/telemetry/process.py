"""What the kernel tells of processes, by the names that Prometheus's client libraries agree on, and which Python
runs them.

Where there is no /proc, only Python is told. Names and units:
https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

import os
import platform
import resource
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from sluice.telemetry.series import Family, Kind, Value

_FIGURES: dict[str, tuple[Kind, str]] = {
    "process_virtual_memory_bytes": ("gauge", "Virtual memory size in bytes."),
    "process_resident_memory_bytes": ("gauge", "Resident memory size in bytes."),
    "process_start_time_seconds": ("gauge", "Start time of the process since unix epoch in seconds."),
    "process_cpu_seconds": ("counter", "Total user and system CPU time spent in seconds."),
    "process_open_fds": ("gauge", "Number of open file descriptors."),
    "process_max_fds": ("gauge", "Maximum number of open file descriptors."),
}
GREATEST = frozenset({"process_max_fds", "process_start_time_seconds"})
"""What is the same for all processes: everything else is summed."""
_VERSION = ("version", "implementation", "major", "minor", "patchlevel")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _itself() -> Sequence[int]:
    return (os.getpid(),)


class ProcessFigures:
    """The families of these processes: of this one, or of those that run now and of the CPU time of this one's
    children that have ended."""

    def __init__(self, pids: Callable[[], Iterable[int]] | None = None) -> None:
        self._pids = pids or _itself
        self._parent = pids is not None
        self._booted: float | None = None
        self._families = {name: Family(kind, name, text, ()) for name, (kind, text) in _FIGURES.items()}
        python = Family("gauge", "python_info", "Python platform information", _VERSION)
        values = (platform.python_version(), platform.python_implementation())
        _set(python, (*values, *platform.python_version_tuple()), 1.0)
        self._python = python

    def families(self) -> Sequence[Family]:
        """The families, with the figures of this moment."""
        if self._booted is None:
            self._booted = _boot_time()
        found: dict[str, float] = {}
        for pid in self._pids():
            for name, value in _figures(pid, self._booted).items():
                before = found.get(name, 0.0)
                found[name] = max(before, value) if name in GREATEST else before + value
        if not found:
            return (self._python,)
        if self._parent:
            ended = os.times()
            found["process_cpu_seconds"] += ended.children_user + ended.children_system
        for name, value in found.items():
            _set(self._families[name], (), value)
        return (*self._families.values(), self._python)


def _set(family: Family, labels: tuple[str, ...], value: float) -> None:
    series = cast(Value, family.child(labels))
    series.value, series.kept = value, True


def _figures(pid: int, booted: float) -> dict[str, float]:
    """Returns the figures of a process; none of one that has ended, or where the kernel tells nothing (proc(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # the name of the program is in parentheses, and may hold any character
            stat = file.read().rpartition(b")")[2].split()
        files = len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return {}
    user, system, started, virtual, resident = (int(stat[at]) for at in (11, 12, 19, 20, 21))
    return {
        "process_virtual_memory_bytes": float(virtual),
        "process_resident_memory_bytes": float(resident * _PAGE),
        "process_start_time_seconds": booted + started / _TICK,
        "process_cpu_seconds": (user + system) / _TICK,
        "process_open_fds": float(files),
        "process_max_fds": float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    }


def _boot_time() -> float:
    """Seconds since the epoch; 0.0 where it is not known."""
    try:
        with open("/proc/stat", "rb") as file:
            return next((float(line.split()[1]) for line in file if line.startswith(b"btime ")), 0.0)
    except OSError:
        return 0.0
