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
    """Token buckets by the book: levels are exact, and time that runs backwards does not count.

    `writes_only`: a call that changes nothing leaves no trace of when it was made, unless time had run backwards.
    """

    def __init__(self, *, writes_only: bool = False) -> None:
        self._writes_only = writes_only
        self._states: dict[str, tuple[Fraction, Fraction]] = {}
        """Level, and the time it was as high."""

    def take(self, claims: Sequence[Claim], now: Fraction) -> Expected:
        before = {claim.key: self._level(claim, now) for claim in claims}
        left = dict(before)
        wait: Fraction | None = Fraction(0)
        asked: dict[str, Fraction] = {}
        for claim in claims:
            left[claim.key] -= Fraction(claim.amount)
            asked[claim.key] = asked.get(claim.key, Fraction(0)) + Fraction(claim.amount)
            if asked[claim.key] > Fraction(claim.limit.capacity):
                wait = None
            elif wait is not None:
                wait = max(wait, -left[claim.key] / Fraction(claim.limit.rate))
        admitted = all(level >= 0 for level in left.values())
        after = left if admitted else before
        self._keep(before, after, now)
        return Expected(admitted, [after[claim.key] for claim in claims], wait)

    def settle(self, claims: Sequence[Claim], now: Fraction) -> None:
        before = {claim.key: self._level(claim, now) for claim in claims}
        after = dict(before)
        for claim in claims:
            after[claim.key] = min(after[claim.key] - Fraction(claim.amount), Fraction(claim.limit.capacity))
        self._keep(before, after, now)

    def _level(self, claim: Claim, now: Fraction) -> Fraction:
        capacity = Fraction(claim.limit.capacity)
        level, at = self._states.get(claim.key, (capacity, now))
        return min(capacity, level + max(Fraction(0), now - at) * Fraction(claim.limit.rate))

    def _keep(self, before: dict[str, Fraction], after: dict[str, Fraction], now: Fraction) -> None:
        for key, level in after.items():
            ran_backwards = key in self._states and now < self._states[key][1]
            if not self._writes_only or ran_backwards or level != before[key]:
                self._states[key] = (level, now)
