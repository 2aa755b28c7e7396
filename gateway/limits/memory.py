"""Buckets of one process. Nothing here suspends, so a call is atomic without a lock.

Full buckets need no memory: each call looks at a few of the buckets that were looked at longest ago and forgets those
that are full again, so the cost is spread and there is no task. Beyond `max_buckets` the one looked at longest ago is
forgotten even if it is not full; getting there takes as many callers at once.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.limits import Claim, Verdict
from gateway.limits.bucket import SECOND, Bucket, Rule, refusal, rule_of, same_limits

SWEEP_EVERY = 32
"""Claims between two sweeps."""
SWEEP = 2 * SWEEP_EVERY
"""Buckets looked at in a sweep: more than the claims between two sweeps can have made."""


class MemoryStore:
    """`clock` gives seconds and should be monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, max_buckets: int = 500_000) -> None:
        self._clock = clock
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._until_sweep = SWEEP_EVERY

    def __len__(self) -> int:
        return len(self._buckets)

    async def take(self, claims: Sequence[Claim]) -> Verdict:
        """Raises ValueError for a negative amount, or one bucket under two limits."""
        now = self._clock()
        earliest, latest = _microseconds(now)
        self._until_sweep -= len(claims)
        if self._until_sweep <= 0:
            self._sweep(earliest, latest)
        if len(claims) == 1:
            [claim] = claims
            bucket = self._bucket(claim, earliest, latest)
            rule = bucket.rule
            backlog = bucket.backlog + rule.cost(claim.amount)
            if backlog <= rule.capacity:
                bucket.backlog = backlog
                return Verdict(True, (rule.level(backlog),))
            return self._refuse(claims, [bucket], now)
        rules = [rule_of(claim.limit) for claim in claims]
        same_limits(claims, rules)
        costs = [rule.cost(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        buckets = [self._bucket(claim, earliest, latest) for claim in claims]
        if not _fit(buckets, costs):
            return self._refuse(claims, buckets, now)
        for bucket, cost in zip(buckets, costs, strict=True):
            bucket.backlog += cost
        return Verdict(True, tuple(bucket.rule.level(bucket.backlog) for bucket in buckets))

    async def settle(self, claims: Sequence[Claim]) -> None:
        """Raises ValueError for an amount that is not finite, or one bucket under two limits."""
        earliest, latest = _microseconds(self._clock())
        rules = [rule_of(claim.limit) for claim in claims]
        same_limits(claims, rules)
        charges = [rule.charge(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        for claim, charge in zip(claims, charges, strict=True):
            self._bucket(claim, earliest, latest).settle(charge)

    async def close(self) -> None:
        self._buckets.clear()

    def _bucket(self, claim: Claim, earliest: int, latest: int) -> Bucket:
        """The claim's bucket, as it is now."""
        bucket = self._buckets.get(claim.key)
        if bucket is None:
            bucket = self._buckets[claim.key] = Bucket(rule_of(claim.limit), latest)
        else:
            bucket.refill(earliest, latest)
            if bucket.rule.limit is not claim.limit and bucket.rule.limit != claim.limit:
                bucket.adopt(rule_of(claim.limit))
        return bucket

    def _refuse(self, claims: Sequence[Claim], buckets: Sequence[Bucket], now: float) -> Verdict:
        rules: list[Rule] = [bucket.rule for bucket in buckets]
        costs = [rule.cost(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        verdict = refusal(claims, rules, costs, [bucket.backlog for bucket in buckets])
        retry_after = _until(now, max(bucket.at for bucket in buckets), verdict.retry_after)
        return Verdict(False, verdict.levels, retry_after, verdict.denied)

    def _sweep(self, earliest: int, latest: int) -> None:
        self._until_sweep = SWEEP_EVERY
        buckets = self._buckets
        for _ in range(min(SWEEP, len(buckets))):
            key = next(iter(buckets))
            bucket = buckets[key]
            bucket.refill(earliest, latest)
            if bucket.backlog and len(buckets) <= self._max_buckets:
                buckets.move_to_end(key)
            else:
                del buckets[key]


def _microseconds(now: float) -> tuple[int, int]:
    """The whole microseconds before and after: time that has passed is rounded down, whichever end it is read at."""
    exact = now * SECOND
    earliest = math.floor(exact)
    return earliest, earliest if earliest == exact else earliest + 1


def _until(now: float, at: int, wait: float) -> float:
    """`wait` from the microsecond `at`, as seconds from `now`; longer where `now + wait` would fall short in floating point."""
    if wait == math.inf:
        return wait
    due = at + round(wait * SECOND)
    if _microseconds(now + wait)[0] < due:
        wait = due / SECOND - now
    while _microseconds(now + wait)[0] < due:
        wait += math.ulp(now + wait)
    return wait


def _fit(buckets: Sequence[Bucket], costs: Sequence[int]) -> bool:
    asked: dict[int, int] = {}
    for bucket, cost in zip(buckets, costs, strict=True):
        backlog = asked.get(id(bucket), bucket.backlog) + cost
        if backlog > bucket.rule.capacity:
            return False
        asked[id(bucket)] = backlog
    return True
