"""Several processes on one table, without a server: together they admit what one would, exactly.

SLUICE_FULL=1 makes it 8 processes of 200 callers for a minute; else 3 of 25 for two seconds.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("SLUICE_FULL") == "1"
PROCESSES, CALLERS, SECONDS = (8, 200, 60) if FULL else (3, 25, 2)
REQUESTS = {"a": (1, 7.0), "b": (20, 100.0), "c": (5, 40 / 3)}
"""By bucket: capacity and rate. All of them are asked for far more than they hold."""
TOKENS = (1000, 5000.0)
RESERVED, USED = 8, 16
"""Tokens that a call reserves, and at most uses."""
PLACES = 5

CALLER = """
import asyncio, json, random, sys, time
from gateway.limits import Claim, Limit, Slot
from gateway.limits.faults import StoreFailed
from gateway.limits.shared import SharedStore

async def main(path, me, callers, seconds, requests, tokens, reserved, most, places):
    store = SharedStore(path)
    admitted, used, held, failed = dict.fromkeys(requests, 0), 0, [], 0

    async def take(*call):
        nonlocal failed
        try:
            return await store.take(*call)
        except StoreFailed:
            failed += 1

    async def settle(*call):
        nonlocal failed
        while True:
            try:
                return await store.settle(*call)
            except StoreFailed:
                failed += 1

    async def asking(key):
        claim = Claim(key, Limit(*requests[key]))
        while not over.is_set():
            verdict = await take([claim])
            if verdict is not None and verdict.admitted:
                admitted[key] += 1
            else:
                await asyncio.wait([ending], timeout=verdict.retry_after if verdict else 0.001)

    async def using():
        nonlocal used
        limit = Limit(*tokens)
        while not over.is_set():
            verdict = await take([Claim("tokens", limit, reserved)])
            if verdict is not None and verdict.admitted:
                await asyncio.sleep(random.random() * 0.01)
                really = random.randint(0, most)
                await settle([Claim("tokens", limit, really - reserved)])
                used += really
            else:
                await asyncio.wait([ending], timeout=verdict.retry_after if verdict else 0.001)

    async def holding(caller):
        count = 0
        while not over.is_set():
            slot = Slot("places", places, f"{me} {caller} {(count := count + 1)}")
            verdict = await take([], [slot])
            if verdict is not None and verdict.admitted:
                began = time.monotonic_ns()
                await asyncio.sleep(random.random() * 0.01)
                held.append((began, time.monotonic_ns()))
                await settle([], [slot])
            await asyncio.wait([ending], timeout=random.random() * callers / 1000)

    over = asyncio.Event()
    ending = asyncio.create_task(over.wait())
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    asyncio.get_running_loop().call_later(seconds, over.set)
    kinds = [*(lambda key=key: asking(key) for key in requests), using, None]
    async def caller(number):
        kind = kinds[number % len(kinds)]
        await (kind() if kind else holding(number))
    await asyncio.gather(*(caller(number) for number in range(callers)))
    level = (await store.take([Claim("tokens", Limit(*tokens), 0)])).levels[0].remaining
    print(json.dumps([began, time.monotonic(), admitted, used, level, held, failed]))

asyncio.run(main(*sys.argv[1:3], *json.loads(sys.argv[3])))
"""


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_several_processes_never_admit_one_too_many_and_hardly_one_too_few(tmp_path: Path) -> None:
    rest = json.dumps([CALLERS, SECONDS, REQUESTS, TOKENS, RESERVED, USED, PLACES])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CALLER, str(tmp_path / "limits"), str(number), rest],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
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
    began, ended = min(start for start, *_ in found), max(end for _, end, *_ in found)
    longest = ended - began
    shortest = min(end for _, end, *_ in found) - max(start for start, *_ in found)
    for key, (capacity, rate) in REQUESTS.items():
        admitted = sum(counts[key] for _, _, counts, *_ in found)
        print(f"{key}: {admitted} of {capacity + rate * longest:.2f}")
        assert admitted <= capacity + math.floor(rate * longest)
        if capacity > 1:  # else whoever comes late finds what a full bucket could not hold gone
            assert admitted >= 0.99 * (capacity + rate * shortest) - 1
    capacity, rate = TOKENS
    used = sum(tokens for _, _, _, tokens, *_ in found)
    _, last, _, _, level, *_ = max(found, key=lambda one: one[1])
    print(f"tokens: {used} of {capacity + rate * longest:.2f}, {level:.2f} left")
    assert used + level <= capacity + rate * longest
    assert used + level >= 0.99 * (capacity + rate * (last - max(start for start, *_ in found)))
    held = [edge for *_, spans, _ in found for start, end in spans for edge in ((start, 1), (end, -1))]
    at_a_time = most = 0
    for _, step in sorted(held):
        at_a_time += step
        most = max(most, at_a_time)
    print(f"places: {len(held) // 2} times, {most} at most; {sum(failed for *_, failed in found)} calls without an answer")
    assert most == PLACES
