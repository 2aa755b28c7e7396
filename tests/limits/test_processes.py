"""Several gateways in processes of their own on one Redis: together they admit what one would, exactly.

SLUICE_FULL=1 makes it 8 processes of 200 callers for a minute; else 3 of 9 for three seconds.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("SLUICE_FULL") == "1"
PROCESSES, CALLERS, SECONDS = (8, 200, 60) if FULL else (3, 9, 3)
LIMITS = {"a": (1, 7.0), "b": (20, 100.0), "c": (5, 40 / 3)}
"""By bucket: capacity and rate. All of them are asked for far more than they hold."""

CALLER = """
import asyncio, json, sys, redis.asyncio as client
from gateway.limits import Claim, Limit
from gateway.limits.redis import RedisStore

async def main(url, callers, seconds, limits):
    store, raw = RedisStore(url, prefix="processes", timeout=30, max_connections=32), client.Redis.from_url(url)
    admitted = dict.fromkeys(limits, 0)

    async def now():
        seconds, micros = await raw.time()
        return seconds * 1_000_000 + micros

    async def caller(key):
        claim = Claim(key, Limit(*limits[key]))
        while not over.is_set():
            verdict = await store.take([claim])
            if verdict.admitted:
                admitted[key] += 1
            else:
                await asyncio.wait([ending], timeout=verdict.retry_after)

    over = asyncio.Event()
    ending = asyncio.create_task(over.wait())
    await store.take([])
    print("ready", flush=True)
    sys.stdin.readline()
    began = await now()
    asyncio.get_running_loop().call_later(seconds, over.set)
    await asyncio.gather(*(caller([*limits][number % len(limits)]) for number in range(callers)))
    print(json.dumps([began, await now(), admitted]))
    await store.close()
    await raw.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4])))
"""


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_several_processes_never_admit_one_too_many_and_hardly_one_too_few(redis: RedisServer) -> None:
    command = [sys.executable, "-c", CALLER, redis.url, str(CALLERS), str(SECONDS), json.dumps(LIMITS)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        found = [json.loads(process.communicate()[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
    began = min(start for start, _, _ in found)
    longest = max(end for _, end, _ in found) - began
    shortest = min(end for _, end, _ in found) - max(start for start, _, _ in found)
    for key, (capacity, rate) in LIMITS.items():
        admitted = sum(counts[key] for _, _, counts in found)
        assert admitted <= capacity + math.floor(rate * longest / 1_000_000)
        if capacity > 1:  # else whoever comes late finds what a full bucket could not hold gone
            assert admitted >= 0.99 * (capacity + rate * shortest / 1_000_000) - 1
        print(f"{key}: {admitted} of {capacity + rate * longest / 1_000_000:.2f}")
