"""Holds buckets and slots shared by the processes of one host, in an LMDB file that all of them map
(`table.py`).

A call holds the file's lock, and reads the time under it: CLOCK_MONOTONIC is the same for all processes of a
host, so time never runs back from one holder to the next. If the lock's holder hangs the call raises
StoreFailed, and the guard in front of the store decides (`limits.when_down`).

Rows, by the first byte of their keys: b and p are buckets and places (how many slots of a key are taken), l
are leases, e the same by when they end, s seats. A slot is a lease with its places' row in its key; what is
reserved of a budget is one, too, with the budget's, and says how many ticks of the backlog are its own. Slots
and reservations of a dead process are given back when a call finds no slot or budget left (checked at most
every BURY_EVERY seconds), when a balance is read, or when the table is opened; those of a process that hangs
when their lease ends.

In a full table a new row replaces one of the WINDOW buckets that follow it: one that is full again (its row
is not needed), else the one that would be full soonest, reported to `evicted`. That bucket then counts as
full, the smallest possible error, and callers that flood the table with keys evict each other's buckets
rather than those with debt. Budgets (rate 0) and leases are never evicted: if there is nothing else, the call
raises StoreFailed.
"""

import math
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice, takewhile
from pathlib import Path

import msgspec

from sluice.limits import SLOT_WAIT, Balance, Claim, Level, Limit, Slot, Verdict
from sluice.limits.bucket import SECOND, Bucket, Rule, moved, refusal, rule_of
from sluice.limits.faults import BucketStoreFailed
from sluice.limits.memory import _microseconds, _until
from sluice.limits.table import BucketTable, Transaction, starting

BUCKET = struct.Struct("<qqqqqd")
"""At, backlog, pace, unit, capacity, when it may be forgotten (seconds since the epoch; 0: when it is full).

What never refills needs no time: in place of `at` stand the ticks of its backlog that are reserved.
"""
LEASE = struct.Struct("<qqqq")
"""When it ends, its process's seat, ticks that are reserved and their unit (0: it is a slot's)."""
ENDS = struct.Struct(">Q")
END = 1 + ENDS.size
NAME = 16
"""Bytes: a kind and a digest."""
COUNT = struct.Struct("<q")
WINDOW = 32
BURY_EVERY = 0.1
"""Least seconds between two checks for dead processes."""
LEASES_AT_A_TIME = 100
"""Leases renewed under one lock, or ended in one transaction."""


def _ignore() -> None:
    return None


def _name(kind: bytes, text: str, salt: bytes = b"") -> bytes:
    return kind + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=NAME - 1, salt=salt).digest()


@lru_cache(8192)
def _name_of_bucket(key: str) -> bytes:
    return _name(b"b", key)


@lru_cache(8192)
def _name_of_places(key: str) -> bytes:
    return _name(b"p", key)


def _name_of_lease(of: bytes, holder: str) -> bytes:
    return b"l" + _name(of, holder)


