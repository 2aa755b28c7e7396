"""The arithmetic of a token bucket, in whole numbers: what is admitted over any time T is at most
capacity + floor(rate * T), exactly.

A bucket is kept as its *backlog*: how long it would take to fill up, in ticks. Time takes ticks away, a claim
adds them, and a claim fits while the backlog stays within the capacity (this is GCRA, ITU-T I.371, described
as a bucket). So refilling multiplies whole numbers and never divides; the only roundings are made once per
limit and once per amount, each against the caller and by less than one tick, and a tick is at most a 2**-29th
of a unit or, in buckets of more than 4,096 units, a 2**-41st of the capacity. Backlogs stay below 2**53:
Redis's Lua, which has only doubles, does the same arithmetic with the same results. That allows a debt of two
million units, or a thousand capacities if that is more (less only where filling takes over 51 days).

A limit of rate 0 is a bucket whose backlog no time takes away: what a period's budget is.

Times are whole microseconds of any one clock. A clock that steps back neither mints nor takes anything:
refilling goes on from the earlier time.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import msgspec

from sluice.limits import SLOT_WAIT, Claim, Level, Limit, Slot, Verdict

SECOND = 1_000_000
UNIT_BITS, CAPACITY_BITS = 30, 42
MAX_FILL_MICROSECONDS = 1 << 50
"""A bucket that takes longer to fill (35 years) is refused as a mistake."""
MAX_CAPACITY_UNITS = 1 << 34
"""Maximum units of a capacity: beyond it, a tick is no longer small beside one unit."""
MAX_BACKLOG_TICKS = 1 << 52
"""Maximum ticks of a backlog. Debt does not grow beyond it."""
NEVER = 1 << 53
"""The cost of a claim that exceeds its bucket's capacity."""


