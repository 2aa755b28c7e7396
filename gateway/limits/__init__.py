"""Limits: counting apart from deciding. `bucket` is pure arithmetic, a store holds buckets, policies say which to take.

Token bucket (capacity, refill per second), continuous refill. All claims of one call are taken atomically, all or none.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Limit(msgspec.Struct, frozen=True):
    """`capacity` units at most, refilled at `rate` units a second."""

    capacity: float
    rate: float


class Claim(msgspec.Struct, frozen=True, gc=False):
    """`amount` units out of bucket `key`. `scope` and `resource` name it in metrics, headers and errors."""

    key: str
    limit: Limit
    amount: float = 1.0
    scope: str = "key"
    resource: str = "requests"


class Level(msgspec.Struct, frozen=True, gc=False):
    """State of one bucket after the decision: `remaining` units (may be negative: debt), `reset` seconds until full."""

    remaining: float
    reset: float


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Admitted, or refused by `denied` (the index of the claim that must wait longest) for `retry_after` seconds.

    `levels` stand in the order of the claims, in both cases. A refusal takes nothing from any bucket.
    `retry_after` is when the same call would really be admitted; infinite where an amount exceeds its capacity.
    """

    admitted: bool
    levels: tuple[Level, ...]
    retry_after: float = 0.0
    denied: int = -1


class BucketStore(Protocol):
    """Where buckets live. One test suite for every implementation."""

    async def take(self, claims: Sequence[Claim]) -> Verdict:
        """All claims or none, atomically."""
        ...

    async def settle(self, claims: Sequence[Claim]) -> None:
        """Charge (positive amount, into debt if need be) or refund (negative, never above capacity)."""
        ...

    async def close(self) -> None: ...
