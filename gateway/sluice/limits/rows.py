"""The rows of the file in which the processes of one host share buckets and slots (`sluice.limits.shared`): their
names, and their values in bytes. Pure.

The first byte of a row's name tells what it is: b a bucket, p places (how many slots of a key are taken), l a
lease, e the same lease by when it ends, s a process's seat. A slot is a lease whose name is made of its places'
row and its holder. A reservation is a lease too, with its budget's row in place of the places'; its value says
how many ticks of the backlog are reserved.
"""

import math
import struct
from functools import lru_cache
from hashlib import blake2b

from sluice.limits import Limit
from sluice.limits.bucket import Bucket, Rule, moved

BUCKET = struct.Struct("<qqqqqd")
"""Values of a bucket's row: at, backlog, pace, unit, capacity, and when it may be forgotten (seconds since
the epoch; 0: when it is full).

A bucket that never refills needs no time: in place of `at` it has the ticks of its backlog that are reserved.
"""
LEASE = struct.Struct("<qqqq")
"""Values of a lease's row: when it ends, its process's seat, the ticks that are reserved, and the ticks of
one unit (0: it is a slot's lease)."""
ENDS = struct.Struct(">Q")
END = 1 + ENDS.size
NAME_BYTES = 16
"""Bytes of a row's name: one for its kind, then a digest."""
COUNT = struct.Struct("<q")


def _name(kind: bytes, text: str, salt: bytes = b"") -> bytes:
    return (
        kind + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES - 1, salt=salt).digest()
    )


@lru_cache(8192)
def name_of_bucket(key: str) -> bytes:
    return _name(b"b", key)


@lru_cache(8192)
def name_of_places(key: str) -> bytes:
    return _name(b"p", key)


def name_of_lease(of: bytes, holder: str) -> bytes:
    return b"l" + _name(of, holder)


class BucketRow(Bucket):
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
        """Ends a reservation of `ticks`, whose unit had `unit` ticks."""
        ticks = moved(ticks, unit, self.rule.unit)
        self.reserved = max(0, self.reserved - ticks)
        self.settle(-ticks)


class Places:
    """The slots of one key that are in use, before a call and after its admission."""

    __slots__ = ("before", "name", "taken")

    def __init__(self, name: bytes, taken: int) -> None:
        self.name = name
        self.taken = self.before = taken


def ends_prefix(at: int) -> bytes:
    """Returns the prefix of the rows for leases that end at this time."""
    return b"e" + ENDS.pack(at)


def end_of(name: bytes, lease: bytes) -> bytes:
    """Returns the name of the row by which a lease is found by its end."""
    return ends_prefix(LEASE.unpack(lease)[0]) + name


def given_back(state: bytes, ticks: int, unit: int) -> bytes:
    """Returns a budget's state after a reservation of `ticks`, whose unit had `unit` ticks, was given back."""
    reserved, backlog, pace, to, capacity, until = BUCKET.unpack(state)
    row = BucketRow(Rule(Limit(1.0, 0.0), pace, to, capacity, to), 0, b"")
    row.backlog, row.reserved, row.until = backlog, reserved, until
    row.give_back(ticks, unit)
    return state_of(row)


def state_of(row: BucketRow) -> bytes:
    rule = row.rule
    at = row.at if rule.pace else row.reserved
    return BUCKET.pack(at, row.backlog, rule.pace, rule.unit, rule.capacity, row.until)


def needed_for(elapsed: int, backlog: int, pace: int, expired: bool) -> float:
    """Returns the microseconds until a bucket's row is no longer needed; infinite if it must not be evicted."""
    if backlog == 0 or expired:
        return 0.0
    return backlog / pace - elapsed if pace > 0 else math.inf
