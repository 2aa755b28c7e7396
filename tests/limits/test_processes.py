"""Several gateways in processes of their own on one store: together they admit what one would, exactly.

SLUICE_FULL=1 makes it 8 processes of 200 callers for a minute; else 3 of 9 for two seconds.
"""

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sluice.limits import Claim, Limit, Slot
from tests.limits.caller import STORES
from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("SLUICE_FULL") == "1"
PROCESSES, CALLERS, SECONDS = (8, 200, 60) if FULL else (3, 9, 2)
REQUESTS = {"a": (1, 7.0), "b": (20, 100.0), "c": (360_000, 100.0)}
"""By bucket: capacity and rate. All of them are asked for far more than they hold.

The last one, which takes an hour to fill, is empty when they begin: what it has earned since has been
admitted or is still in it, however slow the machine and the callers are. What a small bucket earns while it
is full is nobody's.
"""
TOKENS = {"t": (2_000, 3_000.0), "u": (100, 500.0), "v": (3_600 * 1_234, 1_234.5)}
LEVELS = {
    "ann/acme": (100, 300.0),
    "bob/acme": (40, 4000.0),
    "eve/beta": (3000, 4000.0),
    "acme": (500, 1000.0),
    "beta": (300, 2000.0),
    "team": (3_600 * 1_500, 1_500.0),
    "streams": (3, 1.0),
}
"""Users below tenants below a team; each level binds somebody. "streams" are the team's places."""
SLOTS = {"x": (1, 0), "y": (3, 0), "z": (7, 0)}
HANG = 30


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that any process can open."""
    if request.param == "shared":
        return f"shared:{tmp_path / 'limits'}"
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


@contextmanager
def processes(number: int, *arguments: str) -> Iterator[list["subprocess.Popen[str]"]]:
    """So many of caller.py, ready to begin."""
    command = [sys.executable, "-m", "tests.limits.caller", *arguments]
    started = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def begin(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


class Counted:
    """What all of them counted, and for how long: `longest` from the first that began to the last that ended
    (seconds)."""

    def __init__(self, url: str, work: str, limits: dict[str, tuple[float, float]]) -> None:
        self._url = url
        self._large = max(limits, key=lambda key: limits[key][0])
        self._limit = Limit(*limits[self._large])
        with processes(PROCESSES, url, work, str(CALLERS), str(SECONDS), json.dumps(limits)) as started:
            emptied = asyncio.run(self._take(self._limit.capacity)) if work != "slots" else None
            for process in started:
                begin(process)
            self._found = [
                json.loads(process.stdout.readline()) for process in started if process.stdout is not None
            ]
        if emptied is not None:
            looked = asyncio.run(self._take(0))
            self.left = looked[1]
            self.earned = tuple(
                self._limit.rate * micros / 1e6 for micros in (looked[0] - emptied[2], looked[2] - emptied[0])
            )
            """By the large bucket from when it was empty: at least, and at most."""
        self.longest = (
            max(end for _, end, _ in self._found) - min(start for start, _, _ in self._found)
        ) / 1e6

    def check(self, admitted: int) -> None:
        """What the large bucket has earned was admitted or is left, and no more."""
        least, most = self.earned
        print(f"{self._large}: {admitted} and {self.left:.2f} left of {least:.2f} to {most:.2f}")
        assert 0.99 * least - 1 <= admitted + self.left <= most + 1e-3

    async def _take(self, amount: float) -> tuple[int, float, int]:
        """What is left of the large bucket, and the store's time before and after."""
        store, now = STORES[self._url.partition(":")[0]](self._url)
        try:
            before = await now()
            verdict = await store.take([Claim(self._large, self._limit, amount)])
            assert verdict.admitted
            return before, verdict.levels[0].remaining, await now()
        finally:
            await store.close()

    def sums(self, key: str) -> list[int]:
        return [sum(column) for column in zip(*self.all(key), strict=True)]

    def all(self, key: str) -> list[list[Any]]:
        return [counts[key] for _, _, counts in self._found]


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_several_processes_never_admit_one_too_many_and_hardly_one_too_few(url: str) -> None:
    counted = Counted(url, "requests", REQUESTS)
    *small, large = REQUESTS
    for key in small:
        capacity, rate = REQUESTS[key]
        admitted = counted.sums(key)[0]
        assert admitted <= capacity + math.floor(rate * counted.longest)
        print(f"{key}: {admitted} of {capacity + rate * counted.longest:.2f}")
    counted.check(counted.sums(large)[0])


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_tokens_that_are_settled_at_random_are_neither_minted_nor_lost(url: str) -> None:
    counted = Counted(url, "tokens", TOKENS)
    *small, large = TOKENS
    for key in small:
        capacity, rate = TOKENS[key]
        admitted, refunded, charged = counted.sums(key)
        assert admitted - refunded <= capacity + math.floor(rate * counted.longest)
        print(f"{key}: {admitted} - {refunded} + {charged} of {capacity + rate * counted.longest:.2f}")
    admitted, refunded, charged = counted.sums(large)
    counted.check(admitted - refunded + charged)


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_no_level_above_a_call_admits_too_much_and_none_is_charged_for_a_refusal_of_another(url: str) -> None:
    """What a user takes is taken of its tenant and its team, too: a refusal by one leaves the others as they
    were."""
    counted = Counted(url, "levels", LEVELS)
    sums = {key: counted.sums(key)[0] for key in LEVELS}
    for key, (capacity, rate) in LEVELS.items():
        if key != "streams":
            assert sums[key] <= capacity + math.floor(rate * counted.longest)
            print(f"{key}: {sums[key]} of {capacity + rate * counted.longest:.2f}")
    for tenant in ("acme", "beta"):
        assert sums[tenant] == sum(of for key, of in sums.items() if key.endswith(f"/{tenant}"))
    assert sums["team"] == sums["acme"] + sums["beta"] > 0
    counted.check(sums["team"])
    assert asyncio.run(left_of(url, Slot("streams", 3, "last"))) == 2  # every place has come back


async def left_of(url: str, slot: Slot) -> float:
    """Places that are left when this one is taken."""
    store, _ = STORES[url.partition(":")[0]](url)
    verdict = await store.take([], [slot])
    await store.close()
    return verdict.levels[0].remaining


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_never_one_slot_too_many_is_held(url: str) -> None:
    counted = Counted(url, "slots", SLOTS)
    for key, (capacity, _) in SLOTS.items():
        held = [span for spans in counted.all(key) for span in spans]
        changes = sorted([(began, 1) for began, _ in held] + [(ended, -1) for _, ended in held])
        at_once, most = 0, 0
        for _, change in changes:
            at_once += change
            most = max(most, at_once)
        assert 0 < most <= capacity
        print(f"{key}: {len(held)} times, at most {most} of {capacity} at once")


async def test_what_a_killed_process_held_comes_back_after_its_lease(url: str) -> None:
    store, _ = STORES[url.partition(":")[0]](url)
    slot = Slot("crash", 3, "heir")
    with processes(1, url, "hold", "1", str(HANG), json.dumps({"crash": (3, 0)})) as [process]:
        begin(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        verdict = await store.take([], [slot])
        assert (verdict.admitted, verdict.levels[0].remaining) == (False, 0)
        process.kill()
    while not (await store.take([], [slot])).admitted:
        pass
    await store.close()
