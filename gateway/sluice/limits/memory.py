"""Holds buckets and slots of one process. Nothing here awaits, so a call is atomic without a lock.

Full buckets need no memory: every few claims a sweep checks the buckets that were checked longest ago and
deletes those that are full again, so no task is needed. Beyond `max_buckets` it deletes the oldest ones even
if they are not full. Only buckets that never refill (budgets) are kept until they expire, by both
clocks: a wall clock that jumps ahead and back has forgotten nothing. At twice `max_buckets` a new budget is
refused.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from sluice.errors import Unavailable
from sluice.limits import Balance, Claim, Level, Slot, Verdict
from sluice.limits.bucket import SECOND, Bucket, moved, refusal, rule_of, same_limits

SWEEP_EVERY = 32
"""Claims between two sweeps."""
SWEEP = 2 * SWEEP_EVERY
"""Buckets that one sweep checks: more than the claims between two sweeps can make."""


class MemoryStore:
    """Buckets and slots of one process. `clock` gives seconds and should be monotonic; `wall` gives seconds
    since the epoch, for buckets that expire."""

    lease = math.inf

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        wall: Callable[[], float] = time.time,
        max_buckets: int = 500_000,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._holders: dict[str, set[str]] = {}
        self._reserved: dict[str, dict[str, tuple[int, int]]] = {}
        """By budget and holder: the ticks that are reserved (they are part of the backlog), and the ticks of
        one unit."""
        self._until_sweep = SWEEP_EVERY

    def __len__(self) -> int:
        return len(self._buckets)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Like `take_now`."""
        return self.take_now(claims, slots)

    def take_now(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Raises ValueError for a negative amount, or for one bucket under two limits; Unavailable if there
        are too many budgets."""
        reserving = claims and claims[-1].holder
        if reserving:
            same_limits(claims)
        now = self._clock()
        exact = now * SECOND  # as `microseconds` does
        earliest = latest = math.floor(exact)
        if earliest != exact:
            latest += 1
        self._until_sweep -= len(claims)
        if self._until_sweep <= 0:
            self._sweep(earliest, latest)
        taken = []
        buckets = self._buckets
        for claim in claims:
            bucket = buckets.get(claim.key)
            if bucket is not None and bucket.rule.limit is claim.limit:
                bucket.refill(earliest, latest)
            else:
                bucket = self._bucket(claim, claims, earliest, latest)
            rule = bucket.rule
            taken.append((bucket, rule.one if claim.amount == 1.0 else rule.cost(claim.amount)))
        fits = True
        for bucket, cost in taken:
            bucket.backlog += cost
            if bucket.backlog > bucket.rule.capacity:
                fits = False
        if fits and not slots:
            if reserving:
                self._reserve(claims, taken)
            return Verdict(True, tuple([bucket.rule.level(bucket.backlog) for bucket, _ in taken]))
        entered: list[Slot] = []
        free = [self._enter(slot, entered) for slot in slots]
        if fits and all(free):
            if reserving:
                self._reserve(claims, taken)
            levels = [bucket.rule.level(bucket.backlog) for bucket, _ in taken]
            levels += [Level(float(slot.capacity - self._taken(slot)), 0.0) for slot in slots]
            return Verdict(True, tuple(levels))
        for bucket, cost in taken:
            bucket.backlog -= cost
        for slot in entered:
            self._free(slot)
        rules, backlogs = [bucket.rule for bucket, _ in taken], [bucket.backlog for bucket, _ in taken]
        places = [(self._taken(slot), one) for slot, one in zip(slots, free, strict=True)]
        verdict = refusal(claims, rules, [cost for _, cost in taken], backlogs, slots=slots, places=places)
        if verdict.denied >= len(claims):  # SLOT_WAIT is a guess, not a time to be rounded
            return verdict
        retry_after = seconds_until(
            now, max((bucket.at for bucket, _ in taken), default=latest), verdict.retry_after
        )
        return Verdict(False, verdict.levels, retry_after, verdict.denied)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Raises ValueError for an amount that is not finite, or one bucket under two limits."""
        if again and not any(
            claim.holder in self._reserved.get(claim.key, ()) for claim in claims if claim.holder
        ):
            return
        earliest, latest = microseconds(self._clock())
        charges = []
        for claim in claims:
            bucket = self._bucket(claim, claims, earliest, latest)
            charges.append((bucket, bucket.rule.charge(claim.amount)))
        if claims and claims[-1].holder:
            charges = [
                (bucket, charge - self._given_back(claim, bucket) if claim.holder else charge)
                for (bucket, charge), claim in zip(charges, claims, strict=True)
            ]
        for bucket, charge in charges:
            bucket.settle(charge)
        for slot in slots:
            self._free(slot)

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Does nothing: slots and reservations end with this process."""

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """See BucketStore."""
        earliest, latest = microseconds(self._clock())
        found = []
        for claim in claims:
            bucket = self._buckets.get(claim.key)
            if bucket is None:
                found.append(Balance(0.0, 0.0))
                continue
            bucket.refill(earliest, latest)
            unit = bucket.rule.unit
            reserved = sum(moved(ticks, of, unit) for ticks, of in self._reserved.get(claim.key, {}).values())
            found.append(Balance((bucket.backlog - reserved) / unit, reserved / unit))
        return found

    async def close(self) -> None:
        self._buckets.clear()
        self._holders.clear()
        self._reserved.clear()

    def _reserve(self, claims: Sequence[Claim], taken: Sequence[tuple[Bucket, int]]) -> None:
        for claim, (bucket, cost) in zip(claims, taken, strict=True):
            if claim.holder:
                self._reserved.setdefault(claim.key, {})[claim.holder] = (cost, bucket.rule.unit)

    def _given_back(self, claim: Claim, bucket: Bucket) -> int:
        """Ends the holder's reservation. Returns its ticks, 0 if there was none."""
        reserved = self._reserved.get(claim.key, {})
        ticks, unit = reserved.pop(claim.holder, (0, 1))
        if not reserved:
            self._reserved.pop(claim.key, None)
        return moved(ticks, unit, bucket.rule.unit)

    def _bucket(self, claim: Claim, claims: Sequence[Claim], earliest: int, latest: int) -> Bucket:
        """Returns the claim's bucket, refilled until now. Raises ValueError if another of the `claims` has
        another limit for it."""
        bucket = self._buckets.get(claim.key)
        if bucket is None:
            return self._new(claim, latest)
        bucket.refill(earliest, latest)
        if bucket.rule.limit is not claim.limit and bucket.rule.limit != claim.limit:
            same_limits(claims)
            bucket.adopt(rule_of(claim.limit))
        return bucket

    def _new(self, claim: Claim, at: int) -> Bucket:
        if not claim.limit.rate and len(self._buckets) >= 2 * self._max_buckets:
            raise Unavailable("The limits cannot be checked now")
        expires = claim.expires
        lasts = at + (expires - self._wall()) * SECOND if expires else 0.0
        bucket = self._buckets[claim.key] = Bucket(rule_of(claim.limit), at, expires, lasts)
        return bucket

    def _enter(self, slot: Slot, entered: list[Slot]) -> bool:
        """Adds the holder, even beyond the capacity. Returns whether there was a free place. A holder has one
        place only."""
        holders = self._holders.get(slot.key)
        if holders is None:
            holders = self._holders[slot.key] = set()
        if slot.holder in holders:
            return True
        free = len(holders) < slot.capacity
        holders.add(slot.holder)
        entered.append(slot)
        return free

    def _taken(self, slot: Slot) -> int:
        return len(self._holders.get(slot.key, ()))

    def _free(self, slot: Slot) -> None:
        holders = self._holders.get(slot.key)
        if holders is not None:
            holders.discard(slot.holder)
            if not holders:
                del self._holders[slot.key]

    def _sweep(self, earliest: int, latest: int) -> None:
        self._until_sweep = SWEEP_EVERY
        buckets = self._buckets
        wall = self._wall()
        for _ in range(min(SWEEP, len(buckets))):
            key = next(iter(buckets))
            bucket = buckets[key]
            bucket.refill(earliest, latest)
            budget_runs = not bucket.rule.pace and (
                not bucket.expires or wall < bucket.expires or earliest < bucket.lasts
            )
            if bucket.backlog and (budget_runs or (bucket.rule.pace and len(buckets) <= self._max_buckets)):
                buckets.move_to_end(key)
            else:
                del buckets[key]
                self._reserved.pop(key, None)


def microseconds(now: float) -> tuple[int, int]:
    """Returns the whole microseconds before and after `now`, so that elapsed time can be rounded down at both
    ends."""
    exact = now * SECOND
    earliest = math.floor(exact)
    return earliest, earliest if earliest == exact else earliest + 1


def seconds_until(now: float, at: int, wait: float) -> float:
    """Returns the seconds from `now` until `wait` microseconds after the microsecond `at`; a little longer if
    `now + wait` would be too early in floating point."""
    if wait == math.inf:
        return wait
    due = at + round(wait * SECOND)
    if microseconds(now + wait)[0] < due:
        wait = due / SECOND - now
    while microseconds(now + wait)[0] < due:
        wait += math.ulp(now + wait)
    return wait
