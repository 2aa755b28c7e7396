"""Every store with a clock the test moves, and what buckets and slots should do, told in exact fractions.

A new store is one line of STORES.
"""

import itertools
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction

import msgspec

from sluice.limits import SLOT_WAIT, BucketStore, Claim, Slot
from sluice.limits.memory import MemoryStore
from sluice.limits.redis import RedisStore
from sluice.limits.shared import SharedStore
from tests.redis_clusters import Cluster
from tests.servers import RedisServer, Watched

STEP = 15_625
"""Microseconds: 1/64 s, a time that floats and whole microseconds both hold exactly."""
EPOCH = 1_900_000_000 * 64
LEASE = 30
"""Seconds."""
Server = RedisServer | Cluster | Watched
_prefixes = (f"test{number}" for number in itertools.count())


def _nameless() -> str:
    """A file that is gone when its store is."""
    return f"/proc/self/fd/{os.memfd_create('limits')}"


class Lab:
    """A store at a time of the test's choosing, in steps of 1/64 s."""

    def __init__(self, kind: str, redis: Server | None) -> None:
        self.steps = EPOCH
        self.redis = redis
        self.store: BucketStore = STORES[kind](self)

    @property
    def url(self) -> str:
        assert self.redis is not None
        return self.redis.url

    def seconds(self) -> float:
        return self.steps / 64

    def microseconds(self) -> int:
        return self.steps * STEP

    def advance(self, seconds: float) -> None:
        steps = Fraction(seconds) * 64
        assert steps.denominator == 1
        self.steps += int(steps)


def _redis(at: Lab) -> BucketStore:
    return RedisStore(at.url, prefix=next(_prefixes), timeout=10, lease=LEASE, now=at.microseconds)


STORES: dict[str, Callable[[Lab], BucketStore]] = {
    "memory": lambda at: MemoryStore(at.seconds, wall=at.seconds),
    "redis": _redis,
    "valkey": _redis,
    "sentinel": _redis,
    "cluster": _redis,
    "shared": lambda at: SharedStore(_nameless(), clock=at.seconds, wall=at.seconds, lease=LEASE),
}

TRACELESS = STORES.keys() - {"memory"}
"""Stores in which a call that changes nothing leaves no trace of when it was made."""


@asynccontextmanager
async def lab(kind: str, redis: Server | None) -> AsyncIterator[Lab]:
    opened = Lab(kind, redis)
    try:
        yield opened
    finally:
        await opened.store.close()


class Expected(msgspec.Struct):
    admitted: bool
    remaining: list[Fraction]
    wait: Fraction | None
    """Seconds; None: never."""


class Oracle:
    """Token buckets by the book: levels are exact, and time that runs backwards does not count. Slots with a
    lease.

    `writes_only`: a call that changes nothing leaves no trace of when it was made, unless time had run
    backwards.
    """

    def __init__(self, *, writes_only: bool = False, lease: float = math.inf) -> None:
        self._writes_only = writes_only
        self._lease = lease
        self._states: dict[str, tuple[Fraction, Fraction]] = {}
        """Level, and the time it was as high."""
        self._leases: dict[Slot, float] = {}
        """When each ends."""

    def take(self, claims: Sequence[Claim], now: Fraction, slots: Sequence[Slot] = ()) -> Expected:
        before = {claim.key: self._level(claim, now) for claim in claims}
        left = dict(before)
        wait: Fraction | None = Fraction(0)
        asked: dict[str, Fraction] = {}
        for claim in claims:
            left[claim.key] -= Fraction(claim.amount)
            asked[claim.key] = asked.get(claim.key, Fraction(0)) + Fraction(claim.amount)
            missing = -left[claim.key]
            if asked[claim.key] > Fraction(claim.limit.capacity) or (missing > 0 and not claim.limit.rate):
                wait = None
            elif wait is not None and missing > 0:
                wait = max(wait, missing / Fraction(claim.limit.rate))
        held = self.held(now)
        after_slots = held | set(slots)
        rooms = [self._taken(slot, after_slots) <= slot.capacity or slot in held for slot in slots]
        if not all(rooms) and wait is not None:
            wait = max(wait, Fraction(SLOT_WAIT))
        admitted = all(level >= 0 for level in left.values()) and all(rooms)
        after = left if admitted else before
        self._keep(before, after, now)
        if admitted:
            self._leases |= dict.fromkeys(slots, float(now) + self._lease)
        places = [
            Fraction(slot.capacity - self._taken(slot, after_slots if admitted else held)) for slot in slots
        ]
        return Expected(admitted, [after[claim.key] for claim in claims] + places, wait)

    def settle(self, claims: Sequence[Claim], now: Fraction, slots: Sequence[Slot] = ()) -> None:
        before = {claim.key: self._level(claim, now) for claim in claims}
        after = dict(before)
        for claim in claims:
            after[claim.key] = min(after[claim.key] - Fraction(claim.amount), Fraction(claim.limit.capacity))
        self._keep(before, after, now)
        for slot in slots:
            self._leases.pop(slot, None)

    def renew(self, slots: Sequence[Slot], now: Fraction) -> None:
        self._leases |= dict.fromkeys(slots, float(now) + self._lease)

    def held(self, now: Fraction) -> set[Slot]:
        return {slot for slot, ends in self._leases.items() if ends > now}

    def lapsed(self, now: Fraction) -> set[Slot]:
        return set(self._leases) - self.held(now)

    def _taken(self, slot: Slot, held: set[Slot]) -> int:
        return sum(other.key == slot.key for other in held)

    def _level(self, claim: Claim, now: Fraction) -> Fraction:
        capacity = Fraction(claim.limit.capacity)
        level, at = self._states.get(claim.key, (capacity, now))
        return min(capacity, level + max(Fraction(0), now - at) * Fraction(claim.limit.rate))

    def _keep(self, before: dict[str, Fraction], after: dict[str, Fraction], now: Fraction) -> None:
        for key, level in after.items():
            ran_backwards = key in self._states and now < self._states[key][1]
            if not self._writes_only or ran_backwards or level != before[key]:
                self._states[key] = (level, now)
