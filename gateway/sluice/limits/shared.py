"""Holds buckets and slots that the processes of one host share, in an LMDB file that all of them map
(`table.py`; `rows.py` has the format of the rows).

A call holds the file's lock, and reads the time while it has it. CLOCK_MONOTONIC is the same for all
processes of a host, so time never runs backwards from one holder of the lock to the next. If the holder
hangs, the call raises BucketStoreFailed, and the guard in front of the store decides (`limits.when_down`).

Slots and reservations of a dead process are given back when a call finds no slot or budget left (checked at
most every DEAD_CHECK_SECONDS), when a balance is read, and when the table is opened. Those of a process that
hangs are given back when their lease ends.

In a full table, a new row replaces one of the WINDOW buckets that follow it: one that is full again (its row
is not needed), or else the one that would be full soonest, which is reported to `evicted`. The replaced
bucket then counts as full, which is the smallest possible error, and callers that flood the table with keys
evict each other's buckets before those with debt. Budgets (rate 0) and leases are never evicted: if there is
nothing else to replace, the call raises BucketStoreFailed.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice, takewhile
from pathlib import Path

import msgspec

from sluice.limits import SLOT_WAIT, Balance, Claim, Level, Slot, Verdict
from sluice.limits.bucket import SECOND, Rule, refusal, rule_of
from sluice.limits.faults import BucketStoreFailed
from sluice.limits.memory import microseconds, seconds_until
from sluice.limits.rows import (
    BUCKET,
    COUNT,
    END,
    LEASE,
    NAME_BYTES,
    BucketRow,
    Places,
    end_of,
    ends_prefix,
    given_back,
    name_of_bucket,
    name_of_lease,
    name_of_places,
    needed_for,
    state_of,
)
from sluice.limits.table import BucketTable, Transaction, starting

WINDOW = 32
DEAD_CHECK_SECONDS = 0.1
"""Minimum seconds between two checks for dead processes."""
LEASES_AT_A_TIME = 100
"""Leases that are renewed under one lock, or ended in one transaction."""


def _ignore() -> None:
    return None


class SharedStore:
    """Buckets and slots of one host.

    `path` is created (0600) if need be, for `size` rows. `clock` gives the host's monotonic seconds, `wall`
    seconds since the epoch. `lease`: seconds without renewal; `patience`: seconds that a call waits for the
    lock. `evicted` is called for each bucket that is deleted before it is full. Raises OSError as BucketTable
    does.
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
        self._dead_checked = -math.inf
        self._latest = -1
        """The latest time at which a lease was taken. An earlier time shows that the clock stepped back;
        leases must not last longer because of that."""
        self._table = BucketTable(path, size)
        self._table.change_blocking(self._begin)

    def _begin(self) -> None:
        self._release_dead(frozenset((self._table.seat,)))
        with self._table.env.begin(write=True) as txn:
            self._table.use_seat(txn)

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Raises BucketStoreFailed, and ValueError as MemoryStore does."""
        rules = [rule_of(claim.limit) for claim in claims]
        costs = [rule.cost(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        return await self._table.change(self._patience, self._take, claims, rules, costs, slots)

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Raises what `take` does, and has then done nothing, so `again` needs no check."""
        rules = [rule_of(claim.limit) for claim in claims]
        charges = [rule.charge(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        await self._table.change(self._patience, self._settle, claims, rules, charges, slots)

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Raises BucketStoreFailed. A slot whose lease has ended is not held again, because another call may
        have its place."""
        for first in range(0, max(len(slots), len(claims)), LEASES_AT_A_TIME):
            some = slice(first, first + LEASES_AT_A_TIME)
            await self._table.change(self._patience, self._renew, slots[some], claims[some])

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Gives back the reservations of dead processes first. Raises what `take` does."""
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
            self._end_due(microseconds(now)[0])
        verdict = self._decide(now, claims, rules, costs, slots)
        if leasing and not verdict.admitted and self._release_dead():
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
        earliest, latest = microseconds(now)
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
        earliest, latest = microseconds(self._clock())
        with self._table.env.begin(write=True) as txn:
            rows = self._rows(txn, claims, rules, earliest, latest)
            for claim, charge in zip(claims, charges, strict=True):
                row = rows[claim.key]
                if claim.holder and (reserved := self._pop(txn, name_of_lease(row.name, claim.holder))):
                    row.give_back(*reserved)
                row.settle(charge)
            self._write(txn, rows, earliest)
            for slot in slots:
                self._end(txn, name_of_lease(name_of_places(slot.key), slot.holder))

    def _renew(self, slots: Sequence[Slot], claims: Sequence[Claim]) -> None:
        earliest, latest = microseconds(self._clock())
        with self._table.env.begin(write=True) as txn:
            for slot in slots:
                name = name_of_lease(name_of_places(slot.key), slot.holder)
                found = txn.get(name)
                if found is not None and LEASE.unpack(found)[0] > earliest:
                    self._lease(txn, name, earliest)
            for claim in claims:
                name = name_of_lease(name_of_bucket(claim.key), claim.holder)
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
        earliest, latest = microseconds(self._clock())
        self._end_due(earliest)
        self._release_dead()
        found = []
        with self._table.env.begin() as txn:
            for claim, rule in zip(claims, rules, strict=True):
                row = self._row(txn, name_of_bucket(claim.key), rule, earliest, latest)
                found.append(Balance((row.backlog - row.reserved) / rule.unit, row.reserved / rule.unit))
        return found

    # --- buckets

    def _rows(
        self, txn: Transaction, claims: Sequence[Claim], rules: Sequence[Rule], earliest: int, latest: int
    ) -> dict[str, "BucketRow"]:
        """Returns the rows of the buckets, refilled until now. Raises ValueError if one is claimed under two
        limits."""
        rows: dict[str, BucketRow] = {}
        for claim, rule in zip(claims, rules, strict=True):
            row = rows.get(claim.key)
            if row is None:
                row = rows[claim.key] = self._row(txn, name_of_bucket(claim.key), rule, earliest, latest)
            elif claim.holder or (row.rule is not rule and row.rule != rule):
                raise ValueError("one bucket is claimed under two limits, or reserved twice")
            if not rule.pace:
                row.until = max(row.until, claim.expires)
        return rows

    def _row(self, txn: Transaction, name: bytes, rule: Rule, earliest: int, latest: int) -> "BucketRow":
        found = txn.get(name)
        if found is None:
            return BucketRow(rule, latest, name)
        at, backlog, pace, unit, capacity, until = BUCKET.unpack(found)
        row = BucketRow(rule, at if pace else earliest, name)
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

    def _write(self, txn: Transaction, rows: "dict[str, BucketRow]", now: int) -> None:
        """Writes the buckets whose level has changed, or whose time ran backwards."""
        for row in rows.values():
            if row.backlog != row.before or row.at < row.read_at or row.reserved != row.reserved_before:
                self._put(txn, row.name, state_of(row), rows, now)

    def _put(
        self, txn: Transaction, name: bytes, state: bytes, rows: "dict[str, BucketRow]", now: int
    ) -> bytes | None:
        """Writes a row, and returns the old state. In a full table it evicts a bucket (none of `rows`);
        raises BucketStoreFailed if there is none to evict."""
        before = txn.replace(name, state)
        if before is None and txn.stat()["entries"] > self._table.size:
            self._forget(txn, name, {row.name for row in rows.values()}, now)
        return before

    def _forget(self, txn: Transaction, name: bytes, used: set[bytes], now: int) -> None:
        """Evicts the bucket that will be full soonest, among the WINDOW rows after `name` (a digest, so this
        is a random place)."""
        wall, left, spare = self._wall(), math.inf, b""
        for other, state in islice(chain(starting(txn, b"b", b"b" + name[1:]), starting(txn, b"b")), WINDOW):
            if other not in used:
                at, backlog, pace, _, _, until = BUCKET.unpack(state)
                left, spare = min(
                    (left, spare), (needed_for(now - at, backlog, pace, 0 < until <= wall), other)
                )
        if left == math.inf:
            raise BucketStoreFailed("full")
        if left > 0:
            self._evicted()
        txn.delete(spare)

    # --- leases

    def _wanted(
        self, txn: Transaction, slots: Sequence[Slot]
    ) -> "tuple[dict[str, Places], Iterable[bytes], bool]":
        """Returns the slots' places as they would be, by key; the names of the leases; and whether all slots
        are free."""
        places: dict[str, Places] = {}
        leases: set[bytes] = set()
        free = True
        for slot in slots:
            place = places.get(slot.key)
            if place is None:
                of = name_of_places(slot.key)
                found = txn.get(of)
                place = places[slot.key] = Places(of, COUNT.unpack(found)[0] if found is not None else 0)
            name = name_of_lease(place.name, slot.holder)
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
        rows: "dict[str, BucketRow]",
        now: int,
    ) -> None:
        for claim, cost in zip(claims, costs, strict=True):
            if claim.holder and cost:
                row = rows[claim.key]
                self._lease(txn, name_of_lease(row.name, claim.holder), now, cost, row.rule.unit, rows=rows)

    def _lease(
        self,
        txn: Transaction,
        name: bytes,
        now: int,
        ticks: int = 0,
        unit: int = 0,
        *,
        seat: int | None = None,
        rows: "dict[str, BucketRow] | None" = None,
    ) -> None:
        """Creates or renews a lease, which ends `lease` seconds from `now`."""
        lease = LEASE.pack(
            now + round(self.lease * SECOND), self._table.seat if seat is None else seat, ticks, unit
        )
        before = self._put(txn, name, lease, rows or {}, now)
        if before is not None:
            txn.delete(end_of(name, before))
        self._put(txn, end_of(name, lease), b"", rows or {}, now)

    def _pop(self, txn: Transaction, name: bytes) -> tuple[int, int] | None:
        """Deletes a lease. Returns the ticks that it had reserved and the ticks of one unit; None if there
        was no lease."""
        lease = txn.pop(name)
        if lease is None:
            return None
        txn.delete(end_of(name, lease))
        _, _, ticks, unit = LEASE.unpack(lease)
        return ticks, unit

    def _end(self, txn: Transaction, name: bytes) -> None:
        """Ends a lease, if there is one: gives back its place or its reservation."""
        reserved, of = self._pop(txn, name), name[1 : 1 + NAME_BYTES]
        state = txn.get(of) if reserved is not None else None
        if reserved is None or state is None:  # without the budget's row its period is over
            return
        if of.startswith(b"b"):
            txn.put(of, given_back(state, *reserved))
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
        """Gives back the leases that have ended.

        A lease that would end later than one taken now was taken before the clock stepped back: it is
        shortened to that time.
        """
        with self._table.env.begin() as txn:
            due = [
                end[END:]
                for end, _ in takewhile(lambda row: row[0] < ends_prefix(now + 1), starting(txn, b"e"))
            ]
        self._end_all(due)
        if now < self._latest:
            with self._table.env.begin() as txn:
                late = [
                    end[END:]
                    for end, _ in starting(txn, b"e", ends_prefix(now + round(self.lease * SECOND) + 1))
                ]
            for name in late:
                with self._table.env.begin(write=True) as txn:
                    _, seat, ticks, unit = LEASE.unpack(txn.get(name) or b"")
                    self._lease(txn, name, now, ticks, unit, seat=seat)
        self._latest = now

    def _release_dead(self, besides: frozenset[int] = frozenset()) -> bool:
        """Gives back the slots and reservations of dead processes. Returns whether there were any. Checks at
        most every DEAD_CHECK_SECONDS."""
        now = self._clock()
        if 0 <= now - self._dead_checked < DEAD_CHECK_SECONDS:
            return False
        self._dead_checked = now
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


def _refusal(
    now: float,
    claims: Sequence[Claim],
    rules: Sequence[Rule],
    costs: Sequence[int],
    rows: dict[str, BucketRow],
    *,
    slots: Sequence[Slot],
    places: dict[str, Places],
) -> Verdict:
    verdict = refusal(claims, rules, costs, [rows[claim.key].backlog for claim in claims])
    wait = (
        seconds_until(now, max((row.at for row in rows.values()), default=0), verdict.retry_after)
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
