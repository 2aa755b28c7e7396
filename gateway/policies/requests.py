"""Requests per key, and per client address before authentication. A refused request takes nothing from any bucket."""

import math
from collections.abc import Callable
from functools import lru_cache
from types import TracebackType
from typing import Any

from gateway.call import Call
from gateway.config import Limit as LimitConfig
from gateway.config import windows_of
from gateway.errors import RateLimited
from gateway.limits import BucketStore, Claim, Limit, Verdict


def bucket_of(limit: LimitConfig) -> Limit:
    """The token bucket for a configured limit."""
    return Limit(limit.capacity, float(limit.rate))


@lru_cache(4096)
def _claim_of_key(bucket: str, limit: Limit) -> Claim:
    return Claim(f"key:{bucket}", limit)


@lru_cache(4096)
def _claim_of_address(address: str, limit: Limit) -> Claim:
    return Claim(f"address:{address}", limit, 1.0, "address")


def headers_of(claim: Claim, verdict: Verdict, index: int = 0) -> list[tuple[str, str]]:
    """`x-ratelimit-*` in OpenAI's names; reset in seconds until the bucket is full."""
    level = verdict.levels[index]
    limit, remaining, reset = _names(claim.resource, claim.limit.capacity)
    return [limit, (remaining, str(max(0, math.floor(level.remaining)))), (reset, f"{level.reset:.3f}s")]


@lru_cache(4096)
def _names(resource: str, capacity: float) -> tuple[tuple[str, str], str, str]:
    """The whole header that says the limit, and the names of the two that follow."""
    limit = (f"x-ratelimit-limit-{resource}", str(int(capacity)))
    return limit, f"x-ratelimit-remaining-{resource}", f"x-ratelimit-reset-{resource}"


class RequestLimits:
    """`decided` is told (scope, resource, decision) for the metric."""

    def __init__(self, store: BucketStore, address: LimitConfig | None, decided: Callable[[str, str, str], Any]) -> None:
        self._store = store
        self._address = bucket_of(address) if address else None
        self._decided = decided

    async def admit_address(self, address: str) -> None:
        """Raises RateLimited where this client address has asked too often."""
        if self._address is not None:
            await self.take(_claim_of_address(address, self._address))

    def __call__(self, call: Call) -> "_Admission":
        return _Admission(self, call)

    async def take(self, claim: Claim) -> Verdict:
        """Raises RateLimited where it does not fit."""
        verdict = await self._store.take([claim])
        if verdict.admitted:
            self._decided(claim.scope, claim.resource, "admitted")
            return verdict
        self._decided(claim.scope, claim.resource, "refused")
        headers = headers_of(claim, verdict)
        raise RateLimited(verdict.retry_after, scope=claim.scope, resource=claim.resource, headers=headers)


class _Admission:
    """One call's: a request is charged when it begins, whatever becomes of it."""

    __slots__ = ("_call", "_limits")

    def __init__(self, limits: RequestLimits, call: Call) -> None:
        self._limits = limits
        self._call = call

    async def __aenter__(self) -> None:
        principal = self._call.principal
        for limit in windows_of(principal.limits.requests)[:1]:
            claim = _claim_of_key(principal.bucket, bucket_of(limit))
            self._call.headers += headers_of(claim, await self._limits.take(claim))

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        return None
