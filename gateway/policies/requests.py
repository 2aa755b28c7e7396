"""Requests per key, and per client address before authentication. A refused request takes nothing from any bucket."""

import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.call import Call
from gateway.config import Limit as LimitConfig
from gateway.errors import RateLimited
from gateway.limits import BucketStore, Claim, Limit, Verdict


def bucket_of(limit: LimitConfig) -> Limit:
    """The token bucket for a configured limit: its capacity is one second's worth, at least 1, unless `burst` says."""
    return Limit(capacity=limit.burst or max(1.0, float(limit.rate)), rate=float(limit.rate))


def headers_of(claim: Claim, verdict: Verdict, index: int = 0) -> list[tuple[str, str]]:
    """`x-ratelimit-*` in OpenAI's names; reset in seconds until the bucket is full."""
    level = verdict.levels[index]
    return [
        (f"x-ratelimit-limit-{claim.resource}", str(int(claim.limit.capacity))),
        (f"x-ratelimit-remaining-{claim.resource}", str(max(0, math.floor(level.remaining)))),
        (f"x-ratelimit-reset-{claim.resource}", f"{level.reset:.3f}s"),
    ]


class RequestLimits:
    """`decided` is told (scope, resource, decision) for the metric."""

    def __init__(self, store: BucketStore, address: LimitConfig | None, decided: Callable[[str, str, str], Any]) -> None:
        self._store = store
        self._address = bucket_of(address) if address else None
        self._decided = decided

    async def admit_address(self, address: str) -> None:
        """Raises RateLimited where this client address has asked too often."""
        if self._address is not None:
            await self._take([Claim(f"address:{address}", self._address, scope="address")])

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        limit = call.principal.limits.requests
        if limit is not None:
            claim = Claim(f"key:{call.principal.bucket}", bucket_of(limit))
            call.headers += await self._take([claim])
        yield

    async def _take(self, claims: Sequence[Claim]) -> list[tuple[str, str]]:
        verdict = await self._store.take(claims)
        index = max(verdict.denied, 0)
        claim = claims[index]
        headers = headers_of(claim, verdict, index)
        self._decided(claim.scope, claim.resource, "admitted" if verdict.admitted else "refused")
        if not verdict.admitted:
            raise RateLimited(verdict.retry_after, scope=claim.scope, resource=claim.resource, headers=headers)
        return headers