class Rule(msgspec.Struct, frozen=True):
    """A limit in ticks.

    `pace`: ticks refilled per microsecond (0: never). `unit`: ticks of one unit. `capacity`: ticks of a full
    bucket. `one`: ticks of a claim of one unit.
    """

    limit: Limit
    pace: int
    unit: int
    capacity: int
    one: int

    def cost(self, amount: float) -> int:
        """Returns the ticks that a claim of `amount` takes; NEVER if it exceeds the capacity. Raises
        ValueError for a negative amount."""
        if not amount >= 0:
            raise ValueError("a claim takes zero or more")
        if amount > self.limit.capacity:
            return NEVER
        return min(self._ticks(amount), self.capacity)

    def charge(self, amount: float) -> int:
        """Returns the ticks that settling `amount` adds (negative for a refund). Raises ValueError if it is
        not finite."""
        if not math.isfinite(amount):
            raise ValueError("only a finite amount can be settled")
        ticks = self._ticks(amount)
        return max(-MAX_BACKLOG_TICKS, min(ticks, MAX_BACKLOG_TICKS))

    def _ticks(self, amount: float) -> int:
        """Returns the ticks of an amount, rounded up, so that a charge is never too small and a refund never
        too large."""
        whole = int(amount)
        if whole == amount:
            return whole * self.unit
        numerator, denominator = amount.as_integer_ratio()
        return -(-numerator * self.unit // denominator)

    def wait(self, excess: int) -> float:
        """Returns the microseconds until a backlog that is `excess` ticks too large fits; infinite if none
        are refilled."""
        return -(-excess // self.pace) if self.pace else math.inf

    def level(self, backlog: int) -> Level:
        """Returns the bucket's state. `reset` is infinite if it is not full and never refills (the policy
        knows its period)."""
        if self.pace:
            return Level((self.capacity - backlog) / self.unit, backlog / (self.pace * SECOND))
        return Level((self.capacity - backlog) / self.unit, math.inf if backlog else 0.0)


@lru_cache(4096)
def rule_of(limit: Limit) -> Rule:
    """Returns the limit in ticks. Raises ValueError, with a message for users, for an impossible limit.

    A unit is rounded up to whole ticks. It is rounded up once more if the capacity is not a whole number of
    ticks and a claim of all of it would otherwise cost less than it took to refill.
    """
    if not (0 < limit.capacity <= MAX_CAPACITY_UNITS and 0 <= limit.rate < math.inf):
        raise ValueError(
            f"a limit needs a rate of zero or more and a capacity above zero, up to {MAX_CAPACITY_UNITS}"
        )
    capacity, rate = Fraction(limit.capacity), Fraction(limit.rate)
    bits = int(capacity).bit_length()
    size = min(CAPACITY_BITS, UNIT_BITS + bits)
    if not rate:
        unit = 1 << (size - bits)
        return _rule(limit, 0, unit, math.floor(capacity * unit))
    span = capacity / rate * SECOND
    if span > MAX_FILL_MICROSECONDS:
        raise ValueError("a limit whose bucket takes over 35 years to fill")
    pace = 1 << max(0, size - int(span).bit_length())
    exact = SECOND * pace / rate
    unit = math.ceil(exact)
    if math.floor(capacity * unit) < capacity * exact:
        unit = math.ceil(exact + 1 / capacity)
    return _rule(limit, pace, unit, math.floor(capacity * unit))


def _rule(limit: Limit, pace: int, unit: int, capacity: int) -> Rule:
    return Rule(limit, pace, unit, capacity, min(unit, capacity) if limit.capacity >= 1 else NEVER)


class Bucket:
    """The state of one bucket: its backlog as it was at the time `at`. A new one is full. `expires` as in its
    claims; `lasts`: what that was by the clock of `at`, when the bucket was made."""

    __slots__ = ("at", "backlog", "expires", "lasts", "rule")

    def __init__(self, rule: Rule, at: int, expires: float = 0.0, lasts: float = 0.0) -> None:
        self.rule = rule
        self.at = at
        self.backlog = 0
        self.expires = expires
        self.lasts = lasts

    def refill(self, earliest: int, latest: int) -> None:
        """Refills for the time that has passed. Where the clock is finer than a microsecond, it is between
        `earliest` and `latest`."""
        elapsed = (earliest - self.at) * self.rule.pace
        if 0 <= elapsed < self.backlog:
            self.backlog -= elapsed
            self.at = earliest
        elif elapsed < 0:
            self.at = min(self.at, latest)
        else:
            self.backlog = 0
            self.at = latest

    def adopt(self, rule: Rule) -> None:
        """Changes the limit. Units used under the old limit count under the new one."""
        self.backlog = min(MAX_BACKLOG_TICKS, -(-self.backlog * rule.unit // self.rule.unit))
        self.rule = rule

    def settle(self, charge: int) -> None:
        self.backlog = max(0, min(MAX_BACKLOG_TICKS, self.backlog + charge))


def refusal(
    claims: Sequence[Claim],
    rules: Sequence[Rule],
    costs: Sequence[int],
    backlogs: Sequence[int],
    *,
    slots: Sequence[Slot] = (),
    places: Sequence[tuple[int, bool]] = (),
) -> Verdict:
    """Returns the verdict for a call that does not fit, with the wait in whole microseconds.

    `backlogs` are the present ones. `places`: for each slot, how many places are taken under its key, and
    whether one was free for it.
    """
    levels = [rule.level(backlog) for rule, backlog in zip(rules, backlogs, strict=True)]
    before: dict[str, int] = {}
    longest, denied = 0.0, -1
    for index, (claim, rule, cost, backlog) in enumerate(zip(claims, rules, costs, backlogs, strict=True)):
        before[claim.key] = needed = before.get(claim.key, 0) + cost
        excess = backlog + needed - rule.capacity
        wait = math.inf if needed > rule.capacity else rule.wait(excess)
        if excess > 0 and wait > longest:
            longest, denied = wait, index
    for index, (slot, (taken, free)) in enumerate(zip(slots, places, strict=True), len(claims)):
        levels.append(Level(float(slot.capacity - taken), 0.0))
        if not free and longest < SLOT_WAIT * SECOND:
            longest, denied = SLOT_WAIT * SECOND, index
    return Verdict(False, tuple(levels), longest / SECOND, denied)


def same_limits(claims: Sequence[Claim]) -> None:
    """Raises ValueError if a bucket is claimed under two limits (each window needs a key of its own), or
    reserved twice."""
    if len({claim.key for claim in claims}) == len(claims):
        return
    seen: dict[str, Limit] = {}
    for claim in claims:
        if seen.setdefault(claim.key, claim.limit) != claim.limit:
            raise ValueError("one bucket is claimed under two limits")
    reserved = [claim.key for claim in claims if claim.holder]
    if len(set(reserved)) < len(reserved):
        raise ValueError("one call reserves two amounts of one budget")


def moved(ticks: int, unit: int, to: int) -> int:
    """Converts ticks from a limit whose unit has `unit` ticks to one whose unit has `to`; rounded down, so
    that never too much is given back."""
    return ticks if unit == to else ticks * to // unit
