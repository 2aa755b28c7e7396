"""Rate limits.

`bucket` is the pure arithmetic of token buckets (a capacity, refilled continuously at a rate); a
`BucketStore` holds buckets; policies decide which buckets a call takes from. All claims of a call are taken
atomically: all of them or none.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec


class Limit(msgspec.Struct, frozen=True):
    """A limit: at most `capacity` units, refilled at `rate` units per second. A rate of 0 never refills; it
    is for the budget of one period."""

    capacity: float
    rate: float


class Claim(msgspec.Struct, frozen=True, gc=False):
    """Takes `amount` units out of the bucket `key`. `scope` and `resource` name the limit in metrics, headers
    and errors.

    `expires`: when a bucket that never refills may be forgotten, in seconds since the epoch (0: never);
    ignored for buckets that refill.

    `holder` is for buckets that never refill (budgets): the amount is *reserved* under this name, which is
    unique to the call, until it is settled. A reservation is a lease, like a slot: without renewal it is
    given back. Claims with a holder come after all others of a call. In a settlement, `amount` is the amount
    used; it is charged in place of `held`, the amount reserved.
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
    """One of the `capacity` places under `key`, held by `holder` (unique to the call) until it is settled.

    A holder has one place under a key, however often it takes one. If several processes share a store, the
    place is a lease: it ends `BucketStore.lease` seconds after the last `renew`, so that a crashed process
    does not keep it.
    """

    key: str
    capacity: int
    holder: str
    scope: str = "key"
    resource: str = "streams"


class Level(msgspec.Struct, frozen=True, gc=False):
    """The state of a bucket after a decision.

    `remaining` units may be negative (debt). `reset`: seconds until it is full; infinite if it never refills
    (the policy knows when the period ends). For slots, `remaining` is the number of free places, and `reset`
    is 0.
    """

    remaining: float
    reset: float


class Balance(msgspec.Struct, frozen=True, gc=False):
    """The amount charged to a bucket and not yet refilled, and the amount reserved by running calls."""

    spent: float
    reserved: float


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A decision: admitted, or refused.

    A refused call may try again after `retry_after` seconds: the same call would be admitted then. It is
    infinite if an amount exceeds its capacity, or if the bucket never refills. `denied` is the index of the
    claim that has to wait longest. Nobody knows when a slot becomes free: if only slots are missing,
    `retry_after` is SLOT_WAIT. A refusal takes nothing from any bucket, and no slot.

    `levels` are in the order of the claims, then of the slots, and `denied` counts in this order. `by`: the
    store that decided in place of the one that was called; it also has to settle the call: `(verdict.by or
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
        """Like `BucketStore.take`, without a coroutine."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A bucket store that is reached over a network, so it may be down, or its password may be wrong."""

    async def greet(self) -> None:
        """Sends one request, with a longer timeout than a call has."""
        ...


@runtime_checkable
class Dated(Protocol):
    """A bucket store with a wall clock that all who share it go by: it says in which period a budget is."""

    def wall(self) -> float:
        """Seconds since the epoch."""
        ...


SLOT_WAIT = 1.0
"""Seconds until a call that found no free slot should try again."""


class BucketStore(Protocol):
    """Holds buckets and slots. One test suite covers all implementations.

    A caller that is cancelled while it waits has taken nothing: if the store admits it later, that is given
    back.
    """

    lease: float
    """Seconds that slots and reservations last without renewal; infinite if they end with this process."""

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """Takes all claims and slots, or none, atomically."""
        ...

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Settles a call: charges (positive amounts, if need be into debt) or refunds (negative amounts,
        never above the capacity), and gives slots back.

        Reservations end, and the amounts of their claims are charged, even if the lease has ended. A slot
        that is no longer held is no error. `again`: this settlement was sent before, and may have been done.
        If none of its reservations exists any more, it was done, and nothing happens.
        """
        ...

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Holds slots and reservations for another `lease` seconds; to be called every third of that while a
        call runs. Those that have expired are held again. Claims must have a holder, and be given as they
        were taken."""
        ...

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """Returns the current state of these buckets. Amounts and holders of the claims are ignored."""
        ...

    async def close(self) -> None: ...
