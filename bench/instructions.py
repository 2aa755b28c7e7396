"""How many CPU instructions a request and a token cost, counted by valgrind: the same whatever else the
machine does.

    python3 bench/instructions.py [--before FOLDER] [--gateways sluice,sluice-pages] [--functions 40]
        [--scenarios whole,short,burst,ndjson]

Needs `make bench` to have compiled mock and load (or --bin), and valgrind. `--before`: another checkout,
counted as well. `--gateways`: ours with other settings, by their names in gateways.py. `--functions`: the
interpreter's C functions that cost most, of our own checkout. Counts what the process does, not the kernel:
time goes with it only as far as caches agree (bench/README.md measures time).
"""

import argparse
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gateways import GATEWAYS
from processes import Child
from subject import Bench, Subject

HERE = Path(__file__).resolve().parent
CONNECTIONS = 32
TOKENS = 64
CALLGRIND = "valgrind --tool=callgrind --instr-atstart=no --callgrind-out-file=$work/callgrind "


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path)
    parser.add_argument("--bin", type=Path, default=HERE.parent / ".cache/bench")
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--scenarios", default="whole,short,burst,ndjson")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--gateways", default="sluice")
    parser.add_argument("--functions", type=int, default=0)
    options = parser.parse_args()
    scenarios = options.scenarios.split(",")
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(
            options.bin, Path("/nowhere"), Path(work), before=(options.before or HERE).resolve(), gateway_cpu=0,
            load_cpu=1, python=options.python, start_timeout=300, mock_port=19400, base_port=19500,
        )  # fmt: skip
        mock = Child(
            [str(options.bin / "mock"), "--port", str(bench.mock_port)],
            bench.load_cpu,
            log=Path(work) / "mock.log",
        )
        try:
            for root in [*(["before"] if options.before else []), *options.gateways.split(",")]:
                counted = {
                    scenario: figure
                    for name in (root, f"{root}-ndjson")
                    if name in GATEWAYS
                    for scenario, figure in _counted(name, bench, scenarios, options.requests).items()
                }
                print(
                    root,
                    *(f"{scenario} {figure / 1000:.1f} k" for scenario, figure in counted.items()),
                    sep="  ",
                    flush=True,
                )
                if options.functions:
                    _functions(Path(work) / root, options.functions)
        finally:
            mock.stop()


def _counted(name: str, bench: Bench, scenarios: list[str], requests: int) -> dict[str, float]:
    """Instructions per request; of `burst`, per token beyond the first."""
    wanted = [scenario for scenario in scenarios if (scenario == "ndjson") is name.endswith("ndjson")]
    if not wanted:
        return {}
    entry = GATEWAYS[name]
    entry = replace(entry, cmd=CALLGRIND + entry.cmd, env={**entry.env, "PYTHONHASHSEED": "0"})
    subject = Subject(name, entry, bench, bench.base_port)
    found: dict[str, float] = {}
    try:
        subject.start()
        assert subject.child is not None
        for scenario in wanted:
            tokens = TOKENS if scenario == "burst" else 1
            stream = scenario != "whole"

            def ask(count: int, tokens: int = tokens, stream: bool = stream) -> None:
                options: dict[str, object] = {
                    "conns": CONNECTIONS,
                    "requests": count,
                    "duration": 600,
                    "timeout": 600,
                }
                load = subject.load(f"tokens={tokens} gap_us=0", stream=stream, options=options)
                printed, _ = load.popen.communicate(timeout=900)
                if f'"ok":{count}' not in printed.decode().replace(" ", ""):
                    raise SystemExit(f"{name}: {printed.decode()[:400]} {subject.log_tail()}")

            ask(300)
            _control("-i", "on", subject.child.pid)
            ask(100)
            _control("-z", "", subject.child.pid)
            count = requests // 4 if scenario == "burst" else requests
            ask(count)
            _control("-d", scenario, subject.child.pid)
            _control("-i", "off", subject.child.pid)
            dump = _dump(subject.work).rename(subject.work / f"{scenario}.out")
            totals = next(
                line for line in dump.read_text().splitlines() if line.startswith(("totals:", "summary:"))
            )
            found[scenario] = int(totals.split()[1]) / count
        if "burst" in found:
            found["token in a burst"] = (found["burst"] - found.get("short", 0)) / (TOKENS - 1)
        return found
    finally:
        subject.stop()


def _control(option: str, value: str, pid: int) -> None:
    words = [option, value] if value else [option]
    subprocess.run(["callgrind_control", *words, str(pid)], check=True, stdout=subprocess.DEVNULL)


def _dump(work: Path) -> Path:
    """Returns the last dump; on a busy machine it comes a while after it has been asked for."""
    for _ in range(600):
        for path in sorted(work.glob("callgrind.*"), key=lambda path: path.stat().st_mtime, reverse=True)[:1]:
            if "totals:" in path.read_text():
                return path
        time.sleep(0.1)
    raise SystemExit("callgrind has written nothing")


def _functions(work: Path, count: int) -> None:
    for dump in sorted(work.glob("*.out")):
        print(dump.name)
        shown = subprocess.run(
            ["callgrind_annotate", "--threshold=100", str(dump)], capture_output=True, text=True, check=True
        )
        print("\n".join(shown.stdout.splitlines()[20 : 25 + count]))


if __name__ == "__main__":
    main()
