"""The token bucket as arithmetic (the generic cell rate algorithm, ITU-T I.371, which is the same thing by its other name).

A bucket is the moment `full_at` when it will be full again, in whole microseconds. Taking `amount` units moves that
moment later by their cost, `amount / rate`; what lies further ahead than `capacity / rate` is more than the bucket
holds. Costs are rounded up, the capacity and refunds down, so that the sum of what is admitted in any time T is never
more than `capacity + floor(rate * T)`, exactly. Debt is simply a moment that lies further ahead.

`seen_at` is when the bucket was last touched: where the clock has stepped back since, the bucket moves with it, so that
a step mints nothing and locks nobody out. The Lua script of the Redis store does the same in doubles, which are
exact to 2^53 (the year 2255 in microseconds).
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from gateway.limits import Claim, Level, Limit, Verdict

SECOND = 1_000_000


class Bucket(msgspec.Struct, frozen=True):
    """Both in microseconds of the store's clock."""

    full_at: int
    seen_at: int


def cost(amount: float, limit: Limit) -> int:
    """Microseconds that the refill takes to make up for `amount`; rounded against the caller (a refund is negative)."""
    return math.ceil(amount * SECOND / limit.rate)


def capacity(limit: Limit) -> int:
    """Microseconds that an empty bucket takes to fill."""
    return math.floor(limit.capacity * SECOND / limit.rate)


def touched(bucket: Bucket | None, now: int) -> Bucket:
    """The bucket as it is at `now`: an unknown or overdue one is full."""
    if bucket is None:
        return Bucket(now, now)
    full_at = bucket.full_at - max(0, bucket.seen_at - now)
    return Bucket(max(full_at, now), now)


def level(bucket: Bucket, limit: Limit, now: int) -> Level:
    behind = bucket.full_at - now
    return Level(remaining=(capacity(limit) - behind) * limit.rate / SECOND, reset=behind / SECOND)


def take(buckets: Mapping[str, Bucket], claims: Sequence[Claim], now: int) -> tuple[Verdict, dict[str, Bucket]]:
    """All claims or none, out of the known `buckets`. Returns what was decided and the buckets that have changed."""
    changed: dict[str, Bucket] = {}
    before: dict[str, Bucket] = {}
    wait = 0.0
    denied = -1
    for index, claim in enumerate(claims):
        known = before.setdefault(claim.key, touched(buckets.get(claim.key), now))
        bucket = changed.get(claim.key, known)
        after = Bucket(bucket.full_at + cost(claim.amount, claim.limit), now)
        over = after.full_at - now - capacity(claim.limit)
        if over > 0:
            needs = over / SECOND if claim.amount <= claim.limit.capacity else math.inf
            if needs > wait:
                wait, denied = needs, index
        changed[claim.key] = after
    if denied >= 0:
        levels = tuple(level(before[claim.key], claim.limit, now) for claim in claims)
        return Verdict(False, levels, wait, denied), {}
    return Verdict(True, tuple(level(changed[claim.key], claim.limit, now) for claim in claims)), changed


def settle(buckets: Mapping[str, Bucket], claims: Sequence[Claim], now: int) -> dict[str, Bucket]:
    """Charge (into debt if need be) or refund (never above full). Returns the buckets that have changed."""
    changed: dict[str, Bucket] = {}
    for claim in claims:
        bucket = changed.get(claim.key) or touched(buckets.get(claim.key), now)
        changed[claim.key] = Bucket(max(now, bucket.full_at + cost(claim.amount, claim.limit)), now)
    return changed
