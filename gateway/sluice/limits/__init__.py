"""Limits: counting apart from deciding. `bucket` is pure arithmetic, a store holds buckets, policies say which to take.

Token bucket (capacity, refill per second), continuous refill. All claims of one call are taken atomically, all or none.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec


class Limit(msgspec.Struct, frozen=True):
    """`capacity` units at most, refilled at `rate` units a second; a rate of 0 never refills (a budget of one period)."""

    capacity: float
    rate: float


class Claim(msgspec.Struct, frozen=True, gc=False):
    """`amount` units out of bucket `key`. `scope` and `resource` name it in metrics, headers and errors.

    `expires`, seconds since the epoch: when a bucket that never refills may be forgotten (0: never); of no account for
    those that refill.

    `holder`, of a bucket that never refills (a budget): the amount is *reserved* under this name, which is unique to the
    call, until it is settled. As a slot is, so a reservation is a lease: what a call that never ends had reserved is given back
    by itself. Such claims stand behind all others of a call. In a settlement `amount` is what was used, to be charged in
    place of `held`, which was reserved.
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

    A holder has one place under a key, however often it takes it.
    Where several processes share a store it is a lease: it is lost `BucketStore.lease` seconds after the last `renew`,
    so that a crashed process holds no place for longer.
    """

    key: str
    capacity: int
    holder: str
    scope: str = "key"
    resource: str = "streams"


class Level(msgspec.Struct, frozen=True, gc=False):
    """State of one bucket after the decision: `remaining` units (may be negative: debt), `reset` seconds until full
    (infinite where it never refills: whoever claims it knows when its period ends).

    Of slots: `remaining` places, `reset` 0.
    """

    remaining: float
    reset: float


class Balance(msgspec.Struct, frozen=True, gc=False):
    """What was charged to a bucket and not refilled, and what calls that have not ended have reserved of it."""

    spent: float
    reserved: float


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Admitted, or refused by `denied` (the index of the claim that must wait longest) for `retry_after` seconds.

    `levels` stand in the order of the claims, then of the slots, in both cases; `denied` counts in the same order.
    A refusal takes nothing from any bucket, and no slot. `retry_after` is when the same call would really be admitted;
    infinite where an amount exceeds its capacity or its bucket never refills. When a slot comes free nobody knows: for
    slots alone it is SLOT_WAIT.

    `by`: who decided in place of the store that was asked. That is where the call must be settled: `(verdict.by or store)`.
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
        """Ask it once, with more patience than a call has."""
        ...


SLOT_WAIT = 1.0
"""Seconds."""


class BucketStore(Protocol):
    """Where buckets live. One test suite for every implementation.

    A caller that is cancelled while it waits has taken nothing: what the store decides afterwards is given back.
    """

    lease: float
    """Seconds that slots and reservations hold without being renewed; infinite where they live and die with this process."""

    async def take(self, claims: Sequence[Claim], slots: Sequence[Slot] = ()) -> Verdict:
        """All claims and slots or none, atomically."""
        ...

    async def settle(self, claims: Sequence[Claim], slots: Sequence[Slot] = (), again: bool = False) -> None:
        """Charge (positive amount, into debt if need be) or refund (negative, never above capacity); give slots back.

        Reservations end, and their claims' amounts are charged, also where the lease has ended. A slot that is not held any
        more is no error. `again`: this settlement was sent before and may have been done; where none of its reservations
        is there any more, it has been, and nothing happens.
        """
        ...

    async def renew(self, slots: Sequence[Slot], claims: Sequence[Claim] = ()) -> None:
        """Hold slots and reservations for another `lease`: due every third of it while a call goes on.

        Those that were lost meanwhile are held again. Only claims with a holder may be given, as they were taken.
        """
        ...

    async def balances(self, claims: Sequence[Claim]) -> list[Balance]:
        """The state of these buckets now, without what has been given back. Amounts and holders are of no account."""
        ...

    async def close(self) -> None: ...
