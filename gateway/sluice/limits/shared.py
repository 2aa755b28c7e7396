"""Buckets and slots shared by the processes of one host, in a file that all of them map (`table.py`): no server.

A call holds the file's lock, and reads the time under it: CLOCK_MONOTONIC is the same for all processes of a host, so
time never runs back from one holder to the next. Where the lock's holder does not go on the call raises StoreFailed, and
the guard in front of the store decides (`limits.when_down`).

A new key takes a free row, else that of a bucket which is full by now (nobody misses it). Where there is none, the bucket
that would be full soonest is forgotten and `evicted` is told: this mints what that bucket still lacked, the least that
can be minted, and those who flood the table with keys push out each other's, never a debtor's. Budgets (rate 0) and slots
are never forgotten: where there is nothing else, the call raises StoreFailed. At random keys a table begins to forget when
it is some two thirds full of buckets that are not.

A slot is a row that names the row of its key's places (how many are taken), when its lease ends, and its process's seat.
What is reserved of a budget is such a row, too: it names the budget's bucket and how many ticks of its backlog are its own.
Slots and reservations of a dead process are given back as soon as somebody wants a place or some of a budget and finds none
left (he looks BURY_EVERY seconds apart), looks at a budget, or opens the table; those of a process that hangs are when their
lease ends.
"""

import math
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from sluice.limits import SLOT_WAIT, Balance, Claim, Level, Limit, Slot, Verdict
from sluice.limits.bucket import SECOND, Bucket, Rule, moved, refusal, rule_of
from sluice.limits.faults import StoreFailed
from sluice.limits.memory import _microseconds, _until
from sluice.limits.table import CHUNK, EMPTY, FREE, Name, Row, Table, name_of

BUCKET = struct.Struct("<qqqqqd")
"""At, backlog, pace, unit, capacity, when it may be forgotten (seconds since the epoch; 0: when it is full).

What never refills needs no time: in place of `at` stand the ticks of its backlog that are reserved.
"""
LEASE_OR_PLACES = struct.Struct("<qqqqqq")
"""End of the lease, row of its places or bucket, LEASE, seat and unit, ticks that are reserved, hash of the bucket's key; or
0, taken, PLACES … The third tells them from buckets, too. Of a slot ticks, unit and hash are 0.
"""
UNIT_SHIFT = 8
"""Bits below a lease's unit: those of its seat."""
HASH = struct.Struct("<q")
PLACES, LEASE = -1, -2

BURY_EVERY = 0.1
"""Seconds between two looks for dead processes."""
BATCH = 100
"""Slots renewed, or freed, at once."""


def _ignore() -> None:
    return None


@lru_cache(8192)
def _name_of_bucket(key: str) -> Name:
    return name_of(key, b"b")


@lru_cache(8192)
def _name_of_places(key: str) -> Name:
    return name_of(key, b"p")


def _name_of_lease(slot: Slot) -> Name:
    return name_of(slot.holder, b"l", _name_of_places(slot.key).key)


def _name_of_reservation(claim: Claim) -> Name:
    return name_of(claim.holder, b"r", _name_of_bucket(claim.key).key)


def _hash_of(key: bytes) -> int:
    return int(HASH.unpack_from(key)[0])


