"""Rate limits: `bucket` is pure arithmetic, a `BucketStore` holds buckets, policies decide which to take
from.

Token bucket (capacity, refill per second), continuous refill. All claims of one call are taken atomically,
all or none.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec


class Limit(msgspec.Struct, frozen=True):
    """`capacity` units at most, refilled at `rate` units a second; a rate of 0 never refills (a budget of one
    period)."""

    capacity: float
    rate: float


class Claim(msgspec.Struct, frozen=True, gc=False):
    """`amount` units out of bucket `key`. `scope` and `resource` name it in metrics, headers and errors.

    `expires`, seconds since the epoch: when a bucket that never refills may be forgotten (0: never); ignored
    for buckets that refill.

    `holder`, of a bucket that never refills (a budget): the amount is *reserved* under this name, which is
    unique to the call, until it is settled. A reservation is a lease, like a slot: without renewal it is
    given back. Such claims come after all others of a call. In a settlement `amount` is the amount used,
    charged in place of `held`, the amount reserved.
    """

    key: str
    limit: Limit
    amount: float = 1.0
    scope: str = "key"
    resource: str = "requests"
    expires: float = 0.0
    holder: str = ""
    held: float = 0.0


class Slot(msgspec.Struct, frozen=True, gc=False):
    """One of `capacity` places under `key`, held by `holder` (unique to the call) until it is settled.

    A holder has one place under a key, however often it takes it. Where several processes share a store it is
    a lease: it is lost `BucketStore.lease` seconds after the last `renew`, so that a crashed process holds no
    place for longer.
    """

    key: str
    capacity: int
    holder: str
    scope: str = "key"
    resource: str = "streams"


class Level(msgspec.Struct, frozen=True, gc=False):
    """State of one bucket after the decision: `remaining` units (may be negative: debt), `reset` seconds
    until full (infinite if it never refills: the policy knows when its period ends).

    Of slots: `remaining` places, `reset` 0.
    """

    remaining: float
    reset: float


class Balance(msgspec.Struct, frozen=True, gc=False):
    """The amount charged to a bucket and not refilled, and the amount reserved by running calls."""

    spent: float
    reserved: float


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Admitted, or refused by `denied` (the index of the claim that must wait longest) for `retry_after`
    seconds.

    `levels` stand in the order of the claims, then of the slots, in both cases; `denied` counts in the same
    order. A refusal takes nothing from any bucket, and no slot. After `retry_after` the same call would be
    admitted; it is infinite if an amount exceeds its capacity or its bucket never refills. When a slot
    becomes free is unknown: for slots alone it is SLOT_WAIT.

    `by`: the store that decided in place of the one called, and that must settle the call: `(verdict.by or
    store)`.
    """

    admitted: bool
    levels: tuple[Level, ...]
    retry_after: float = 0.0
    denied: int = -1
    by: "BucketStore | None" = None


@runtime_checkable
class Immediate(Protocol):
    """A bucket store that never has to wait."""

    def take_now(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """`BucketStore.take` without a coroutine."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A bucket store that may be out of reach, or be reached with a wrong password."""

    async def greet(self) -> None:
        """Send one request, with a longer timeout than a call has."""
        ...


SLOT_WAIT = 1.0
"""Seconds."""


class BucketStore(Protocol):
    """Holds buckets and slots. One test suite covers every implementation.

    A caller that is cancelled while it waits has taken nothing: a later admission is given back.
    """

    lease: float
    """Seconds that slots and reservations last without renewal; infinite if they end with this process."""

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """All claims and slots or none, atomically."""
        ...

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Charge (positive amount, into debt if need be) or refund (negative, never above capacity); give
        slots back.

        Reservations end, and their claims' amounts are charged, even if the lease has ended. A slot that is
        no longer held is no error. `again`: this settlement was sent before and may have been done; if none
        of its reservations exists any more, it was, and nothing happens.
        """
        ...

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Hold slots and reservations for another `lease`; to be called every third of it while a call runs.

        Expired ones are held again. Only claims with a holder may be given, as they were taken.
        """
        ...

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """The current state of these buckets. Amounts and holders of the claims are ignored."""
        ...

    async def close(self) -> None: ...
