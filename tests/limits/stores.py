"""The two stores with a clock the test moves, and what a bucket should do, told in exact fractions."""

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction

import msgspec

from gateway.limits import BucketStore, Claim
from gateway.limits.memory import MemoryStore
from gateway.limits.redis import RedisStore
from tests.servers import RedisServer

STEP = 15_625
"""Microseconds: 1/64 s, a time that floats and whole microseconds both hold exactly."""
EPOCH = 1_900_000_000 * 64
_prefixes = (f"test{number}" for number in itertools.count())


class Lab:
    """A store at a time of the test's choosing, in steps of 1/64 s."""

    def __init__(self, redis: RedisServer | None) -> None:
        self.steps = EPOCH
        self.store: BucketStore
        if redis is None:
            self.store = MemoryStore(lambda: self.steps / 64)
        else:
            self.store = RedisStore(redis.url, prefix=next(_prefixes), timeout=10, now=lambda: self.steps * STEP)

    def advance(self, seconds: float) -> None:
        steps = Fraction(seconds) * 64
        assert steps.denominator == 1
        self.steps += int(steps)


@asynccontextmanager
async def lab(redis: RedisServer | None) -> AsyncIterator[Lab]:
    opened = Lab(redis)
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
    """Token buckets by the book: levels are exact, and time that runs backwards does not count."""

    def __init__(self) -> None:
        self.levels: dict[str, Fraction] = {}
        self.at: dict[str, Fraction] = {}

    def take(self, claims: Sequence[Claim], now: Fraction) -> Expected:
        self._refill(claims, now)
        left = dict(self.levels)
        wait: Fraction | None = Fraction(0)
        asked: dict[str, Fraction] = {}
        for claim in claims:
            left[claim.key] -= Fraction(claim.amount)
            asked[claim.key] = asked.get(claim.key, Fraction(0)) + Fraction(claim.amount)
            if asked[claim.key] > Fraction(claim.limit.capacity):
                wait = None
            elif wait is not None:
                wait = max(wait, -left[claim.key] / Fraction(claim.limit.rate))
        admitted = all(left[claim.key] >= 0 for claim in claims)
        if admitted:
            self.levels = left
        return Expected(admitted, [self.levels[claim.key] for claim in claims], wait)

    def settle(self, claims: Sequence[Claim], now: Fraction) -> None:
        self._refill(claims, now)
        for claim in claims:
            level = self.levels[claim.key] - Fraction(claim.amount)
            self.levels[claim.key] = min(level, Fraction(claim.limit.capacity))

    def _refill(self, claims: Sequence[Claim], now: Fraction) -> None:
        for claim in claims:
            capacity = Fraction(claim.limit.capacity)
            elapsed = max(Fraction(0), now - self.at.get(claim.key, now))
            level = self.levels.get(claim.key, capacity) + elapsed * Fraction(claim.limit.rate)
            self.levels[claim.key] = min(level, capacity)
            self.at[claim.key] = now