class SharedStore:
    """`path` is created (0600) if need be. `clock` gives the host's monotonic seconds, `wall` seconds since the epoch.

    `lease` and `patience` (how long a lock is waited for whose holder does not go on) in seconds; `size` is a new file's,
    in rows of 64 bytes, a power of two. `evicted` is told of each bucket that had to be forgotten. Raises OSError as Table.
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
        """When a place was wanted last. Where the clock steps back, leases must not last until it is there again."""
        self._table = Table(path, size)
        self._table.lock_to_open()
        try:
            self._bury({self._table.seat})
            self._table.use_seat()
        finally:
            self._table.unlock()

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Raises StoreFailed; ValueError as MemoryStore does, and for more than 255 rows (one a claim, two a slot)."""
        rules = [rule_of(claim.limit) for claim in claims]
        costs = [rule.cost(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        table = self._table
        if not table.try_lock():
            await table.lock(self._patience)
        try:
            return self._take(claims, rules, costs, slots)
        finally:
            table.unlock()

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Raises as `take`, and has then done nothing: whoever tries `again` was never answered."""
        rules = [rule_of(claim.limit) for claim in claims]
        charges = [rule.charge(claim.amount) for claim, rule in zip(claims, rules, strict=True)]
        table = self._table
        if not table.try_lock():
            await table.lock(self._patience)
        try:
            earliest, latest = _microseconds(self._clock())
            rows = self._rows(claims, rules, earliest, latest)
            ended = []
            for claim, charge in zip(claims, charges, strict=True):
                row = rows[claim.key]
                index = table.find(_name_of_reservation(claim)) if claim.holder else -1
                if index >= 0:
                    ended.append(Row(index, FREE, EMPTY, True))
                    row.give_back(*self._reserved_by(index))
                row.settle(charge)
            changed = self._changed(rows.values(), earliest, {row.index for row in rows.values()})
            table.write(changed + ended + self._without(self._held(slots)) if slots else changed + ended)
        finally:
            table.unlock()

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """A slot whose lease has ended stays lost, for another may have its place. Raises StoreFailed."""
        table = self._table
        for first in range(0, max(len(slots), len(claims)), BATCH):
            if not table.try_lock():
                await table.lock(self._patience)
            try:
                table.write(self._renewed(slots[first : first + BATCH]))
                self._reserve_again(claims[first : first + BATCH])
            finally:
                table.unlock()

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Raises as `take`. What dead processes have reserved is given back before."""
        rules = [rule_of(claim.limit) for claim in claims]
        table = self._table
        if not table.try_lock():
            await table.lock(self._patience)
        try:
            earliest, latest = _microseconds(self._clock())
            self._end_due(earliest)
            self._bury()
            found = []
            for claim, rule in zip(claims, rules, strict=True):
                row = self._row(_name_of_bucket(claim.key), rule, earliest, latest)
                found.append(Balance((row.backlog - row.reserved) / rule.unit, row.reserved / rule.unit))
            return found
        finally:
            table.unlock()

    async def close(self) -> None:
        self._table.close()

    def _take(self, claims: Sequence[Claim], rules: Sequence[Rule], costs: Sequence[int], slots: Sequence[Slot]) -> Verdict:
        now = self._clock()
        earliest, latest = _microseconds(now)
        reserving = bool(claims) and bool(claims[-1].holder)
        if slots or reserving:
            self._end_due(earliest)
        rows, fits = self._asked(claims, rules, costs, earliest, latest)
        if reserving and not fits and self._bury():
            rows, fits = self._asked(claims, rules, costs, earliest, latest)
        wanted = self._wanted(slots) if slots else _Wanted()
        places = wanted.places
        if not fits or not wanted.room:
            return self._refuse(claims, rules, costs, rows, slots, places, now)
        used = {row.index for row in rows.values()} | wanted.indices()
        changed = self._changed(rows.values(), earliest, used)
        if slots:
            changed += self._leased(wanted, earliest, used)
        if reserving:
            changed += self._reservations(claims, costs, rows, earliest, used)
        self._table.write(changed)
        levels = [rule.level(rows[claim.key].backlog) for claim, rule in zip(claims, rules, strict=True)]
        levels += [Level(float(slot.capacity - places[slot.key].taken), 0.0) for slot in slots]
        return Verdict(True, tuple(levels))

    def _refuse(
        self,
        claims: Sequence[Claim],
        rules: Sequence[Rule],
        costs: Sequence[int],
        rows: dict[str, "_Row"],
        slots: Sequence[Slot],
        places: dict[str, "_Places"],
        now: float,
    ) -> Verdict:
        for row in rows.values():
            row.backlog, row.reserved = row.before, row.reserved_before
        self._table.write(self._changed(rows.values(), 0, set()))
        verdict = refusal(claims, rules, costs, [rows[claim.key].backlog for claim in claims])
        wait = (
            _until(now, max((row.at for row in rows.values()), default=0), verdict.retry_after) if verdict.denied >= 0 else 0.0
        )
        denied, levels = verdict.denied, list(verdict.levels)
        for index, slot in enumerate(slots, len(claims)):
            place = places[slot.key]
            levels.append(Level(float(slot.capacity - place.before), 0.0))
            if place.taken > slot.capacity and wait < SLOT_WAIT:
                wait, denied = SLOT_WAIT, index
        return Verdict(False, tuple(levels), wait, denied)

    # --- buckets

    def _asked(
        self, claims: Sequence[Claim], rules: Sequence[Rule], costs: Sequence[int], earliest: int, latest: int
    ) -> tuple[dict[str, "_Row"], bool]:
        """The buckets as they would be, and whether the claims fit."""
        rows = self._rows(claims, rules, earliest, latest)
        fits = True
        for claim, cost in zip(claims, costs, strict=True):
            row = rows[claim.key]
            row.backlog += cost
            if claim.holder:
                row.reserved += cost
            fits = fits and row.backlog <= row.rule.capacity
        return rows, fits

    def _rows(self, claims: Sequence[Claim], rules: Sequence[Rule], earliest: int, latest: int) -> dict[str, "_Row"]:
        """The buckets as they are now. Raises ValueError where one is claimed under two limits."""
        rows: dict[str, _Row] = {}
        for claim, rule in zip(claims, rules, strict=True):
            row = rows.get(claim.key)
            if row is None:
                row = rows[claim.key] = self._row(_name_of_bucket(claim.key), rule, earliest, latest)
            elif claim.holder or (row.rule is not rule and row.rule != rule):
                raise ValueError("one bucket is claimed under two limits, or reserved twice")
            if not rule.pace:
                row.until = max(row.until, claim.expires)
        return rows

    def _row(self, name: Name, rule: Rule, earliest: int, latest: int) -> "_Row":
        index = self._table.find(name)
        if index < 0:
            return _Row(rule, latest, name, index)
        at, backlog, pace, unit, capacity, until = self._table.state(BUCKET, index)
        if until and until <= self._wall():
            return _Row(rule, latest, name, index)
        row = _Row(rule, at if pace else earliest, name, index)
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

    def _changed(self, rows: Iterable["_Row"], now: int, used: set[int]) -> list[Row]:
        """Buckets whose level has changed, or whose time ran backwards, as they are to be written."""
        changed = []
        for row in rows:
            if row.backlog != row.before or row.at < row.read_at or row.reserved != row.reserved_before:
                if new := row.index < 0:
                    row.index = self._new_row(row.name, now, used)
                changed.append(Row(row.index, row.name.key, _state_of(row), new))
        return changed

    def _new_row(self, name: Name, now: int, used: set[int]) -> int:
        """A row that this call may have; `used` are those it has. Raises StoreFailed where none can be spared."""
        index = self._table.free_row(name.hash, used)
        if index < 0:
            left, index = min(self._spare(name, now, used), default=(math.inf, -1))
            if left == math.inf:
                raise StoreFailed("full")
            if left > 0:
                self._evicted()
        used.add(index)
        return index

    def _spare(self, name: Name, now: int, used: set[int]) -> Iterator[tuple[float, int]]:
        """The rows of a window, and in how many microseconds nobody would miss each."""
        window = self._table.window(name.hash)
        for index, (at, backlog, pace, _, _, until) in zip(window, self._table.states(BUCKET, window), strict=True):
            if index not in used:
                yield _missed_for(now - at, backlog, pace, 0 < until <= self._wall()), index

    # --- slots

    def _end_due(self, now: int) -> None:
        """Give back the leases that have ended."""
        if now < self._latest:
            self._end_leases(self._table.bounded(math.inf), now)
        elif 0 < self._table.bound <= now:
            self._end_leases(self._table.bounded(now), now)
        self._latest = now

    def _wanted(self, slots: Sequence[Slot]) -> "_Wanted":
        wanted = self._look(slots)
        if not wanted.room and self._bury():
            wanted = self._look(slots)
        return wanted

    def _look(self, slots: Sequence[Slot]) -> "_Wanted":
        table, wanted = self._table, _Wanted()
        for slot in slots:
            place = wanted.places.get(slot.key)
            if place is None:
                name = _name_of_places(slot.key)
                index = table.find(name)
                taken = table.state(LEASE_OR_PLACES, index)[1] if index >= 0 else 0
                place = wanted.places[slot.key] = _Places(name, index, taken)
            name = _name_of_lease(slot)
            if name.key not in wanted.leases:
                index = table.find(name)
                wanted.leases[name.key] = _Lease(name, index, place)
                if index < 0:
                    place.taken += 1
                    wanted.room = wanted.room and place.taken <= slot.capacity
        return wanted

    def _leased(self, wanted: "_Wanted", now: int, used: set[int]) -> list[Row]:
        rows = []
        for place in wanted.places.values():
            if new := place.index < 0:
                place.index = self._new_row(place.name, now, used)
            rows.append(Row(place.index, place.name.key, _state_of_places(place.taken), new))
        until = now + round(self.lease * SECOND)
        for lease in wanted.leases.values():
            new = lease.index < 0
            index = self._new_row(lease.name, now, used) if new else lease.index
            self._table.lower(index, until)
            rows.append(Row(index, lease.name.key, self._state_of_lease(until, lease.place.index), new))
        return rows

    def _state_of_lease(self, until: int, place: int) -> bytes:
        return LEASE_OR_PLACES.pack(until, place, LEASE, self._table.seat, 0, 0)

    def _held(self, slots: Sequence[Slot]) -> list[int]:
        """The rows of these slots' leases, those that are there."""
        return [row for row in {self._table.find(_name_of_lease(slot)) for slot in slots} if row >= 0]

    def _without(self, leases: Sequence[int]) -> list[Row]:
        """These leases given back: their rows, and those of their places or buckets."""
        rows = [Row(lease, FREE, EMPTY, True) for lease in leases]
        counts: dict[int, int] = {}
        buckets: dict[int, _Row] = {}
        for lease in leases:
            _, parent, _, _, ticks, hash_ = self._table.state(LEASE_OR_PLACES, lease)
            if not ticks:
                counts[parent] = counts.get(parent, 0) + 1
            elif _hash_of(self._table.key(parent)) == hash_:  # else the budget's period is over and its row another's
                bucket = buckets.get(parent)
                if bucket is None:
                    bucket = buckets[parent] = self._bucket_at(parent)
                bucket.give_back(*self._reserved_by(lease))
        for place, count in counts.items():
            taken = self._table.state(LEASE_OR_PLACES, place)[1] - count
            rows.append(Row(place, self._table.key(place), _state_of_places(taken), False))
        return rows + [Row(index, self._table.key(index), _state_of(bucket), False) for index, bucket in buckets.items()]

    # --- reservations

    def _reserved_by(self, lease: int) -> tuple[int, int]:
        """Its ticks and their unit."""
        _, _, _, seat, ticks, _ = self._table.state(LEASE_OR_PLACES, lease)
        return ticks, seat >> UNIT_SHIFT

    def _bucket_at(self, index: int) -> "_Row":
        """The budget that stands in this row, as it is."""
        key = self._table.key(index)
        reserved, backlog, pace, unit, capacity, until = self._table.state(BUCKET, index)
        row = _Row(Rule(Limit(1.0, 0.0), pace, unit, capacity, unit), 0, Name(key, _hash_of(key)), index)
        row.backlog, row.reserved, row.until = backlog, reserved, until
        return row

    def _reservations(
        self, claims: Sequence[Claim], costs: Sequence[int], rows: dict[str, "_Row"], now: int, used: set[int]
    ) -> list[Row]:
        """The leases of what these claims reserve, whose buckets' rows are known."""
        until, leases = now + round(self.lease * SECOND), []
        for claim, cost in zip(claims, costs, strict=True):
            row = rows[claim.key]
            if claim.holder and cost:
                name = _name_of_reservation(claim)
                index = self._new_row(name, now, used)
                self._table.lower(index, until)
                unit = self._table.seat | row.rule.unit << UNIT_SHIFT
                state = LEASE_OR_PLACES.pack(until, row.index, LEASE, unit, cost, _hash_of(row.name.key))
                leases.append(Row(index, name.key, state, True))
        return leases

    def _reserve_again(self, claims: Sequence[Claim]) -> None:
        """Renew what these claims reserve; what was given back meanwhile is reserved anew, whether there is room or not."""
        earliest, latest = _microseconds(self._clock())
        until = earliest + round(self.lease * SECOND)
        for claim in claims:
            name = _name_of_reservation(claim)
            index = self._table.find(name)
            if index >= 0:
                _, *parent, _, ticks, hash_ = self._table.state(LEASE_OR_PLACES, index)
                seat = self._table.seat | self._reserved_by(index)[1] << UNIT_SHIFT
                self._table.lower(index, until)
                state = LEASE_OR_PLACES.pack(until, *parent, seat, ticks, hash_)
                self._table.write([Row(index, name.key, state, False)])
                continue
            rule = rule_of(claim.limit)
            rows = self._rows([claim], [rule], earliest, latest)
            [row], cost = rows.values(), rule.charge(claim.amount)
            row.settle(cost)
            row.reserved += cost
            used = {row.index}
            changed = self._changed([row], earliest, used)
            self._table.write(changed + self._reservations([claim], [cost], rows, earliest, used))

    def _renewed(self, slots: Sequence[Slot]) -> list[Row]:
        now = _microseconds(self._clock())[0]
        until = now + round(self.lease * SECOND)
        rows = []
        for slot in slots:
            name = _name_of_lease(slot)
            index = self._table.find(name)
            if index >= 0:
                ends, place, *_ = self._table.state(LEASE_OR_PLACES, index)
                if ends > now:
                    self._table.lower(index, until)
                    rows.append(Row(index, name.key, self._state_of_lease(until, place), False))
        return rows

    def _bury(self, besides: Iterable[int] = ()) -> bool:
        """Give back what dead processes hold. Whether there were any; asked again too soon it does not look."""
        now = self._clock()
        if 0 <= now - self._buried < BURY_EVERY:
            return False
        self._buried = now
        dead = self._table.vacant() | frozenset(besides)
        if dead:
            self._end_leases(self._table.bounded(math.inf), _microseconds(now)[0], dead)
            self._table.clear(dead)
        return bool(dead)

    def _end_leases(self, chunks: Iterable[int], now: int, dead: frozenset[int] = frozenset()) -> None:
        """Give back the slots in these chunks whose lease has ended, or whose process is dead.

        A lease that would end later than one that began now began on a clock that has stepped back: it ends with that.
        """
        table, bounds = self._table, {}
        longest = now + round(self.lease * SECOND)
        for chunk in chunks:
            window = range(chunk * CHUNK, (chunk + 1) * CHUNK)
            ended, shortened, bounds[chunk] = [], [], 0
            leases = table.states(LEASE_OR_PLACES, window)
            for index, (until, place, kind, seat, ticks, hash_) in zip(window, leases, strict=True):
                if kind != LEASE:
                    continue
                if until <= now or seat & (1 << UNIT_SHIFT) - 1 in dead:
                    ended.append(index)
                    continue
                if until > longest:
                    shortened.append((index, LEASE_OR_PLACES.pack(longest, place, LEASE, seat, ticks, hash_)))
                bounds[chunk] = min(bounds[chunk] or longest, until, longest)
            for first in range(0, len(shortened), BATCH):
                table.write([Row(index, table.key(index), state, False) for index, state in shortened[first : first + BATCH]])
            for first in range(0, len(ended), BATCH):
                table.write(self._without(ended[first : first + BATCH]))
        table.rebound(bounds)


class _Row(Bucket):
    """A bucket, the row that it was read from (-1: it has none), and what it was then."""

    __slots__ = ("before", "index", "name", "read_at", "reserved", "reserved_before", "until")

    def __init__(self, rule: Rule, at: int, name: Name, index: int) -> None:
        super().__init__(rule, at)
        self.name = name
        self.index = index
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
    """How many slots of a key are taken, before a call and if it is admitted; `index` as a bucket's."""

    __slots__ = ("before", "index", "name", "taken")

    def __init__(self, name: Name, index: int, taken: int) -> None:
        self.name = name
        self.index = index
        self.taken = self.before = taken


class _Lease:
    __slots__ = ("index", "name", "place")

    def __init__(self, name: Name, index: int, place: _Places) -> None:
        self.name = name
        self.index = index
        self.place = place


class _Wanted:
    """The places that a call's slots want, by the slots' keys, and the leases, by their rows' keys."""

    __slots__ = ("leases", "places", "room")

    def __init__(self) -> None:
        self.places: dict[str, _Places] = {}
        self.leases: dict[bytes, _Lease] = {}
        self.room = True

    def indices(self) -> set[int]:
        return {place.index for place in self.places.values()} | {lease.index for lease in self.leases.values()}


def _state_of(row: _Row) -> bytes:
    rule = row.rule
    at = row.at if rule.pace else row.reserved
    return BUCKET.pack(at, row.backlog, rule.pace, rule.unit, rule.capacity, row.until)


def _state_of_places(taken: int) -> bytes:
    return LEASE_OR_PLACES.pack(0, taken, PLACES, 0, 0, 0)


def _missed_for(elapsed: int, backlog: int, pace: int, expired: bool) -> float:
    """For how many microseconds more a row is needed; infinite where it must not be forgotten."""
    if pace == LEASE:
        return math.inf
    if backlog == 0 or expired:  # of a key's places, too: none is taken
        return 0.0
    return backlog / pace - elapsed if pace > 0 else math.inf
