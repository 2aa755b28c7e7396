"""Children held on one CPU, and what /proc says of them. Linux only."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SPIN = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"


@dataclass(frozen=True)
class Usage:
    """Of a process and its descendants: CPU seconds (reaped children included), bytes resident, bytes by
    share."""

    cpu: float = 0.0
    rss: int = 0
    pss: int = 0


@dataclass(frozen=True)
class CpuTime:
    """Seconds of one CPU since boot."""

    busy: float
    stolen: float
    total: float


class Child:
    """A process in a session of its own, so that all it starts can be ended with it. Output goes to `log`, or
    is piped."""

    def __init__(
        self,
        argv: Sequence[str],
        cpu: int,
        nice: int = 0,
        log: Path | None = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        def pin() -> None:
            os.sched_setaffinity(0, {cpu})
            if nice:
                os.setpriority(os.PRIO_PROCESS, 0, nice)
                with contextlib.suppress(
                    OSError
                ):  # a new session is a scheduling group with a nice of its own
                    Path("/proc/self/autogroup").write_text(str(nice))

        self._log = log.open("ab") if log else None
        self.popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=self._log or subprocess.PIPE,
            stderr=self._log,
            preexec_fn=pin,
            start_new_session=True,
            cwd=cwd,
            env=env,
        )
        self.pid = self.popen.pid

    def usage(self) -> Usage:
        return usage(self.pid)

    def stop(self) -> None:
        """SIGTERM, five seconds, SIGKILL to what is left of its session."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.popen.poll() is None or number == signal.SIGKILL:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, number)
                try:
                    self.popen.wait(5)
                except subprocess.TimeoutExpired:
                    continue
        if self._log:
            self._log.close()


def spinner(cpu: int, log: Path) -> Child:
    """Keeps a CPU from halting, at a priority that anything else goes before."""
    return Child([sys.executable, "-c", SPIN], cpu, 19, log)


def tree(pid: int) -> list[int]:
    """`pid` and its descendants."""
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                todo += map(int, Path(f"/proc/{current}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return found


def usage(pid: int) -> Usage:
    cpu = rss = pss = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            cpu += sum(map(int, fields[11:15]))
            rss += int(fields[21]) * PAGE
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            pss += next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
        except (OSError, StopIteration):
            pass
    return Usage(cpu / TICK, rss, pss)


def cpu_time(cpu: int) -> CpuTime:
    lines = Path("/proc/stat").read_text().splitlines()
    ticks = next(
        [int(field) for field in line.split()[1:9]] for line in lines if line.startswith(f"cpu{cpu} ")
    )
    idle, waiting, stolen = ticks[3], ticks[4], ticks[7]
    return CpuTime((sum(ticks) - idle - waiting - stolen) / TICK, stolen / TICK, sum(ticks) / TICK)


def about_machine(python: str = "") -> list[str]:
    """What a reader of the figures should know of this machine, a line each. `python`: what gateways in
    Python run on."""
    info = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")),
        "unknown CPU",
    )
    memory = next(
        line.split()[1]
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    name = os.uname()
    return [
        f"{os.cpu_count()} CPUs: {model}{', virtual' if 'hypervisor' in info else ''}; {int(memory) // 1024**2} GiB of memory",
        *_siblings(),
        f"{name.sysname} {name.release} {name.machine}",
        f"Python {sys.version.split()[0]}"
        if not python
        else f"gateways in Python run on the distribution's own {_version(python)}",
    ]


def _version(python: str) -> str:
    return subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _siblings() -> list[str]:
    """CPUs that are two threads of one core slow each other down: by half, where both are busy."""
    path = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    shared = path.read_text().strip() if path.exists() else "0"
    return (
        []
        if shared == "0"
        else [f"CPUs {shared} are threads of one core: what load and mock do slows the gateway down"]
    )
