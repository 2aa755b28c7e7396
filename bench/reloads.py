"""What reloads cost those who call meanwhile: python bench/reloads.py [WORKERS] [RELOADS]

200 streams are open ($STREAMS), 200 calls a second ($RATE) are made, and the configuration is changed again and again, every
tenth time to one with a mistake, by SIGHUP and by the admin API in turn. Prints what became of the calls and of
the streams, how often upstreams were dialled, how long reloads took, and the memory of all processes before and
after.
"""

import asyncio
import os
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "gateway"), str(ROOT / "plugins")]

from tests.e2e.gateway_process import GatewayProcess, serving  # noqa: E402
from tests.e2e.test_reload import BROKEN, config, hang_up, post, running  # noqa: E402
from tests.runtime.held import Provider, Stream, begin, whole  # noqa: E402

STREAMS, RATE = int(os.environ.get("STREAMS", "200")), int(os.environ.get("RATE", "200"))


def memory(gateway: GatewayProcess) -> float:
    """MB that all processes have to themselves (Pss)."""
    pid = gateway.process.pid
    pids = [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    lines = [line for each in pids for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


async def main(workers: int, reloads: int) -> None:
    async with Provider() as steady:
        with serving(config(workers, steady.url, 0)) as gateway:
            await running(gateway, workers)
            connector = aiohttp.TCPConnector(limit=0)
            timeout = aiohttp.ClientTimeout(total=600)
            async with aiohttp.ClientSession(gateway.api, connector=connector, timeout=timeout) as client:
                statuses: Counter[int] = Counter()
                seconds: list[float] = []

                async def call() -> None:
                    began = time.monotonic()
                    statuses[(await whole(client))[0]] += 1
                    seconds.append(time.monotonic() - began)

                most = 0

                async def calls(over: asyncio.Event) -> None:
                    nonlocal most
                    tasks: set[asyncio.Task[None]] = set()
                    due = time.monotonic()
                    while not over.is_set():
                        due += 1 / RATE
                        await asyncio.sleep(max(0.0, due - time.monotonic()))
                        task = asyncio.create_task(call())
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                        most = max(most, len(tasks))
                    await asyncio.gather(*tasks)

                streams: list[Stream] = []
                for _ in range(STREAMS // 20):
                    streams += await asyncio.gather(*(begin(client) for _ in range(20)))
                over = asyncio.Event()
                calling = asyncio.create_task(calls(over))
                while sum(statuses.values()) < 5 * RATE:  # noqa: ASYNC110 (calls by others)
                    await asyncio.sleep(0.1)
                before, dialled = memory(gateway), len(steady.peers)
                results: Counter[str] = Counter()
                took: list[float] = []
                held: list[str] = []
                began, first = time.monotonic(), sum(statuses.values())
                for number in range(1, reloads + 1):
                    broken = number % 10 == 5
                    gateway.path.write_text(
                        BROKEN[number // 10 % 5] if broken else config(workers, steady.url, number)
                    )
                    at = time.monotonic()
                    results[(await post(gateway))[1]["result"] if number % 2 else await hang_up(gateway)] += 1
                    took.append(time.monotonic() - at)
                    if number % 50 == 0:
                        held.append(f"{memory(gateway):.1f}")
                lasted, made = time.monotonic() - began, sum(statuses.values()) - first
                dialled_after = len(steady.peers)
                over.set()
                await calling
                steady.gate.set()
                ends = Counter([await stream.text() for stream in streams])
            seconds.sort()
            took.sort()
            median, late = seconds[len(seconds) // 2] * 1e3, seconds[len(seconds) * 99 // 100] * 1e3
            print(
                f"{workers} workers, load {os.getloadavg()[0]:.1f}: {reloads} reloads {dict(results)} in {lasted:.1f} s, "
                f"each {took[len(took) // 2]:.3f} s (median), {took[-1]:.3f} s (longest)\n"
                f"{made / lasted:.0f} calls a second: {dict(statuses)}, p50 {median:.1f} ms, p99 {late:.0f} ms; "
                f"streams {dict(ends)}; workers ended {len(gateway.records('worker_ended'))}\n"
                f"connections to the upstream {dialled} -> {dialled_after} ever, "
                f"of {STREAMS} streams and at most {most} calls at a time\n"
                f"memory {before:.1f} MB before, after each 50 {', '.join(held)}"
            )


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    asyncio.run(main(*(given + [1, 50][len(given) :])))