class SharedStore:
    """`path` is created (0600) if need be. `clock` gives the host's monotonic seconds, `wall` seconds since
    the epoch.

    `lease` and `patience` (the timeout for the lock) in seconds; `size` is a new file's, in rows. `evicted`
    is called for each bucket deleted before it was full. Raises OSError as Table.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        lease: float = 30.0,
        patience: float = 0.05,
        size: int = 1 << 17,
        evicted: Callable[[], object] = _ignore,
    ) -> None:
        self.lease = lease
        self._clock = clock
        self._wall = wall
        self._patience = patience
        self._evicted = evicted
        self._buried = -math.inf
        self._latest = -1
        """When a lease was last requested: shows that the clock stepped back, so that leases do not last
        longer for it."""
        self._table = BucketTable(path, size)
        self._table.change_blocking(self._sit_down)

    def _sit_down(self) -> None:
        self._bury(frozenset((self._table.seat,)))
        with self._table.env.begin(write=True) as txn:
            self._table.use_seat(txn)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Raises StoreFailed; ValueError as MemoryStore does."""
        rules = [rule_of(claim.limit) for claim in claims]
        costs = [rule.cost(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        return await self._table.change(self._patience, self._take, claims, rules, costs, slots)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Raises as `take`, and has then done nothing; so `again` needs no check."""
        rules = [rule_of(claim.limit) for claim in claims]
        charges = [rule.charge(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        await self._table.change(self._patience, self._settle, claims, rules, charges, slots)

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Raises StoreFailed. A slot whose lease has ended is not held again: another call may have its
        place."""
        for first in range(0, max(len(slots), len(claims)), LEASES_AT_A_TIME):
            some = slice(first, first + LEASES_AT_A_TIME)
            await self._table.change(self._patience, self._renew, slots[some], claims[some])

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Raises as `take`. Gives back reservations of dead processes first."""
        rules = [rule_of(claim.limit) for claim in claims]
        return await self._table.change(self._patience, self._balances, claims, rules)

    async def close(self) -> None:
        self._table.close()

    # --- under the lock

    def _take(
        self, claims: Sequence[Claim], rules: Sequence[Rule], costs: Sequence[int], slots: Sequence[Slot]
    ) -> Verdict:
        now = self._clock()
        leasing = bool(slots) or (bool(claims) and bool(claims[-1].holder))
        if leasing:
            self._end_due(_microseconds(now)[0])
        verdict = self._decide(now, claims, rules, costs, slots)
        if leasing and not verdict.admitted and self._bury():
            return self._decide(now, claims, rules, costs, slots)
        return verdict

    def _decide(
        self,
        now: float,
        claims: Sequence[Claim],
        rules: Sequence[Rule],
        costs: Sequence[int],
        slots: Sequence[Slot],
    ) -> Verdict:
        earliest, latest = _microseconds(now)
        with self._table.env.begin(write=True) as txn:
            rows = self._rows(txn, claims, rules, earliest, latest)
            fits = True
            for claim, cost in zip(claims, costs, strict=True):
                row = rows[claim.key]
                row.backlog += cost
                if claim.holder:
                    row.reserved += cost
                fits = fits and row.backlog <= row.rule.capacity
            places, leases, free = self._wanted(txn, slots) if slots else ({}, (), True)
            if not fits or not free:
                for row in rows.values():
                    row.backlog, row.reserved = row.before, row.reserved_before
                self._write(txn, rows, earliest)
                self._table.turn(txn)
                return _refusal(now, claims, rules, costs, rows, slots=slots, places=places)
            self._write(txn, rows, earliest)
            for place in places.values():
                self._put(txn, place.name, COUNT.pack(place.taken), rows, earliest)
            for name in leases:
                self._lease(txn, name, earliest, rows=rows)
            if claims and claims[-1].holder:
                self._reserve(txn, claims, costs, rows, earliest)
        levels = [rule.level(rows[claim.key].backlog) for claim, rule in zip(claims, rules, strict=True)]
        levels += [Level(float(slot.capacity - places[slot.key].taken), 0.0) for slot in slots]
        return Verdict(True, tuple(levels))

    def _settle(
        self, claims: Sequence[Claim], rules: Sequence[Rule], charges: Sequence[int], slots: Sequence[Slot]
    ) -> None:
        earliest, latest = _microseconds(self._clock())
        with self._table.env.begin(write=True) as txn:
            rows = self._rows(txn, claims, rules, earliest, latest)
            for claim, charge in zip(claims, charges, strict=True):
                row = rows[claim.key]
                if claim.holder and (reserved := self._pop(txn, _name_of_lease(row.name, claim.holder))):
                    row.give_back(*reserved)
                row.settle(charge)
            self._write(txn, rows, earliest)
            for slot in slots:
                self._end(txn, _name_of_lease(_name_of_places(slot.key), slot.holder))

    def _renew(self, slots: Sequence[Slot], claims: Sequence[Claim]) -> None:
        earliest, latest = _microseconds(self._clock())
        with self._table.env.begin(write=True) as txn:
            for slot in slots:
                name = _name_of_lease(_name_of_places(slot.key), slot.holder)
                found = txn.get(name)
                if found is not None and LEASE.unpack(found)[0] > earliest:
                    self._lease(txn, name, earliest)
            for claim in claims:
                name = _name_of_lease(_name_of_bucket(claim.key), claim.holder)
                found = txn.get(name)
                if found is not None:
                    self._lease(txn, name, earliest, *LEASE.unpack(found)[2:])
                    continue
                rule = rule_of(
                    claim.limit
                )  # it was given back meanwhile: reserve it again, even beyond the capacity
                rows = self._rows(txn, [claim], [rule], earliest, latest)
                cost = rule.charge(claim.amount)
                rows[claim.key].settle(cost)
                rows[claim.key].reserved += cost
                self._write(txn, rows, earliest)
                self._reserve(txn, [claim], [cost], rows, earliest)

    def _balances(self, claims: Sequence[Claim], rules: Sequence[Rule]) -> list[Balance]:
        earliest, latest = _microseconds(self._clock())
        self._end_due(earliest)
        self._bury()
        found = []
        with self._table.env.begin() as txn:
            for claim, rule in zip(claims, rules, strict=True):
                row = self._row(txn, _name_of_bucket(claim.key), rule, earliest, latest)
                found.append(Balance((row.backlog - row.reserved) / rule.unit, row.reserved / rule.unit))
        return found

    # --- buckets

    def _rows(
        self, txn: Transaction, claims: Sequence[Claim], rules: Sequence[Rule], earliest: int, latest: int
    ) -> dict[str, "_Row"]:
        """The buckets as they are now. Raises ValueError where one is claimed under two limits."""
        rows: dict[str, _Row] = {}
        for claim, rule in zip(claims, rules, strict=True):
            row = rows.get(claim.key)
            if row is None:
                row = rows[claim.key] = self._row(txn, _name_of_bucket(claim.key), rule, earliest, latest)
            elif claim.holder or (row.rule is not rule and row.rule != rule):
                raise ValueError("one bucket is claimed under two limits, or reserved twice")
            if not rule.pace:
                row.until = max(row.until, claim.expires)
        return rows

    def _row(self, txn: Transaction, name: bytes, rule: Rule, earliest: int, latest: int) -> "_Row":
        found = txn.get(name)
        if found is None:
            return _Row(rule, latest, name)
        at, backlog, pace, unit, capacity, until = BUCKET.unpack(found)
        if until and until <= self._wall():
            return _Row(rule, latest, name)
        row = _Row(rule, at if pace else earliest, name)
        row.backlog = backlog
        row.reserved = 0 if pace else at
        if unit == rule.unit and pace == rule.pace and capacity == rule.capacity:
            row.refill(earliest, latest)
            row.until = until
        else:
            row.rule = msgspec.structs.replace(rule, pace=pace, unit=unit, capacity=capacity)
            row.refill(earliest, latest)
            row.adopt(rule)
        row.before, row.reserved_before = row.backlog, row.reserved
        return row

    def _write(self, txn: Transaction, rows: "dict[str, _Row]", now: int) -> None:
        """Buckets whose level has changed, or whose time ran backwards."""
        for row in rows.values():
            if row.backlog != row.before or row.at < row.read_at or row.reserved != row.reserved_before:
                self._put(txn, row.name, _state_of(row), rows, now)

    def _put(
        self, txn: Transaction, name: bytes, state: bytes, rows: "dict[str, _Row]", now: int
    ) -> bytes | None:
        """Write a row; returns the old state. In a full table evicts a bucket (none of `rows`), else raises
        StoreFailed."""
        before = txn.replace(name, state)
        if before is None and txn.stat()["entries"] > self._table.size:
            self._forget(txn, name, {row.name for row in rows.values()}, now)
        return before

    def _forget(self, txn: Transaction, name: bytes, used: set[bytes], now: int) -> None:
        """Evict the bucket that will be full soonest, of the WINDOW after `name` (a digest, so a random
        place)."""
        wall, left, spare = self._wall(), math.inf, b""
        for other, state in islice(chain(starting(txn, b"b", b"b" + name[1:]), starting(txn, b"b")), WINDOW):
            if other not in used:
                at, backlog, pace, _, _, until = BUCKET.unpack(state)
                left, spare = min(
                    (left, spare), (_missed_for(now - at, backlog, pace, 0 < until <= wall), other)
                )
        if left == math.inf:
            raise BucketStoreFailed("full")
        if left > 0:
            self._evicted()
        txn.delete(spare)

    # --- leases

    def _wanted(
        self, txn: Transaction, slots: Sequence[Slot]
    ) -> "tuple[dict[str, _Places], Iterable[bytes], bool]":
        """The slots' places as they would be, by key, the names of the leases, and whether all slots are
        free."""
        places: dict[str, _Places] = {}
        leases: set[bytes] = set()
        free = True
        for slot in slots:
            place = places.get(slot.key)
            if place is None:
                of = _name_of_places(slot.key)
                found = txn.get(of)
                place = places[slot.key] = _Places(of, COUNT.unpack(found)[0] if found is not None else 0)
            name = _name_of_lease(place.name, slot.holder)
            if name not in leases:
                leases.add(name)
                if txn.get(name) is None:
                    place.taken += 1
                    free = free and place.taken <= slot.capacity
        return places, leases, free

    def _reserve(
        self,
        txn: Transaction,
        claims: Sequence[Claim],
        costs: Sequence[int],
        rows: "dict[str, _Row]",
        now: int,
    ) -> None:
        for claim, cost in zip(claims, costs, strict=True):
            if claim.holder and cost:
                row = rows[claim.key]
                self._lease(txn, _name_of_lease(row.name, claim.holder), now, cost, row.rule.unit, rows=rows)

    def _lease(
        self,
        txn: Transaction,
        name: bytes,
        now: int,
        ticks: int = 0,
        unit: int = 0,
        *,
        seat: int | None = None,
        rows: "dict[str, _Row] | None" = None,
    ) -> None:
        """Create or renew a lease: it ends `lease` seconds from `now`."""
        lease = LEASE.pack(
            now + round(self.lease * SECOND), self._table.seat if seat is None else seat, ticks, unit
        )
        before = self._put(txn, name, lease, rows or {}, now)
        if before is not None:
            txn.delete(_end_of(name, before))
        self._put(txn, _end_of(name, lease), b"", rows or {}, now)

    def _pop(self, txn: Transaction, name: bytes) -> tuple[int, int] | None:
        """Delete a lease. Returns the ticks that it had reserved and their unit, None if there was none."""
        lease = txn.pop(name)
        if lease is None:
            return None
        txn.delete(_end_of(name, lease))
        _, _, ticks, unit = LEASE.unpack(lease)
        return ticks, unit

    def _end(self, txn: Transaction, name: bytes) -> None:
        """End a lease, if there is one: give back its place or its reservation."""
        reserved, of = self._pop(txn, name), name[1 : 1 + NAME]
        state = txn.get(of) if reserved is not None else None
        if reserved is None or state is None:  # without the budget's row its period is over
            return
        if of.startswith(b"b"):
            txn.put(of, _with_back(state, *reserved))
        elif (taken := COUNT.unpack(state)[0]) > 1:
            txn.put(of, COUNT.pack(taken - 1))
        else:
            txn.delete(of)

    def _end_all(self, names: Sequence[bytes]) -> None:
        for first in range(0, len(names), LEASES_AT_A_TIME):
            with self._table.env.begin(write=True) as txn:
                for name in names[first : first + LEASES_AT_A_TIME]:
                    self._end(txn, name)

    def _end_due(self, now: int) -> None:
        """Give back the leases that have ended.

        A lease that would end later than one taken now was taken before the clock stepped back: it is
        shortened to that.
        """
        with self._table.env.begin() as txn:
            due = [
                end[END:] for end, _ in takewhile(lambda row: row[0] < _ends(now + 1), starting(txn, b"e"))
            ]
        self._end_all(due)
        if now < self._latest:
            with self._table.env.begin() as txn:
                late = [
                    end[END:] for end, _ in starting(txn, b"e", _ends(now + round(self.lease * SECOND) + 1))
                ]
            for name in late:
                with self._table.env.begin(write=True) as txn:
                    _, seat, ticks, unit = LEASE.unpack(txn.get(name) or b"")
                    self._lease(txn, name, now, ticks, unit, seat=seat)
        self._latest = now

    def _bury(self, besides: frozenset[int] = frozenset()) -> bool:
        """Give back slots and reservations of dead processes; whether there were any. Checks every BURY_EVERY
        at most."""
        now = self._clock()
        if 0 <= now - self._buried < BURY_EVERY:
            return False
        self._buried = now
        with self._table.env.begin() as txn:
            dead = self._table.vacant(txn) | besides
            held = (
                [name for name, lease in starting(txn, b"l") if LEASE.unpack(lease)[1] in dead]
                if dead
                else []
            )
        self._end_all(held)
        with self._table.env.begin(write=True) as txn:
            self._table.clear(txn, dead)
        return bool(dead)


class _Row(Bucket):
    """A bucket, the name of its row, and its state when it was read."""

    __slots__ = ("before", "name", "read_at", "reserved", "reserved_before", "until")

    def __init__(self, rule: Rule, at: int, name: bytes) -> None:
        super().__init__(rule, at)
        self.name = name
        self.read_at = at
        self.before = 0
        self.reserved = self.reserved_before = 0
        self.until = 0.0

    def adopt(self, rule: Rule) -> None:
        self.reserved = moved(self.reserved, self.rule.unit, rule.unit)
        super().adopt(rule)

    def give_back(self, ticks: int, unit: int) -> None:
        """A reservation of so many ticks of that unit ends."""
        ticks = moved(ticks, unit, self.rule.unit)
        self.reserved = max(0, self.reserved - ticks)
        self.settle(-ticks)


class _Places:
    """The number of a key's slots in use, before a call and if it is admitted."""

    __slots__ = ("before", "name", "taken")

    def __init__(self, name: bytes, taken: int) -> None:
        self.name = name
        self.taken = self.before = taken


def _refusal(
    now: float,
    claims: Sequence[Claim],
    rules: Sequence[Rule],
    costs: Sequence[int],
    rows: dict[str, _Row],
    *,
    slots: Sequence[Slot],
    places: dict[str, _Places],
) -> Verdict:
    verdict = refusal(claims, rules, costs, [rows[claim.key].backlog for claim in claims])
    wait = (
        _until(now, max((row.at for row in rows.values()), default=0), verdict.retry_after)
        if verdict.denied >= 0
        else 0.0
    )
    denied, levels = verdict.denied, list(verdict.levels)
    for index, slot in enumerate(slots, len(claims)):
        place = places[slot.key]
        levels.append(Level(float(slot.capacity - place.before), 0.0))
        if place.taken > slot.capacity and wait < SLOT_WAIT:
            wait, denied = SLOT_WAIT, index
    return Verdict(False, tuple(levels), wait, denied)


def _ends(at: int) -> bytes:
    """The prefix of the rows for leases that end at this time."""
    return b"e" + ENDS.pack(at)


def _end_of(name: bytes, lease: bytes) -> bytes:
    """The row that orders a lease by its end."""
    return _ends(LEASE.unpack(lease)[0]) + name


def _with_back(state: bytes, ticks: int, unit: int) -> bytes:
    """A budget's state after a reservation of so many ticks of that unit was given back."""
    reserved, backlog, pace, to, capacity, until = BUCKET.unpack(state)
    row = _Row(Rule(Limit(1.0, 0.0), pace, to, capacity, to), 0, b"")
    row.backlog, row.reserved, row.until = backlog, reserved, until
    row.give_back(ticks, unit)
    return _state_of(row)


def _state_of(row: _Row) -> bytes:
    rule = row.rule
    at = row.at if rule.pace else row.reserved
    return BUCKET.pack(at, row.backlog, rule.pace, rule.unit, rule.capacity, row.until)


def _missed_for(elapsed: int, backlog: int, pace: int, expired: bool) -> float:
    """Microseconds until a bucket's row is no longer needed; infinite if it must not be evicted."""
    if backlog == 0 or expired:
        return 0.0
    return backlog / pace - elapsed if pace > 0 else math.inf
